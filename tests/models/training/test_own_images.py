"""The recipe for one's own images: from four identities on, measured before the first step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml  # type: ignore[import-untyped]

from reid_models.cli import main
from reid_models.data import make_synthetic
from reid_models.recipes import load_recipe
from reid_models.retrieval.evaluation import evaluate_dataset
from reid_models.runs.models import load_trained
from reid_models.training.configuration import make_parser, read_configuration
from reid_models.training.train import train


def write_images(folder: Path, identities: int, *, images: int = 2, cameras: int = 2) -> Path:
    """IDENTITY/CAMERA/*, that many identities."""
    dataset = make_synthetic(
        identities=2 * identities, cameras=cameras, images_per_camera=images, size=(32, 32)
    )
    for record in dataset.train:
        file = folder / f"fish_{record.identity}" / f"tank_{record.camera}" / Path(record.path).name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert record.content is not None
        file.write_bytes(record.content)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four identities, two of them for training, and a file of weights."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "my_images", 4)
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    return tmp_path


SMALL = [
    "--model.options.backbone", "test_resnet", "--model.options.pretrained", "weights.pth",
    "--data.image_size", "[32,32]", "--data.workers", "0", "--trainer.enable_progress_bar", "false",
    "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2",
]  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scores(folder: Path) -> list[tuple[int, float]]:
    return [(int(row["epoch"]), float(row["val/mAP"])) for row in rows(folder) if row["val/mAP"]]


def test_four_identities_as_the_readme_has_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "own_images", "--data.root", "my_images", "--name", "mine", *SMALL]
    assert main(words) == 0
    shown = capsys.readouterr()
    run = Path("runs/mine")
    assert shown.out.strip().splitlines()[-1] == str(run)
    (before, first), (after, last) = scores(run)
    assert (before, after) == (-1, 1)
    assert f"mAP {100 * first:.1f} % before training, {100 * last:.1f} % after" in shown.err
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    assert settings["data"]["augmentation"]["mean"] == [0.5, 0.5, 0.5]  # the network's own, not ImageNet's
    assert settings["trainer"]["check_val_every_n_epoch"] == 2  # at the end, wherever that is

    photo = next(Path("my_images").rglob("*.png"), None) or next(Path("my_images").rglob("*.jpg"))
    assert main(["index", "my_images", "--model", "runs/mine", "--output", "mine.index"]) == 0
    assert main(["search", str(photo), "--index", "mine.index"]) == 0
    assert photo.name in capsys.readouterr().out


def test_the_better_network_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training that breaks the network: best.safetensors is the one of before, and that is said."""
    # A rate at which nothing of the weights survives, and no batch norm that could make up for it.
    words = ["--model.optimizer.lr", "100.0", "--name", "broken"]
    assert main(["train", "own_images", "--data.root", "my_images", *SMALL, *words]) in (0, 2)
    run = Path("runs/broken")
    found = scores(run)
    trained = load_trained(run)
    dataset = trained_dataset(trained.data)
    kept = evaluate_dataset(trained.model, dataset, **{**trained.extraction, "workers": 0}).plain["mAP"]
    assert kept == pytest.approx(max(value for _, value in found), abs=1e-6)
    own = load_trained("timm:test_resnet+32x32@weights.pth")
    images = torch.rand(2, 3, 32, 32)
    if found[-1][1] <= found[0][1]:
        assert torch.equal(trained.model.eval()(images), own.model.eval()(images))
        if len(found) > 1:
            assert "training did not help" in capsys.readouterr().err


def trained_dataset(data: Any) -> Any:
    from reid_models.data import read_dataset

    return read_dataset(data["dataset"], data["root"], **(data["dataset_options"] or {}))


def test_the_first_score_is_that_of_the_network_without_training(place: Path) -> None:
    run = train({"name": "zero", **load_recipe("own_images").config}, ["--data.root", "my_images", *SMALL])
    own = load_trained("timm:test_resnet+32x32@weights.pth")
    dataset = trained_dataset(yaml.safe_load((run / "recipe.yaml").read_text())["data"])
    options = {**own.extraction, "interpolation": "bilinear", "workers": 0}
    found = evaluate_dataset(own.model, dataset, **options).plain["mAP"]
    assert scores(run)[0] == (-1, pytest.approx(found, abs=1e-6))


def test_a_resumed_run_is_not_measured_again(place: Path) -> None:
    words = ["--data.root", "my_images", *SMALL, "--resume"]
    settings = {"name": "twice", **load_recipe("own_images").config}
    run = train(settings, words)
    assert train(settings, words) == run
    assert [epoch for epoch, _ in scores(run)] == [-1, 1]


def test_data_are_refused_before_weights_are_fetched(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("timm.create_model", lambda *_, **__: 1 / 0)
    words = ["train", "own_images", "--data.workers", "0"]
    assert main([*words, "--data.root", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    # Queries whose identities are not in the gallery: known before an epoch is lost.
    lines = ["path,identity,camera,split"]
    photos = sorted(path for path in Path("my_images").rglob("*") if path.is_file())
    splits = ["train"] * 8 + ["query"] * 4 + ["gallery"] * 4
    lines += [f"{p},{p.parts[1]},barn,{s}" for p, s in zip(photos, splits, strict=True)]
    Path("one.csv").write_text("\n".join(lines))
    assert main([*words, "--data.dataset", "csv", "--data.root", "one.csv"]) == 2
    message = capsys.readouterr().err
    assert "no query has" in message and "fetched" not in message
    assert not Path("runs").exists()


@pytest.mark.parametrize("identities", [2, 3, 40])
def test_batches_follow_the_data(identities: int, tmp_path: Path, place: Path) -> None:
    write_images(tmp_path / "set", 2 * identities)
    words = ["--data.root", str(tmp_path / "set"), *SMALL]
    configuration = read_configuration(make_parser(), load_recipe("own_images").config, words)
    data = make_parser().instantiate(configuration).data
    sampler = data.make_sampler()
    assert data.num_classes == identities and sampler.identities_per_batch == min(16, identities)
    assert sampler.images_per_identity == 4 and len(sampler) >= 1


def test_statistics_follow_the_backbone() -> None:
    recipe = {"data": {"dataset": "synthetic", "augmentation": {"mean": None, "std": None, "flip": 0.0}}}
    for backbone, mean in (("tf_efficientnet_lite0", 0.5), ("resnet18", 0.485), ("none", 0.485)):
        words = ["--model.options.backbone", backbone]
        found = read_configuration(make_parser(), recipe, words).data.augmentation
        assert found["mean"][0] == mean and len(found["std"]) == 3 and found["flip"] == 0.0
    given = read_configuration(make_parser(), {"data": {"augmentation": {"mean": [0, 0, 0]}}}, [
        "--data.dataset", "synthetic",
    ])  # fmt: skip
    assert given.data.augmentation["mean"] == [0, 0, 0]
