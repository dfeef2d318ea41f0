"""The settings of a run that people change most, in plain words and under short names.

Imports nothing but the standard library, so that `reid train --help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Short(NamedTuple):
    """A short option, the setting that it stands for, and what that is."""

    option: str
    setting: str
    value: str
    words: str


SHORT = (
    Short("--root", "data.root", "DIR", "where your images are"),
    Short("--dataset", "data.dataset", "NAME", "how they are laid out, see `reid datasets`"),
    Short("--name", "name", "NAME", "of the run: it is kept in runs/NAME"),
    Short("--epochs", "trainer.max_epochs", "N", "how often every training image is seen"),
    Short("--lr", "model.optimizer.lr", "X", "learning rate: how far each step goes"),
    Short("--backbone", "model.options.backbone", "NAME", "the network's trunk, as timm calls it: resnet50"),
    Short(
        "--pretrained",
        "model.options.pretrained",
        "true|false|FILE",
        "start from ImageNet's weights, or a file",
    ),
    Short("--image-size", "data.image_size", "[H,W]", "pixels that images are brought to"),
    Short("--precision", "trainer.precision", "NAME", "bf16-mixed or 16-mixed: quicker on a GPU; 32-true"),
    Short("--workers", "data.workers", "N", "processes that decode images"),
)
SETTINGS = {short.option: short.setting for short in SHORT} | {
    "--seed": "seed_everything",
    "--devices": "trainer.devices",
    "--gpus": "trainer.devices",
    "--max-epochs": "trainer.max_epochs",
    "--learning-rate": "model.optimizer.lr",
    "--weight-decay": "model.optimizer.weight_decay",
    "--network": "model.network",
    "--num-workers": "data.workers",
}
BATCH = (
    "--batch-size is two settings here, since a batch is so many identities with so many images each: "
    "--data.sampler.identities_per_batch N --data.sampler.images_per_identity K, or for a sampler of other "
    "batches its own, as --data.sampler.batch_size N; for evaluation --data.evaluation_batch_size N"
)


def lengthened(words: Sequence[str]) -> list[str]:
    """Words of a command line with the short options as the settings they stand for.

    Raises:
        ValueError: ``--batch-size``, which does not stand for one.

    Example:
        >>> lengthened(["--epochs", "3", "--lr=0.1"])
        ['--trainer.max_epochs', '3', '--model.optimizer.lr=0.1']
    """
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        option = option.replace("_", "-") if "." not in option else option
        if option in ("--batch-size", "--batch"):
            raise ValueError(BATCH)
        found.append(f"--{SETTINGS[option]}{equals}{value}" if option in SETTINGS else word)
    return found


def described() -> str:
    """The short options as a table."""
    rows = [(f"{short.option} {short.value}", short.words) for short in SHORT]
    width = max(len(option) for option, _ in rows)
    return "\n".join(f"  {option:<{width}}  {words}" for option, words in rows)
