"""A run's configuration: what can be set, with types and defaults, by jsonargparse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ..cli.parsing import parse
from ..data.pipeline import Augmentation
from ..losses import HSGNET_LOSSES
from .data_module import ReidDataModule
from .module import ReidModule
from .schedule import HSGNET_OPTIMIZER, HSGNET_SCHEDULE

TRAINER_DEFAULTS: Mapping[str, Any] = {
    "max_epochs": 120,  # HSGNet, section IV-B
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


def make_parser() -> LightningArgumentParser:
    """The parser of a run: of :class:`ReidModule`, :class:`ReidDataModule` and the trainer."""
    parser = LightningArgumentParser(
        prog="reid train RECIPE",
        description="Every setting of a run. In a recipe in YAML, a dot is a level.",
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
            "model.losses": [{**vars(term), "options": dict(term.options)} for term in HSGNET_LOSSES],
            "model.optimizer": dict(HSGNET_OPTIMIZER),
            "model.schedule": dict(HSGNET_SCHEDULE),
            "data.augmentation": {
                key: list(v) if isinstance(v, tuple) else v for key, v in augmentation.items()
            },
        }
    )
    parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
    parser.link_arguments("data.image_size", "model.image_size")
    parser.link_arguments("seed_everything", "data.seed")
    return parser


def read_configuration(
    parser: LightningArgumentParser, recipe: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Namespace:
    """A recipe's settings with those of a command line over them.

    Raises:
        ValueError: an unknown setting (the nearest is suggested) or a value of the wrong type.

    Example:
        >>> words = ["--data.root", "/data/Market-1501-v15.09.15", "--trainer.max_epochs", "3"]
        >>> configuration = read_configuration(make_parser(), recipe, words)
    """
    return parse(parser, ["--config", json.dumps(recipe), *overrides])


def check_same_run(stored: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with a run by settings that compute something else.

    Raises:
        ValueError: naming the first setting that differs.
    """
    before, now = _computed(stored), _computed(given)
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
    for key in ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"):
        flat[f"trainer.{key}"] = trainer[key]
    if schedule is not None and schedule.get("name") == "one_cycle":  # which ends with the run
        flat["trainer.max_epochs"] = trainer["max_epochs"]
    return {key: value for key, value in flat.items() if key not in MAY_CHANGE}
