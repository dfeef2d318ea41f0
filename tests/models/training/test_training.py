"""What can go wrong or be set otherwise while a run trains: lost losses, limits, precision, devices."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from reid_models import load_model
from reid_models.data.loaders import TrainBatch
from reid_models.losses import WeightedLoss
from reid_models.runs.models import BEST
from reid_models.training.checkpoints import LAST
from reid_models.training.configuration import (
    check_same_run,
    count_processes,
    make_parser,
    read_configuration,
)
from reid_models.training.data_module import ReidDataModule
from reid_models.training.joint_batch import JointBatchNorm
from reid_models.training.module import ReidModule
from reid_models.training.train import train

from .process_support import identity_batches, recipe

# Of images with fewer pixels, by a network without HSGM.
SMALL: dict[str, Any] = {
    "data": {"image_size": [16, 16]},
    "model": {"network": "baseline", "options": {"backbone": "resnet10t"}},
}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / LAST, weights_only=True)


def assert_same_weights(found: Path, expected: Path) -> None:
    left, right = state(found), state(expected)
    assert left["global_step"] == right["global_step"]
    assert all(torch.equal(left["state_dict"][key], value) for key, value in right["state_dict"].items())


# ------------------------------------------------------------------------------------ losses that are lost


def test_a_lost_loss_leaves_the_checkpoint_of_before(tmp_path: Path) -> None:
    """Lost in a step that is not logged, between checkpoints; 8 steps in the epoch."""
    trainer = {"max_epochs": 1, "log_every_n_steps": 100}
    settings = recipe(
        tmp_path, checkpoint_every_n_steps=2, data={"sampler": identity_batches(4, 2)}, trainer=trainer
    )
    whole = train({**settings, "name": "whole"})
    original = ReidModule.training_step

    def lost_in_step_4(self: ReidModule, batch: TrainBatch, batch_idx: int) -> Tensor:
        if self.global_step == 4:
            batch = batch._replace(image=batch.image * torch.nan)
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReidModule, "training_step", lost_in_step_4)
        with pytest.raises(
            RuntimeError, match=r"a weight is no longer finite in epoch 1, at learning rate 0\.001"
        ):
            train({**settings, "name": "lost"})
    lost = tmp_path / "lost"
    assert state(lost)["global_step"] == 4
    assert all(value.isfinite().all() for value in state(lost)["state_dict"].values())
    assert not (lost / BEST).exists() and not list(lost.glob("*.part"))
    train({**settings, "name": "lost", "resume": True})
    assert_same_weights(lost, whole)


def test_a_step_that_a_gradient_scaler_skips_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of ``16-mixed`` on a GPU: one loss overflows, the scale is lowered, the run goes on without it."""
    trainer = {"max_epochs": 1, "log_every_n_steps": 1}
    data = {**SMALL["data"], "sampler": identity_batches(4, 2)}
    settings = {**recipe(tmp_path, data=data, model=SMALL["model"], trainer=trainer), "name": "run"}
    _scaled(monkeypatch, init_scale=64.0)
    _overflowing(monkeypatch, lambda step: step == 4)
    folder = train(settings)
    assert all(value.isfinite().all() for value in state(folder)["state_dict"].values())
    table = rows(folder)
    assert [row["step"] for row in table if row["step/total"] == "inf"] == ["4"]
    assert all(math.isfinite(float(row["train/total"])) for row in table if row["train/total"])
    assert state(folder)[Scaled.__qualname__]["scale"] == 32.0


def test_a_scaler_without_room_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = {"max_epochs": 1, "log_every_n_steps": 1}
    data = {**SMALL["data"], "sampler": identity_batches(4, 2)}
    settings = {**recipe(tmp_path, data=data, model=SMALL["model"], trainer=trainer), "name": "run"}
    _scaled(monkeypatch, init_scale=4.0)
    _overflowing(monkeypatch, lambda step: True)
    with pytest.raises(RuntimeError, match="the loss is no longer finite in epoch 1"):
        train(settings)


class Scaled(MixedPrecision):
    """Scales losses of float32: convolutions in half precision take minutes on a CPU."""

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


def _scaled(monkeypatch: pytest.MonkeyPatch, **options: float) -> None:
    """Trains as with ``16-mixed``, on the CPU, for which Lightning takes bfloat16 instead."""

    def make(**settings: Any) -> Trainer:
        scaler = torch.amp.GradScaler("cpu", **options)
        settings["plugins"].append(Scaled("16-mixed", "cpu", scaler=scaler))
        return Trainer(**{**settings, "precision": None})

    monkeypatch.setattr("reid_models.training.train.Trainer", make)


def _overflowing(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """The losses of some steps are infinite."""
    original, steps = WeightedLoss.forward, itertools.count()

    def forward(self: WeightedLoss, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        factor = torch.inf if when(next(steps)) else 1.0
        return {name: value * factor for name, value in original(self, *args, **kwargs).items()}

    monkeypatch.setattr(WeightedLoss, "forward", forward)


def test_lost_weights_are_neither_saved_nor_validated() -> None:
    """The loss before a step is finite where only its gradient was not."""
    module = ReidModule(4, (32, 32), options={"backbone": "resnet10t"})
    module.on_save_checkpoint({"state_dict": module.state_dict()})
    module.on_validation_epoch_start()
    with torch.no_grad():
        module.network.head.classifier.weight[0, 0] = torch.inf
    with pytest.raises(
        RuntimeError, match=r"no longer finite.*1 of \d+ tensors, such as network\.head\.classifier\.weight"
    ):
        module.on_save_checkpoint({"state_dict": module.state_dict()})
    with pytest.raises(RuntimeError, match=r"no longer finite.*such as head\.classifier\.weight"):
        module.on_validation_epoch_start()


# -------------------------------------------------------------------------------------- limits of a run


def test_a_run_by_iterations_ends_in_an_epoch_and_is_judged_there(tmp_path: Path) -> None:
    """4 steps in an epoch, 6 in the run; stopped after 5 it goes on to the same weights."""
    trainer = {"max_epochs": -1, "max_steps": 6, "check_val_every_n_epoch": None, "val_check_interval": 6}
    settings = recipe(tmp_path, checkpoint_every_n_steps=1, trainer=trainer, **SMALL)
    settings["model"] = {
        **settings["model"],
        "schedule": {"name": "iterations", "every": 4},
        "optimizer": {"name": "SGD", "lr": 0.01, "groups": [{"match": "classifier", "lr_factor": 2}]},
    }
    whole = train({**settings, "name": "whole"})
    assert state(whole)["global_step"] == 6 and (whole / BEST).exists()
    assert [float(row["val/mAP"]) > 0 for row in rows(whole) if row["val/mAP"]] == [True]
    rates = {int(row["step"]): float(row["step/lr"]) for row in rows(whole) if row["step/lr"]}
    assert rates == pytest.approx({step: 0.01 if step < 4 else 0.001 for step in range(6)})
    train({**settings, "name": "twice", "trainer": {**settings["trainer"], "max_steps": 5}})
    assert not (tmp_path / "twice" / BEST).exists()
    train({**settings, "name": "twice", "resume": True})
    assert_same_weights(tmp_path / "twice", whole)
    judged = load_model(whole / BEST).state_dict()
    assert all(
        judged[key.removeprefix("network.")].equal(value)
        for key, value in state(whole)["state_dict"].items()
        if key.startswith("network.")
    )


def test_max_steps_can_be_raised_at_an_epochs_end_and_in_an_epoch(tmp_path: Path) -> None:
    """4 steps in each of 3 epochs, whose number limits the run as well; stopped behind 4 and 8, and 6."""
    settings = recipe(tmp_path, trainer={"max_epochs": 3, "max_steps": 100}, **SMALL)
    whole = train({**settings, "name": "whole"})
    assert state(whole)["global_step"] == 12
    for name, stops in (("ends", (4, 8)), ("middle", (6,))):
        for number, steps in enumerate((*stops, 100)):
            trainer = {**settings["trainer"], "max_steps": steps}
            train({**settings, "name": name, "trainer": trainer, "resume": number > 0})
            assert state(tmp_path / name)["global_step"] == min(steps, 12)
        assert_same_weights(tmp_path / name, whole)
        steps = [row for row in rows(tmp_path / name) if row["step/total"]]
        assert steps == [row for row in rows(whole) if row["step/total"]]
    assert rows(tmp_path / "ends") == rows(whole)  # no epoch comes twice


@pytest.mark.parametrize("limit", ["max_steps", "should_stop"])
def test_an_epoch_that_a_limit_cut_is_finished_without_it(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 steps in each of 2 epochs; stopped behind 6, by their number or as ``max_time`` stops a run."""
    settings = recipe(tmp_path, trainer={"max_epochs": 2}, **SMALL)
    whole = train({**settings, "name": "whole"})
    with monkeypatch.context() as patch:
        cut = dict(settings["trainer"])
        if limit == "max_steps":
            cut["max_steps"] = 6
        else:
            patch.setattr(ReidModule, "on_train_batch_end", stop_behind_6)
        train({**settings, "name": "cut", "trainer": cut})
    assert state(tmp_path / "cut")["global_step"] == 6
    train({**settings, "name": "cut", "resume": True})
    assert_same_weights(tmp_path / "cut", whole)
    for name in ("step/total", "val/mAP"):
        found = [row for row in rows(tmp_path / "cut") if row[name]]
        assert [row for row in found if name != "val/mAP" or row["step"] != "5"] == [
            row for row in rows(whole) if row[name]
        ]
    means = [row["train/total"] for row in rows(tmp_path / "cut") if row["train/total"]]
    assert [means[0], means[-1]] == [row["train/total"] for row in rows(whole) if row["train/total"]]


def stop_behind_6(module: ReidModule, *_: Any) -> None:
    trainer: Any = module.trainer
    trainer.should_stop = module.global_step >= 6


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "max_steps": 100}, 12),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": 3, "limit_train_batches": 3}, 9),
        ({"max_epochs": 3, "limit_train_batches": 9}, 12),
        ({"max_epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 2}, 3),
        ({"max_steps": 7}, 7),
    ],
)
def test_steps_are_counted_as_they_are_done(limits: dict[str, Any], steps: int) -> None:
    options = {"identities": 32, "size": (32, 32)}
    data = ReidDataModule("synthetic", None, options, (32, 32), sampler=identity_batches(4, 4))
    defaults = {"max_steps": -1, "max_epochs": -1, "limit_train_batches": 1.0, "accumulate_grad_batches": 1}
    data.trainer = SimpleNamespace(**{**defaults, **limits})  # type: ignore[assignment]
    assert data.count_steps() == steps


def test_one_cycle_ends_with_limited_epochs(tmp_path: Path) -> None:
    trainer = {"max_epochs": 3, "max_steps": 100, "limit_train_batches": 2, "limit_val_batches": 0}
    settings = recipe(tmp_path, model={"schedule": {"name": "one_cycle"}}, trainer=trainer)
    folder = train(settings)
    found = state(folder)
    assert found["global_step"] == found["lr_schedulers"][0]["total_steps"] == 6
    assert not (folder / BEST).exists()  # nothing was validated
    for limit in ("max_epochs", "max_steps"):
        with pytest.raises(ValueError, match=f"was begun with trainer.{limit}"):
            train({**settings, "resume": True}, [f"--trainer.{limit}", "4"])


def test_features_of_some_test_images_are_refused() -> None:
    data = ReidDataModule("synthetic", None, {"identities": 8})
    with pytest.raises(ValueError, match=r"those of all \d+ test images, got 3: is .* limit_val_batches set"):
        data.evaluate(torch.rand(3, 5))


# ------------------------------------------------------------------------------------ precision and devices


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_networks_of_other_types(precision: str, tmp_path: Path) -> None:
    trainer = {"max_epochs": 1, "precision": precision}
    folder = train(recipe(tmp_path, trainer=trainer))
    expected = torch.bfloat16 if precision == "bf16-true" else torch.float64
    assert state(folder)["state_dict"]["network.head.classifier.weight"].dtype == expected
    means = [float(row["train/total"]) for row in rows(folder) if row["train/total"]]
    assert len(means) == 1 and 0 < means[0] < 10
    assert load_model(folder / BEST).num_classes == 16


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_joint_batch_norm_of_one_process_is_batch_norm(dtype: torch.dtype, process_group: None) -> None:
    images = torch.randn(4, 3, 5, 5).to(dtype)
    norm, joint_norm = nn.BatchNorm2d(3).to(dtype), nn.BatchNorm2d(3).to(dtype)
    JointBatchNorm().apply(joint_norm)
    torch.testing.assert_close(joint_norm(images), norm(images))
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(joint_norm.state_dict()[name], value)


def test_one_device_unless_torchrun_says_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser, settings = make_parser(), recipe(tmp_path)
    assert read_configuration(parser, settings).trainer.devices == 1
    for count, words in ((4, ["--trainer.devices", "4"]), (2, ["--trainer.devices", "[0,1]"])):
        assert count_processes(read_configuration(parser, settings, words)) == count
    assert count_processes(read_configuration(parser, settings, ["--trainer.num_nodes", "2"])) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for devices in ("auto", "-1"):
        words = ["--trainer.accelerator", "gpu", "--trainer.devices", devices]
        assert count_processes(read_configuration(parser, settings, words)) == 3
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert count_processes(read_configuration(parser, settings, words)) == 2
        monkeypatch.delenv("TORCHELASTIC_RUN_ID")


# --------------------------------------------------------------------------------------- pretrained weights


def test_a_run_that_goes_on_needs_no_pretrained_weights(tmp_path: Path) -> None:
    parser, settings = make_parser(), recipe(tmp_path, name="run")
    words = ["--model.options.pretrained", "true"]
    (tmp_path / "run").mkdir()

    def pretrained(*more: str) -> bool:
        return read_configuration(parser, settings, [*words, *more]).model.options["pretrained"]

    plain = read_configuration(parser, settings).as_dict()
    asked = read_configuration(parser, settings, words).as_dict()
    assert pretrained("--resume")  # there is no checkpoint yet
    with pytest.raises(ValueError, match=r"was begun with model\.options\.pretrained None, got True"):
        check_same_run(plain, asked, tmp_path / "run")
    (tmp_path / "run" / LAST).touch()
    assert pretrained() and not pretrained("--resume")
    check_same_run(plain, asked, tmp_path / "run")
