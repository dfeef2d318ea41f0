"""Networks without training: `timm:NAME@FILE` and `onnx:FILE` in every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from reid_models.retrieval.extraction import extract_features
from reid_models.retrieval.features import load_features
from reid_models.retrieval.gallery import Gallery
from reid_models.runs.models import load_trained
from tests.models.cli.retrieval.support import refused, reid


@pytest.fixture(scope="module")
def weights(place: Path) -> Path:
    torch.manual_seed(5)
    for name in ("test_resnet", "test_vit"):
        torch.save(timm.create_model(name).state_dict(), place / f"{name}.pth")
    return place


SPECS = ["timm:test_resnet+gem+64x48@test_resnet.pth", "timm:test_vit+64x64@test_vit.pth"]


@pytest.mark.parametrize("spec", SPECS)
def test_index_and_search(spec: str, weights: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fresh / "gallery.index"
    assert reid("index", "images", "--model", spec, "--output", file, "--workers", 0) == 0
    source = Gallery.load(file).source
    assert source is not None and source.interpolation == load_trained(spec).extraction["interpolation"]
    # The index knows its model and how it was asked, wherever it is searched from.
    photo = next(path for path in Path("images").rglob("*") if path.is_file())
    capsys.readouterr()
    assert reid("search", photo, "--index", file, "-k", 3, "--json", "--workers", 0) == 0
    (found,) = json.loads(capsys.readouterr().out)["queries"]
    assert len(found["matches"]) == 3
    other = "timm:test_resnet@test_resnet.pth"
    longer = Gallery.load(file).index.dim != 96  # which is said first, and enough
    reason = "index holds features of length" if longer else "must be of one model"
    assert reason in refused(capsys, "search", photo, "--index", file, "--model", other)


@pytest.mark.parametrize("spec", SPECS)
def test_extract_evaluate_and_figures(
    spec: str, weights: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fresh / "features.safetensors"
    assert reid("extract", "images", "--model", spec, "--output", file, "--workers", 0) == 0
    found = load_features(file)
    trained = load_trained(spec)
    assert found.dim == trained.model.feature_length
    data = ("--dataset", "folder", "--root", "images", "--options.seed", 1)
    capsys.readouterr()
    assert reid("evaluate", spec, *data, "--json", "--workers", 0) == 0
    assert 0 < json.loads(capsys.readouterr().out)["plain"]["mAP"] <= 1
    for kind in ("ranks", "cam"):
        picture = fresh / f"{kind}.png"
        words = ("--output", picture, "--count", 2, "--workers", 0)
        assert reid("visualize", kind, spec, "runs=run", *data, *words) == 0
        assert picture.stat().st_size > 1000


def test_python(weights: Path) -> None:
    from reid_models.data import read_images

    trained = load_trained(SPECS[1])
    records = read_images(["images"])[:3]
    found = extract_features(trained.model, records, **trained.extraction)
    assert found.features.shape == (3, trained.model.feature_length)
    assert found.source is not None
    assert found.source.path == f"timm:test_vit+64x64@{Path('test_vit.pth').resolve()}"


def test_what_is_wrong_with_the_data_is_said_first(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: Path
) -> None:
    monkeypatch.setattr("timm.create_model", lambda *_, **__: 1 / 0)
    output = ("--output", fresh / "out.index")
    assert "nowhere" in refused(capsys, "index", "nowhere", "--model", "timm:resnet18", *output)
    nowhere = ("--dataset", "folder", "--root", "nowhere")
    assert "nowhere" in refused(capsys, "evaluate", "timm:resnet18", *nowhere)
    picture = ("--output", fresh / "ranks.png")
    assert "nowhere" in refused(capsys, "visualize", "ranks", "timm:resnet18", *nowhere, *picture)
    assert list(fresh.iterdir()) == []


def test_weights_that_can_not_be_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: Path
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    shown = refused(capsys, "index", "images", "--model", "timm:resnet18", "--output", fresh / "out.index")
    assert "could not be fetched" in shown and "timm:NAME@FILE" in shown and "pretrained FILE" in shown
    shown = refused(
        capsys, "extract", "images", "--model", "timm:resnet1", "--output", fresh / "x.safetensors"
    )
    assert "unknown backbone 'resnet1'" in shown
    assert list(fresh.iterdir()) == []
