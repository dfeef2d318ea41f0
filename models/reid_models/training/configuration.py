"""A run's configuration: what can be set, with types and defaults, by jsonargparse."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from .._words import parse
from ..data.augmentation import Augmentation
from ..runs.files import LAST
from .data_module import ReidDataModule
from .defaults import EPOCHS, LOSSES, OPTIMIZER, SAMPLER, SCHEDULE
from .module import ReidModule
from .short import SHORT

TRAINER_DEFAULTS: Mapping[str, Any] = {
    "max_epochs": EPOCHS,
    "devices": 1,  # several processes are torchrun's to start
    "sync_batchnorm": True,  # does nothing with one process
    "use_distributed_sampler": False,  # the data module shares batches out itself
    "reload_dataloaders_every_n_epochs": 1,  # epochs may differ by a batch
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 20,
}
# The run folder's files are train's; the last two would switch them off.
TRAINER_SKIPPED = {
    "logger",
    "plugins",
    "default_root_dir",
    "enable_checkpointing",
    "barebones",
    "fast_dev_run",
}

# What may change when a run goes on: where and how it runs, not what it computes.
MAY_CHANGE = ("data.root", "data.workers", "data.check_images", "data.evaluation_batch_size")
PRETRAINED = "model.options.pretrained"  # nor this, once there is a checkpoint, which has all weights


def make_parser() -> LightningArgumentParser:
    """The parser of a run: of :class:`ReidModule`, :class:`ReidDataModule` and the trainer."""
    parser = LightningArgumentParser(
        prog="reid train RECIPE",
        description="Every setting of a run. In a recipe in YAML, a dot is a level. Most people change: "
        + ", ".join(f"{short.option} (--{short.setting}), {short.words}" for short in SHORT)
        + ".",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML whose settings come before those that follow")
    parser.add_argument(
        "--name", type=str | None, default=None, help="the run folder's name; null: the recipe's"
    )
    parser.add_argument("--runs", type=str, default="runs", help="the folder of run folders")
    parser.add_argument("--resume", action="store_true", help="goes on with the run if its folder is there")
    parser.add_argument(
        "--checkpoint_every_n_steps",
        type=int,
        default=100,
        help="optimizer steps from last.ckpt to last.ckpt",
    )
    parser.add_argument(
        "--seed_everything", type=int, default=0, help="seed of weights, batches, augmentation"
    )
    parser.add_class_arguments(
        Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=TRAINER_SKIPPED
    )
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
    parser.add_lightning_class_args(ReidModule, "model")
    parser.add_lightning_class_args(ReidDataModule, "data")
    augmentation = asdict(Augmentation())
    parser.set_defaults(
        {
            # Whole in recipe.yaml, and with single values that can be set over them.
            "model.losses": [{**vars(term), "options": dict(term.options)} for term in LOSSES],
            "model.optimizer": dict(OPTIMIZER),
            "model.schedule": dict(SCHEDULE),
            "data.sampler": dict(SAMPLER),
            "data.augmentation": {
                key: list(v) if isinstance(v, tuple) else v for key, v in augmentation.items()
            },
        }
    )
    # The data are read and looked through before the network is made, which may fetch weights.
    parser.link_arguments("data.checked_classes", "model.num_classes", apply_on="instantiate")
    parser.link_arguments("data.image_size", "model.image_size")
    parser.link_arguments("seed_everything", "data.seed")
    return parser


def read_configuration(
    parser: LightningArgumentParser, recipe: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Namespace:
    """A recipe's settings with those of a command line over them.

    ``trainer.check_val_every_n_epoch`` -1 is ``max_epochs``; a mean or standard deviation of images that is
    null is that of the network's backbone. A run that goes on from a checkpoint has ``pretrained`` off: it
    need not fetch what it would replace.

    Raises:
        ValueError: an unknown setting (the nearest is suggested), a value of the wrong type, or one that
            training can't have.

    Example:
        >>> words = ["--data.root", "/data/Market-1501-v15.09.15", "--trainer.max_epochs", "3"]
        >>> configuration = read_configuration(make_parser(), recipe, words)
    """
    configuration = parse(parser, ["--config", json.dumps(recipe), *overrides])
    _follow_backbone(configuration)
    if configuration.trainer.check_val_every_n_epoch == -1:  # at the end alone, wherever that is
        configuration.trainer.check_val_every_n_epoch = configuration.trainer.max_epochs
    _check_batches(configuration.trainer)
    if count_processes(configuration) < 1:
        raise ValueError(f"trainer.devices must be at least 1, got {configuration.trainer.devices}")
    options, folder = configuration.model.options, Path(configuration.runs) / (configuration.name or "run")
    if configuration.resume and (folder / LAST).exists() and options and "pretrained" in options:
        options["pretrained"] = False
    return configuration


def check_same_run(stored: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with a run by settings that compute something else.

    Raises:
        ValueError: naming the first setting that differs.
    """
    before, now = _computed(stored), _computed(given)
    if (folder / LAST).exists():
        before.pop(PRETRAINED, None)
        now.pop(PRETRAINED, None)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{folder} was begun with {key} {before.get(key)!r}, got {now.get(key)!r}: "
                "--resume needs the same, --name starts another run"
            )


def _computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a run's numbers, flat."""
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                flatten(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    for group in ("seed_everything", "model", "data"):
        flatten(group, settings.get(group))
    trainer, schedule = settings["trainer"], settings["model"]["schedule"]
    keys = ["precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"]
    keys.append("limit_train_batches")
    if schedule is not None and schedule.get("name") == "one_cycle":  # which ends with the run
        keys += ["max_epochs", "max_steps"]
    flat |= {f"trainer.{key}": trainer[key] for key in keys}
    return {key: value for key, value in flat.items() if key not in MAY_CHANGE}


def _follow_backbone(configuration: Namespace) -> None:
    """Mean and standard deviation of images that are null: those of the network's backbone, as timm says."""
    given, options = configuration.data.augmentation, configuration.model.options
    missing = [
        name for name in ("mean", "std") if given is not None and name in given and given[name] is None
    ]
    if not missing:
        return
    known = timm.get_pretrained_cfg(str((options or {}).get("backbone")))
    for name in missing:
        # ImageNet's where timm does not know the network: what it is called is checked when it is made.
        given[name] = list(getattr(Augmentation() if known is None else known, name))


def _check_batches(trainer: Namespace) -> None:
    """Retrieval is measured with all test images or not at all."""
    limit = trainer.limit_val_batches
    if limit is not None and limit != 0 and not (isinstance(limit, float) and limit == 1):
        raise ValueError(f"trainer.limit_val_batches must be 1.0 (all), 0 (none) or null, got {limit}")
    if trainer.overfit_batches:
        got = trainer.overfit_batches
        raise ValueError(f"trainer.overfit_batches must be 0 (see limit_train_batches), got {got}")


def count_processes(configuration: Namespace) -> int:
    """How many processes share a batch: as torchrun says, or as the trainer's settings do."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ.get("WORLD_SIZE", "1"))
    trainer = configuration.trainer
    processes: int = _count_devices(trainer.devices, trainer.accelerator) * trainer.num_nodes
    return processes


def _count_devices(devices: list[int] | str | int, accelerator: Any) -> int:
    """As Lightning reads them: a number or a list, also as text, or all that there are."""
    if devices in ("auto", "-1", -1):
        return max(1, torch.cuda.device_count()) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, str):
        words = [word for word in devices.split(",") if word.strip()]
        devices = list(map(_device, words)) if "," in devices else _device(devices)
    return len(devices) if isinstance(devices, list) else devices


def _device(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"trainer.devices must be a number, numbers or auto, got {word!r}") from None
