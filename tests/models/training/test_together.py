"""Sampler, images, network and losses together: a small network learns to tell identities apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reid_models.data import IdentitySampler, ImageDataset, make_synthetic
from reid_models.losses import WeightedLoss
from reid_models.networks import Network, create_model
from reid_models.papers.hsgnet.defaults import HSGNET_LOSSES

SIZE = (32, 32)


def rank_1(model: Network, images: ImageDataset) -> float:
    """Share of images whose nearest by cosine, same identity and camera left out, shows the same identity."""
    batch = torch.stack([sample.image for sample in images]).float() / 255
    identities = torch.tensor(images.identities)
    cameras = torch.tensor([record.camera for record in images.records])
    with torch.no_grad():
        features = F.normalize(model.eval()(batch))
    same_camera = (identities[:, None] == identities) & (cameras[:, None] == cameras)
    nearest = (features @ features.mT).masked_fill(same_camera, -2).argmax(dim=1)
    return (identities[nearest] == identities).float().mean().item()


def test_training_tells_identities_apart_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    dataset = make_synthetic(identities=64, cameras=3, images_per_camera=3, size=SIZE)
    images = ImageDataset(dataset.train, labels=dataset.train_labels)
    gallery = ImageDataset(dataset.draws[0].gallery)
    options = {"backbone": "resnet10t", "image_size": SIZE, "stages": (2,)}
    model = create_model("hsgnet", dataset.num_classes, **options)
    untrained = rank_1(model, gallery)
    losses = WeightedLoss(HSGNET_LOSSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    sampler = IdentitySampler(images.identities, identities_per_batch=16, images_per_identity=3)
    loader = torch.utils.data.DataLoader(images, batch_sampler=sampler)
    history = []
    model.train()
    for _ in range(8):
        for batch in loader:
            values = losses(model(batch.image.float() / 255), batch.identity)
            optimizer.zero_grad()
            values["total"].backward()
            optimizer.step()
            history.append(values["total"].item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    assert rank_1(model, gallery) > untrained + 0.3
