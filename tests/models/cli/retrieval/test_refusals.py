"""What the retrieval commands refuse, in one line and before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import reid_ops
from reid_models import create_model, save_model
from tests.models.cli.retrieval.support import SIZE, refused, reid


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("extract --model run --output f.safetensors", "IMAGES or --dataset must be given"),
        ("extract images --model run --output f.npy", "--output must end in .safetensors, got f.npy"),
        ("extract images --model run --output no/f.safetensors", "--output must be in a folder that exists"),
        ("extract gone --model run --output f.safetensors", "images: gone does not exist"),
        ("extract empty --model run --output f.safetensors", "images: empty has no images (.jpg,"),
        (
            "extract images --model gone --output f.safetensors",
            "model must be a run folder or a file of a model",
        ),
        (
            "extract images --model images --output f.safetensors",
            "a run folder with best.safetensors, or timm:NAME or onnx:FILE, got images",
        ),
        ("extract images --dataset folder --model run --output f", "IMAGES and --dataset exclude each other"),
        (
            "extract --dataset foldr --model run --output f",
            "unknown dataset 'foldr'; did you mean \"folder\"?",
        ),
        ("extract --dataset synthetic --options.sed 1 --model run --output f", 'did you mean "seed"?'),
        ("extract --dataset synthetic --draw 1 --model run --output f", "--draw must be in [0, 1), got 1"),
        (
            "extract --dataset synthetic --model run --output f.safetensors",
            "--output must be a folder, in one that",
        ),
        ("index images --output i.index", "--model must be given for images, such as images"),
        ("index images --model run --output no/i.index", "--output must be in a folder that exists"),
        ("index run/best.safetensors --output i.index", "must be a file of features ('reid_features 2')"),
        ("index images --model run --recall 2 --output i.index", "recall must be in (0, 1], got 2.0"),
        ("search x.png --index gone", "index must be a file, got gone"),
        ("search x.png --index run/recipe.yaml", "run/recipe.yaml is not a gallery index"),
        ("search gone.png --index gallery.index", "images: gone.png does not exist"),
        ("search images --index gallery.index -k 0", "k must be"),
        (
            "search images --index gallery.index --output x.xml",
            "--output must end in .json, .csv, .txt, .html, .png, .svg, .pdf, got x.xml",
        ),
        ("search images --index gallery.index --output no/x.csv", "--output must be in a folder that exists"),
        ("search images --index gallery.index --output x.csv --json", "must end in .json with --json"),
        ("rerank gone.safetensors gone.safetensors", "path must be a file of features, got gone.safetensors"),
        ("evaluate", "RUN, or --query and --gallery, must be given"),
        ("evaluate other.safetensors", "--dataset must be given: other.safetensors does not say"),
        ("evaluate run --query gone.safetensors", "--query and --gallery must be given together"),
        ("evaluate run --same-camera-counts", "--same-camera-counts is for features"),
        ("evaluate run --root gone", "folder: root must be a folder, got gone"),
        ("evaluate run --k2 30", "k2 must not exceed k1 (20), got 30"),
        ("evaluate run --expand-alpha 3", "--expand-alpha must come with --expand"),
        ("evaluate run --single-shot -1", "--single-shot must be at least 0, got -1"),
        (
            "evaluate run --metric match",
            'metric "match" needs a network that compares pairs, and baseline gives',
        ),
        ("evaluate run --metric cosin", "--metric"),
        ("evaluate run --fit gone.safetensors", "--fit is for --metric xqda and mahalanobis, got None"),
        ("evaluate run --metric xqda --fit gone.safetensors", "path must be a file of features, got gone"),
        ("evaluate run --query a --gallery b", "--query and --gallery must be given without RUN"),
        ("evaluate run --device cuda:99", "device is cuda:99, but torch sees"),
        ("evaluate run --batch-size 0", "batch_size must be at least 1, got 0"),
    ],
)
def test_refusals(
    words: str, message: str, index: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir(exist_ok=True)
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert reid(*words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and message in shown.err and shown.err.startswith(f"reid {words.split()[0]}: ")
    assert shown.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_folder_that_can_not_be_written_to(
    fresh: Path, features: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known before the networks run. (Who is root may write everywhere: asked, the system says no.)"""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != fresh)
    monkeypatch.setattr("reid_models.runs.models.load_trained", lambda *_: 1 / 0)
    file = features / "gallery.safetensors"
    for words in (
        ("index", "images", "--model", "run", "--output", fresh / "x.index"),
        ("extract", "images", "--model", "run", "--output", fresh / "x.safetensors"),
        ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh / "x"),
        ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh),
        ("rerank", file, file, "--output", fresh / "x.csv"),
    ):
        line = refused(capsys, *words)
        assert f"--output must be in a folder that can be written to, got {words[-1]}" in line
    assert not list(fresh.iterdir())


def test_a_folder_without_features_does_not_stay(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("an image is damaged")

    words = ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh / "f")
    with monkeypatch.context() as patch:
        patch.setattr("reid_models.retrieval.extraction.extract_to_file", fail)
        assert "an image is damaged" in refused(capsys, *words)
        assert not (fresh / "f").exists()
        (fresh / "f").mkdir()
        assert "an image is damaged" in refused(capsys, *words)
        assert (fresh / "f").is_dir()  # the user's


def test_an_index_that_was_changed_otherwise(
    index: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many items as names, but an identifier is no longer the number of a name."""
    changed = fresh / "changed.index"
    shutil.copy(index, changed)
    with reid_ops.GalleryIndex.edit(changed) as opened:
        opened.remove([0])
        opened.add(torch.ones(1, opened.dim))
    line = refused(capsys, "search", "images/0001", "--index", changed)
    assert f"{changed} was changed by other means than `reid index`" in line


def test_features_and_indexes_of_another_model(
    index: Path, features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fresh / "other.safetensors"
    assert reid("extract", "images/0001", "--model", "other.safetensors", "--output", other) == 0
    flipped = fresh / "flipped.safetensors"
    assert reid("extract", "images/0001", "--model", "run", "--flip", "--output", flipped) == 0
    for words, difference in (
        (("search", other, "--index", index), "model "),
        (("search", "images/0001", "--index", index, "--model", "other.safetensors"), "model "),
        (("search", flipped, "--index", index), "flip_average False and True"),
        (("rerank", features / "query.safetensors", other), "model "),
        (("evaluate", "--query", features / "query.safetensors", "--gallery", other), "model "),
        (("index", other, features / "query.safetensors", "--output", fresh / "i.index"), "model "),
    ):
        assert f"of one model, given images in one way; they have {difference}" in refused(capsys, *words)
    assert not (fresh / "i.index").exists()


def test_a_run_that_was_trained_on(fresh: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model behind an index has changed: refused, not searched with features that mean something else."""
    run = fresh / "run"
    shutil.copytree(place / "run", run)
    assert reid("index", "images/0001", "--model", run, "--output", fresh / "i.index") == 0
    shutil.copy(place / "other.safetensors", run / "best.safetensors")
    assert "they have model" in refused(capsys, "search", "images/0001", "--index", fresh / "i.index")
    shutil.rmtree(run)
    assert "model must be" in refused(capsys, "search", "images/0001", "--index", fresh / "i.index")


def test_damaged_files(index: Path, features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = fresh / "cut.safetensors"
    cut.write_bytes((features / "query.safetensors").read_bytes()[:-10])
    for words in (("index", cut, "--output", fresh / "i"), ("rerank", cut, features / "gallery.safetensors")):
        assert "cut.safetensors is damaged or not a safetensors file" in refused(capsys, *words)
    cut_index = fresh / "cut.index"
    cut_index.write_bytes(index.read_bytes()[:-10])
    assert "cut.index is cut short" in refused(capsys, "search", "images", "--index", cut_index)
    bare = reid_ops.GalleryIndex(4)
    bare.save(fresh / "bare.index")
    assert "an index without names of images" in refused(
        capsys, "search", "x", "--index", fresh / "bare.index"
    )
    (fresh / "broken.png").write_bytes(b"no image")
    assert "broken.png is damaged or not an image" in refused(
        capsys, "search", fresh / "broken.png", "--index", index
    )
    (fresh / "none.png").touch()
    assert "none.png is an empty file" in refused(capsys, "search", fresh, "--index", index)
    run = fresh / "run"
    run.mkdir()
    shutil.copy("run/best.safetensors", run)
    (run / "recipe.yaml").write_text("data: [1")
    assert "recipe.yaml is damaged or not a recipe" in refused(capsys, "evaluate", run)


def test_lengths_must_agree(index: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = fresh / "short.safetensors"
    save_model(
        create_model("baseline", 6, backbone="resnet10t", image_size=SIZE, cbr_width=8, test_feature="cbr"),
        fresh / "m.safetensors",
    )
    assert reid("extract", "images/0001", "--model", fresh / "m.safetensors", "--output", short) == 0
    assert "the index holds features of length 512, but the query's have 8" in refused(
        capsys, "search", short, "--index", index
    )
