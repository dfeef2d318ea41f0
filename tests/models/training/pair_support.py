"""A network that looks at pairs and a loss that remembers, for tests of training."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reid_models.networks.network import Network, Output


class PairNet(Network):
    """Colours of an image's three stripes; each a head, and pairs' distances."""

    name: ClassVar[str] = "pair_net"
    feature_length = 12

    def __init__(self, num_classes: int, *, image_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__(num_classes, image_size)
        self.heads = nn.ModuleList(nn.Linear(3, 4) for _ in range(3))

    def outputs(self, images: Tensor, pairs: Tensor | None = None, **inputs: Any) -> dict[str, Output]:
        assert pairs is not None and not inputs
        parts = self._parts(images)
        features = torch.cat(parts, dim=1)
        distances = (features[pairs[:, 0]] - features[pairs[:, 1]]).norm(dim=1)
        return {"parts": parts, "distances": distances}

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat(self._parts(images), dim=1)

    def _parts(self, images: Tensor) -> tuple[Tensor, ...]:
        stripes = nn.functional.adaptive_avg_pool2d(images, (3, 1)).flatten(2).unbind(2)
        return tuple(head(stripe) for head, stripe in zip(self.heads, stripes, strict=True))


class Centres(nn.Module):
    """Distances to class centres, which move with every batch: a state."""

    centres: Tensor

    def __init__(self, num_classes: int, feature_length: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(num_classes, feature_length))

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        value = (features - self.centres[identities]).square().mean()
        with torch.no_grad():
            for feature, identity in zip(features, identities.tolist(), strict=True):
                self.centres[identity].lerp_(feature, 0.25)
        return value


class Darkness(nn.Module):
    """Compares heads with the images' colours."""

    def forward(self, part: Tensor, images: Tensor) -> Tensor:
        return (part.mean(1) - images.mean((1, 2, 3))).abs().mean()


def pair_settings() -> dict[str, Any]:
    """Over :func:`recipe`: 5 batches of 4 anchors, each with a positive and two negatives."""
    terms = [
        {"loss": f"{__name__}:Centres", "output": "parts"},
        {"loss": f"{__name__}:Darkness", "output": "parts", "target": "image", "reduce": "sum"},
        {"loss": "contrastive", "output": "distances", "target": "pair", "options": {"alpha": 1.0}},
    ]
    sampler = {"name": "pairs", "anchors_per_batch": 4, "negatives": 2}
    options = {"identities": 10, "cameras": 2, "images_per_camera": 2, "size": [32, 32]}
    model = {"network": f"{__name__}:PairNet", "options": {}, "losses": terms}
    return {
        "data": {"sampler": sampler, "dataset_options": options},
        "model": {**model, "optimizer": {"name": "Adam", "lr": 0.01}, "schedule": {"name": "constant"}},
    }


def run_pairs(settings: dict[str, Any], environment: dict[str, str]) -> None:
    """As torchrun starts a process."""
    import os

    from reid_models.training.train import train

    torch.set_num_threads(1)
    os.environ.update(environment)
    train(settings)
