"""The files that the packages write, small and in numbered versions, so that what is read can be told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reid_models.networks import Network, load_model, save_model
from reid_models.networks.registry import create_model
from reid_models.retrieval.features import Features, load_features, save_features
from reid_models.training.checkpoints import WholeCheckpointIO, read_step
from reid_ops import GalleryIndex

LENGTH = 16


class Small(Network):
    """A network of one layer."""

    name, feature_length = "small", 3

    def __init__(self, num_classes: int, *, image_size: tuple[int, int] = (8, 8)) -> None:
        super().__init__(num_classes, image_size)
        self.classifier = nn.Linear(3, num_classes)

    def encode(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def outputs(self, images: Tensor, **_: Any) -> Mapping[str, Tensor]:
        return {"features": self.encode(images)}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        write: writes a version of so many rows to a path.
        read: the version that a path has; AssertionError if the rest of it is not that version's.
    """

    write: Callable[[Path, int, int], None]
    read: Callable[[Path], int]


def values(version: int, rows: int) -> np.ndarray:
    """Numbers that no other version has, float32 (rows, LENGTH)."""
    return _noise(rows) + np.float32(version % 1000)


@functools.cache
def _noise(rows: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, LENGTH), np.float32)


def index_of(kind: str) -> Kind:
    def write(path: Path, version: int, rows: int) -> None:
        index = GalleryIndex(LENGTH, metric="euclidean", kind=kind, device="cpu")
        index.add(values(version, rows), cameras=np.full(rows, version))
        if kind != "flat":
            index.build()
        index.attachments["version"] = str(version).encode()
        index.save(path)

    def read(path: Path) -> int:
        index = GalleryIndex.load(path, device="cpu")
        version = int(index.attachments["version"])
        expected = values(version, len(index))
        np.testing.assert_array_equal(index.features(index.ids), expected)
        assert (index.cameras == version).all()
        if kind != "flat":  # what is found may be fewer, never others than there are
            _, found = index.search(expected[:3], 5)
            assert found.max() < len(index)
        return version

    return Kind(write, read)


def _write_features(path: Path, version: int, rows: int) -> None:
    labels = torch.full((rows,), version)
    names = [f"{version}/{row}.jpg" for row in range(rows)]
    features = Features(torch.from_numpy(values(version, rows)), labels, labels, names)
    save_features(path, features, dtype=torch.float32)


def _read_features(path: Path) -> int:
    found = load_features(path)
    version = int(found.identities[0])
    np.testing.assert_array_equal(found.features.numpy(), values(version, len(found)))
    assert (found.identities == version).all() and (found.cameras == version).all()
    assert list(found.paths) == [f"{version}/{row}.jpg" for row in range(len(found))]
    return version


def _write_checkpoint(path: Path, version: int, rows: int) -> None:
    content: dict[str, Any] = {
        "epoch": 0,
        "global_step": version,
        "loops": {"fit_loop": 0},
        "random_states": [],
    }
    content |= {"optimizer_states": [], "state_dict": {"w": torch.from_numpy(values(version, rows))}}
    WholeCheckpointIO().save_checkpoint(content, path)


def _read_checkpoint(path: Path) -> int:
    version = read_step(path)
    weights = torch.load(path, weights_only=True)["state_dict"]["w"].numpy()
    np.testing.assert_array_equal(weights, values(version, len(weights)))
    return version


def _write_model(path: Path, version: int, rows: int) -> None:
    model = create_model(f"{Small.__module__}:Small", rows)
    with torch.no_grad():
        model.get_submodule("classifier").weight.copy_(torch.from_numpy(values(version, rows)[:, :3]))
        model.get_submodule("classifier").bias.fill_(version)
    save_model(model, path)


def _read_model(path: Path) -> int:
    model = load_model(path)
    layer = model.get_submodule("classifier")
    version = int(layer.bias[0])
    assert (layer.bias == version).all()
    found = layer.weight.detach().numpy()
    np.testing.assert_array_equal(found, values(version, len(found))[:, :3])
    return version


KINDS = {
    "index": index_of("flat"),
    "features": Kind(_write_features, _read_features),
    "checkpoint": Kind(_write_checkpoint, _read_checkpoint),
    "model": Kind(_write_model, _read_model),
}
APPROXIMATE = {f"index, {kind}": index_of(kind) for kind in ("ivf", "ivfpq", "hnsw")}
