"""Extraction of features against the network called by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reid_ops
from reid_models import create_model
from reid_models.data import ImageRecord, decode_image, make_synthetic
from reid_models.data.augmentation import Augmentation
from reid_models.networks import Network
from reid_models.retrieval.extraction import (
    Extraction,
    extract_features,
    extract_parts,
    extract_to_file,
    fingerprint,
)
from reid_models.retrieval.features import load_features

SIZE = (32, 32)


@pytest.fixture(scope="module")
def records() -> tuple[ImageRecord, ...]:
    return make_synthetic(identities=4, cameras=2, size=SIZE).draws[0].gallery


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(0)
    return create_model("baseline", 4, backbone="resnet10t", image_size=SIZE)


def by_hand(model: Network, records: tuple[ImageRecord, ...], augmentation: Augmentation) -> Tensor:
    images = torch.stack([decode_image(record) for record in records]).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (augmentation.mean, augmentation.std))
    with torch.no_grad():
        return model.eval()((images - mean) / std)


@pytest.mark.parametrize("workers", [0, 2])
def test_extraction_is_the_network(workers: int, model: Network, records: tuple[ImageRecord, ...]) -> None:
    augmentation = Augmentation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), erase=1.0)
    expected = by_hand(model, records, augmentation)
    model.train()
    found = extract_features(
        model, records, image_size=SIZE, augmentation=augmentation, batch_size=3, workers=workers
    )
    assert model.training and found.features.dtype == torch.float32
    torch.testing.assert_close(found.features, expected, rtol=1e-5, atol=1e-5)
    assert found.identities.tolist() == [record.identity for record in records]
    assert found.cameras.tolist() == [record.camera for record in records]
    assert found.paths == [record.path for record in records]
    assert found.source is not None and found.source.mean == (0.4, 0.5, 0.6)


def test_flip_average(model: Network, records: tuple[ImageRecord, ...]) -> None:
    augmentation = Augmentation()
    images = augmentation.evaluation(torch.stack([decode_image(record) for record in records]))
    found = extract_features(model, records, image_size=SIZE, flip_average=True)
    with torch.no_grad():
        expected = reid_ops.flip_average(model.eval(), images)
    torch.testing.assert_close(found.features, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.features.norm(dim=1), torch.ones(len(records)))


def test_autocast(model: Network, records: tuple[ImageRecord, ...]) -> None:
    whole = extract_features(model, records, image_size=SIZE).features
    half = extract_features(model, records, image_size=SIZE, autocast="bfloat16").features
    assert half.dtype == torch.float32 and not torch.equal(half, whole)
    assert torch.nn.functional.cosine_similarity(half, whole).min() > 0.999  # 8 bits: about 0.4 % each
    with pytest.raises(ValueError, match=r'autocast must be "bfloat16", "float16" or None, got \'half\''):
        Extraction(SIZE, autocast="half")


def test_devices(model: Network, records: tuple[ImageRecord, ...]) -> None:
    for device in ("cuda:99", "tpu"):
        with pytest.raises(ValueError, match="device"):
            extract_features(model, records, image_size=SIZE, device=device)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(workers: int, model: Network, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = make_synthetic(identities=4, cameras=2, size=SIZE).train
    records = (*good[:2], ImageRecord(str(tmp_path / "broken.png"), 0, 0))
    file = tmp_path / "features.safetensors"
    with pytest.raises(ValueError, match=r"^decode_image: .*broken\.png is damaged or not an image") as error:
        extract_to_file(file, model, records, image_size=SIZE, batch_size=2, workers=workers)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.png"]
    gone = (*good[:2], ImageRecord(str(tmp_path / "gone.png"), 0, 0))
    with pytest.raises(FileNotFoundError, match=r"^decode_image: .*gone\.png does not exist$"):
        extract_features(model, gone, image_size=SIZE, batch_size=2, workers=workers)


def test_a_model_without_features(records: tuple[ImageRecord, ...]) -> None:
    with pytest.raises(ValueError, match=r"must give features \(8, D\) in evaluation, got \(8, 3, 32, 32\)"):
        extract_features(nn.Identity(), records, image_size=SIZE)


def test_to_a_file_is_the_same(model: Network, records: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    file = tmp_path / "features.safetensors"
    extract_to_file(file, model, records, dtype=torch.float32, image_size=SIZE, batch_size=3, workers=0)
    expected = extract_features(model, records, image_size=SIZE, batch_size=3, workers=0)
    found = load_features(file)
    assert torch.equal(found.features, expected.features) and torch.equal(found.cameras, expected.cameras)
    assert torch.equal(found.identities, expected.identities)
    assert (found.paths, found.source) == (expected.paths, expected.source)


def test_parts_are_the_features(model: Network, records: tuple[ImageRecord, ...]) -> None:
    whole = extract_features(model, records, image_size=SIZE, batch_size=3, workers=0)
    parts = list(extract_parts(model, records, image_size=SIZE, batch_size=3, workers=0))
    assert [len(part) for part in parts] == [3, 3, 2]
    for name in ("features", "identities", "cameras"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert [path for part in parts for path in part.paths] == whole.paths
    assert {part.source for part in parts} == {whole.source}


def test_fingerprint(model: Network) -> None:
    """Whatever changes features changes it: weights, and options that no weight shows."""
    first = fingerprint(model)
    assert first == fingerprint(model) and len(first) == 32
    options = {"backbone": "resnet10t", "image_size": SIZE}
    torch.manual_seed(0)
    assert fingerprint(create_model("baseline", 4, **options)) == first
    torch.manual_seed(0)
    assert fingerprint(create_model("baseline", 4, test_feature="cbr", **options)) != first
    assert fingerprint(create_model("baseline", 4, **options)) != first


def test_fingerprint_is_of_both_implementations() -> None:
    found = set()
    for impl in ("fused", "reference"):
        torch.manual_seed(0)
        found.add(
            fingerprint(create_model("hsgnet", 4, backbone="resnet10t", image_size=(64, 64), impl=impl))
        )
    assert len(found) == 1


class Means(nn.Module):
    """Channels' means, weighted; notes the dtype of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.seen: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(images.dtype)
        return images.mean((2, 3)) * self.scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("flip", [False, True])
def test_images_come_in_the_networks_dtype(
    dtype: torch.dtype, flip: bool, records: tuple[ImageRecord, ...]
) -> None:
    model = Means().to(dtype)
    found = extract_features(model, records, image_size=(16, 16), workers=0, flip_average=flip)
    expected = extract_features(Means(), records, image_size=(16, 16), workers=0, flip_average=flip)
    assert model.seen == {dtype} and found.features.dtype == torch.float32
    torch.testing.assert_close(found.features, expected.features, atol=0.02, rtol=0.02)


def test_no_images_have_features_of_the_networks_length() -> None:
    model = Means().train()
    found = extract_features(model, [], image_size=(16, 16))
    assert found.features.shape == (0, 3) and len(found.paths) == 0 and model.training
