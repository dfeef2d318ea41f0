"""Fixtures of the retrieval commands: images, an untrained network, its features and an index of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from reid_models import create_model, save_model
from reid_models.data import make_synthetic
from tests.models.cli.retrieval.support import MEAN, SIZE, reid


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images IDENTITY/CAMERA/*, a run of a network on them, and another network."""
    place = tmp_path_factory.mktemp("retrieval")
    dataset = make_synthetic(identities=12, cameras=2, size=SIZE)
    for record in (*dataset.train, *dataset.draws[0].gallery):
        file = place / record.path.replace("synthetic", "images")
        file.parent.mkdir(parents=True, exist_ok=True)
        assert record.content is not None
        file.write_bytes(record.content)
    torch.manual_seed(0)
    run = place / "run"
    run.mkdir()
    for file in (run / "best.safetensors", place / "other.safetensors"):
        save_model(create_model("baseline", 6, backbone="resnet10t", image_size=SIZE), file)
    data = {"dataset": "folder", "root": str(place / "images"), "dataset_options": {"seed": 1}}
    recipe = {"model": {"network": "baseline"}, "data": {**data, "augmentation": {"mean": MEAN, "flip": 0.5}}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def index(place: Path) -> Path:
    file = place / "gallery.index"
    assert reid("index", place / "images", "--model", place / "run", "--output", file, "--workers", 0) == 0
    return file


@pytest.fixture(scope="module")
def features(place: Path) -> Path:
    """Features files of the folder's own split."""
    folder = place / "features"
    words = ("--dataset", "folder", "--root", place / "images", "--options.seed", 1)
    model = ("--model", place / "run", "--dtype", "float32", "--workers", 0)
    assert reid("extract", *words, *model, "--output", folder) == 0
    return folder
