"""A run by a recipe: what is in its folder, and what is refused before anything is written."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from reid_models import load_model
from reid_models._checksum import is_sealed
from reid_models.cli import main
from reid_models.data import make_synthetic
from reid_models.data.augmentation import Augmentation
from reid_models.losses import WeightedLoss
from reid_models.recipes import list_recipes, load_recipe
from reid_models.retrieval.evaluation import evaluate_dataset
from reid_models.runs.models import load_trained
from reid_models.training.checkpoints import WholeCheckpointIO
from reid_models.training.configuration import make_parser, read_configuration
from reid_models.training.data_module import ReidDataModule
from reid_models.training.module import ReidModule
from reid_models.training.schedule import make_optimizer, make_schedule
from reid_models.training.train import train

from .process_support import identity_batches, recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(tmp_path_factory.mktemp("runs"), name="whole"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if row[name]]


def test_run_folder(run: Path) -> None:
    names = {path.name.split(".out.")[0] for path in run.iterdir()}
    expected = {"recipe.yaml", "metrics.csv", "events", "last.ckpt", "best.safetensors", "training.json"}
    assert names - {"hparams.yaml", ".lock"} == expected
    steps, means = column(run, "step/total"), column(run, "train/total")
    assert len(steps) == 8 and len(means) == 2
    assert means == pytest.approx([sum(steps[:4]) / 4, sum(steps[4:]) / 4], rel=1e-6)
    triplet, entropy = column(run, "train/triplet(features)"), column(run, "train/cross_entropy(logits)")
    assert means == pytest.approx([0.5 * t + e for t, e in zip(triplet, entropy, strict=True)], rel=1e-6)
    assert column(run, "lr") == pytest.approx([0.001, 0.002])
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    assert settings["model"]["losses"][0]["options"] == {"margin": 1.2}
    assert settings["model"]["optimizer"] == {
        "name": "SGD",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    assert settings["trainer"]["max_epochs"] == 2 and settings["data"]["sampler"]["images_per_identity"] == 4


def test_best_model_has_the_logged_map(run: Path) -> None:
    trained = load_trained(run)
    dataset = make_synthetic(identities=32, size=(32, 32))
    found = evaluate_dataset(trained.model, dataset, **{**trained.extraction, "workers": 0})
    best = max(column(run, "val/mAP"))
    assert found.plain["mAP"] == pytest.approx(best, rel=1e-5) and best > 0.1
    at = column(run, "val/mAP").index(best)
    assert found.plain["rank1"] == pytest.approx(column(run, "val/rank1")[at], abs=1e-9)
    assert trained.model.num_classes == 16


def test_a_finished_run_can_be_lengthened(run: Path) -> None:
    """Resuming at an epoch's end; two epochs in one go are the same."""
    settings = recipe(run.parent, name="lengthened")
    shorter = {**settings, "trainer": {**settings["trainer"], "max_epochs": 1}}
    train(shorter)
    folder = train({**settings, "resume": True})
    assert rows(folder) == rows(run)
    left, right = (torch.load(f / "last.ckpt", weights_only=True)["state_dict"] for f in (folder, run))
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)
    again = train({**settings, "resume": True})  # nothing is left to do
    assert rows(again) == rows(run)


def test_options_of_lightning_and_the_network(tmp_path: Path) -> None:
    """Mixed precision, accumulation, channels-last and one cycle, which must end with the run."""
    model = {
        "channels_last": True,
        "optimizer": {"name": "AdamW", "lr": 1e-3},
        "schedule": {"name": "one_cycle"},
        "losses": [{"loss": "cross_entropy", "output": "logits"}],
    }
    trainer = {"precision": "bf16-mixed", "accumulate_grad_batches": 3, "max_epochs": 3}
    folder = train(recipe(tmp_path, name="other", model=model, trainer=trainer))
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6  # of 4 batches, 3 and 1, in 3 epochs
    scheduler = state["lr_schedulers"][0]
    assert scheduler["total_steps"] == 6
    assert max(column(folder, "step/lr")) <= 1e-3 and column(folder, "lr")[-1] < 1e-6
    assert column(folder, "train/total") == column(folder, "train/cross_entropy(logits)")
    assert [row["step"] for row in rows(folder) if row["step/total"]] == list("012345")  # once, not 12 times
    assert next(load_model(folder / "best.safetensors").parameters()).dtype == torch.float32


def test_epochs_of_different_lengths(tmp_path: Path) -> None:
    """7, 8 and 7 batches: every one is trained on, and one cycle ends with the last."""
    data = {"sampler": identity_batches(6, 2), "image_size": [16, 16]}
    model = {"network": "baseline", "options": {"backbone": "resnet10t"}, "schedule": {"name": "one_cycle"}}
    settings = recipe(tmp_path, name="uneven", data=data, model=model, trainer={"max_epochs": 3})
    folder = train(settings)
    assert [row["epoch"] for row in rows(folder) if row["step/total"]] == ["0"] * 7 + ["1"] * 8 + ["2"] * 7
    assert len(column(folder, "train/total")) == len(column(folder, "val/mAP")) == 3
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == state["lr_schedulers"][0]["total_steps"] == 22


def test_compiling_keeps_names_of_weights() -> None:
    options = {"backbone": "resnet10t", "stages": [2]}
    plain, compiled = (ReidModule(4, (32, 32), "hsgnet", options, compile=flag) for flag in (False, True))
    assert compiled.network._compiled_call_impl is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_a_loss_that_is_lost_ends_the_run(tmp_path: Path) -> None:
    settings = recipe(tmp_path, model={"optimizer": {"name": "SGD", "lr": 1e30}})
    with pytest.raises(RuntimeError, match="no longer finite in epoch 1, at learning rate 1e"):
        train(settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.dataset", "syntetic"], 'did you mean "synthetic"'),
        (["--data.dataset", "market1501", "--data.dataset_options", "null"], "root must be a path"),
        (["--data.dataset_options.identitys", "3"], 'did you mean "identities"'),
        (
            ["--data.sampler.identities_per_batch", "17"],
            r"identities_per_batch \(17\) different ones, got 16",
        ),
        (["--data.sampler.images_per_identity", "1"], "images_per_identity must be at least 2, got 1"),
        (["--data.augmentation.flipp", "1"], 'did you mean "flip"'),
        (["--model.network", "hsgnett"], 'did you mean "hsgnet"'),
        (["--model.options.variant", "fulll"], 'did you mean "full"'),
        (["--model.optimizer.name", "SDG"], 'did you mean "SGD"'),
        (["--model.schedule.factr", "1"], 'did you mean "factor"'),
        (["--trainer.max_epoch", "3"], 'did you mean "--trainer.max_epochs"'),
        (["--trainer.max_epochs", "three"], "max_epochs.*Expected int"),
        (["--trainer.precision", "12"], r"trainer\.precision.*12"),
        (["--trainer.devices", "0"], r"trainer\.devices must be at least 1, got 0"),
        (["--trainer.devices", "two"], r"trainer\.devices must be a number, numbers or auto, got 'two'"),
        (["--trainer.devices", "3"], r"identities_per_batch must be a multiple of .* \(3\), got 4"),
        (["--trainer.devices", "0,1,2"], r"identities_per_batch must be a multiple of .* \(3\), got 4"),
        (["--trainer.limit_val_batches", "0.5"], r"limit_val_batches must be 1\.0 \(all\), 0 .* got 0\.5"),
        (["--trainer.overfit_batches", "2"], r"overfit_batches must be 0 \(see limit_train_batches\), got 2"),
        (["--data.workers", "-1"], "ReidDataModule: workers must be at least 0, got -1"),
        (["--data.evaluation_batch_size", "0"], "evaluation_batch_size must be at least 1, got 0"),
        (["--checkpoint_every_n_steps", "0"], "checkpoint_every_n_steps must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        train(recipe(tmp_path, name="bad"), words)
    assert not list(tmp_path.iterdir())


def test_a_damaged_image_is_named_before_training(tmp_path: Path) -> None:
    dataset = make_synthetic(identities=32, size=(32, 32))
    for record in (*dataset.train, *dataset.draws[0].gallery):
        identity, camera, name = Path(record.path).parts[-3:]
        path = tmp_path / "images" / identity / camera / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.content or b"")
    settings = recipe(tmp_path / "runs")
    settings["data"] |= {"dataset": "folder", "root": str(tmp_path / "images"), "dataset_options": {}}
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"1 images can't be read, such as:\\n  {path} is damaged"):
        train(settings)
    path.unlink()
    path.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        train(settings, ["--data.root", str(tmp_path / "nowhere")])
    assert not (tmp_path / "runs").exists()


def test_processes_share_test_images(tmp_path: Path) -> None:
    """Their rows, put together as they are gathered, are all test images in order."""
    data = ReidDataModule("synthetic", dataset_options={"identities": 34, "images_per_camera": 1}, workers=0)
    assert len(data.test_records) == 51
    parts = []
    for rank in range(2):
        part = ReidDataModule("synthetic", dataset_options=data.dataset_options, image_size=(8, 8), workers=0)
        part.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, strategy=SimpleNamespace(root_device=torch.device("cpu"))
        )  # type: ignore[assignment]
        parts.append([(i, c) for batch in part.val_dataloader() for i, c in zip(*batch[1:], strict=True)])
    together = [row for pair in zip(*parts, strict=True) for row in pair]
    assert together[:51] == [(record.identity, record.camera) for record in data.test_records]


def test_every_recipe_is_a_configuration() -> None:
    parser = make_parser()
    assert len(list_recipes()) > 20
    for name in list_recipes():
        settings = read_configuration(parser, load_recipe(name).config, ["--data.root", "somewhere"])
        # Groups match names of the paper's network: its own tests make it.
        options = {key: value for key, value in settings.model.optimizer.items() if key != "groups"}
        optimizer = make_optimizer(torch.nn.Linear(1, 1), options)
        make_schedule(optimizer, settings.model.schedule, count_steps=lambda: 9)
        widths = {term["output"]: (8,) for term in settings.model.losses}
        WeightedLoss(settings.model.losses, num_classes=9, widths=widths)
        Augmentation.from_mapping(settings.data.augmentation)


def test_other_runs_are_not_overwritten(run: Path) -> None:
    before = (run / "last.ckpt").read_bytes()
    settings = recipe(run.parent, name=run.name)
    with pytest.raises(FileExistsError, match="has a run: --resume goes on with it"):
        train(settings)
    for words, key in (
        (["--model.optimizer.lr", "0.1"], "model.optimizer.lr 0.01, got 0.1"),
        (["--seed_everything", "1"], "seed_everything 0, got 1"),
        (["--data.augmentation.pad", "2"], "data.augmentation.pad 0, got 2"),
        (["--trainer.limit_train_batches", "2"], "trainer.limit_train_batches None, got 2"),
    ):
        with pytest.raises(ValueError, match=f"was begun with {key}"):
            train({**settings, "resume": True}, words)
    assert (run / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    "damage", ["cut", "half", "bit", "empty", "garbage", "zip", "foreign", "code", "loops"]
)
def test_damaged_checkpoints_are_named(
    run: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / run.name
    shutil.copytree(run, folder)
    checkpoint = folder / "last.ckpt"
    content = checkpoint.read_bytes()
    if damage == "zip":
        with zipfile.ZipFile(checkpoint, "w") as archive:
            archive.writestr("a.txt", "of something else")
    elif damage == "code":
        torch.save({"state_dict": torch.nn.Linear(2, 2)}, checkpoint)
    elif damage == "loops":  # with a right checksum, by a program that knows no loops
        state = torch.load(checkpoint, weights_only=True)
        WholeCheckpointIO().save_checkpoint(state | {"loops": {}}, checkpoint)
    elif damage == "foreign":
        torch.save({"state_dict": {}, "global_step": 3}, checkpoint)
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1  # in a weight: PyTorch reads it without a word
        cut = {
            "cut": content[:-100],
            "half": content[: len(content) // 2],
            "empty": b"",
            "bit": bytes(flipped),
        }
        checkpoint.write_bytes(cut.get(damage, b"no checkpoint"))
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(recipe(tmp_path, name=run.name)))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", str(file), "--resume"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    kind = "is not a checkpoint of" if damage in ("foreign", "loops") else "is damaged or not a checkpoint"
    assert f"reid train: {checkpoint} {kind}" in shown
    assert "weights_only" not in shown and "torch.load" not in shown  # torch advises to run what it holds
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_checkpoints_are_replaced_whole(tmp_path: Path) -> None:
    path, storage = tmp_path / "last.ckpt", WholeCheckpointIO()
    stale = tmp_path / "last.ckpt.99999.part"
    stale.write_bytes(b"of a process that was killed")
    storage.save_checkpoint({"step": 1}, path)
    assert not stale.exists()
    with pytest.raises(Exception, match="generator"):
        storage.save_checkpoint({"step": 2, "bad": (i for i in ())}, path)  # can't be written
    assert torch.load(path, weights_only=True) == {"step": 1} and is_sealed(path)
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = recipe(tmp_path, trainer={"max_epochs": 1})
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(settings))
    words = ["train", str(path), "--name", "trial", "--model.options.backbone", "resnet14t"]
    assert main([*words, "--model.optimizer.lr", "0.02"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "trial")
    model = load_model(tmp_path / "trial" / "best.safetensors")
    assert model.options["backbone"] == "resnet14t" and model.options["stages"] == [2]
    assert main(words) == 2
    assert "reid train:" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
    assert main(["train", str(path), "--help"]) == 0
    text = capsys.readouterr().out
    assert "--data.sampler" in text and "--model.schedule" in text
