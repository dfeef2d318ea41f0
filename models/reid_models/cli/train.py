"""``reid train``: a training run by a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..runs.files import BEST
from ..training.short import described, lengthened
from .command import Command

if TYPE_CHECKING:
    from .parsing import ArgumentParser, Namespace

EXAMPLE = """\
reid train own_images --data.root my_images                 # my_images/IDENTITY/*, from ImageNet weights
reid train market1501_hsgnet --data.root /data/Market-1501-v15.09.15
reid train market1501_hsgnet --root DIR --backbone resnet18 --epochs 3    # short names of the settings above
reid train market1501_hsgnet --data.root DIR --trainer.precision bf16-mixed --model.channels_last true
reid train market1501_hsgnet --data.root DIR --resume       # goes on after an interruption
reid train market1501_hsgnet --help                         # every setting
reid recipes market1501_hsgnet > my.yaml; reid train my.yaml --data.root DIR
torchrun --nproc_per_node 4 -m reid_models train market1501_hsgnet --data.root DIR   # four GPUs
torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29400 \\
         -m reid_models train market1501_hsgnet --data.root DIR   # on both of two machines"""


def configure(parser: ArgumentParser) -> None:
    parser.description = (
        f"{COMMAND.summary}\n\nWhat people change most:\n{described()}\n\n"
        "Every other setting: `reid train RECIPE --help`; its name is its place in the recipe, such as\n"
        "--data.sampler.identities_per_batch 8. Whatever is not given is as the recipe has it."
    )
    parser.add_argument("recipe", type=str, help="a name from `reid recipes`, or a YAML file of settings")
    parser.add_argument("settings", nargs="...", help="settings over the recipe's: --GROUP.SETTING VALUE")


def run(options: Namespace) -> None:
    from ..recipes import load_recipe
    from ..training.train import train

    name, settings = _separate(lengthened(options.words))
    recipe = load_recipe(name)
    folder = train({"name": recipe.name, **recipe.config}, settings)
    for line in _before_and_after(folder):
        print(line, file=sys.stderr)
    print(folder)


def _before_and_after(folder: Path) -> list[str]:
    """What training was worth, where the network was measured before the first step as well."""
    from ..runs.metrics_log import read_metrics

    try:
        log = read_metrics(folder)
    except (FileNotFoundError, ValueError):  # nothing was logged
        return []
    if "val/mAP" not in log.columns:
        return []
    epochs, scores = log.series("val/mAP", "epoch")
    if len(scores) < 2 or epochs[0] >= 0:
        return []
    before, after = scores[0], scores[1:].max()
    lines = [f"mAP {100 * before:.1f} % before training, {100 * after:.1f} % after"]
    if after <= before:
        lines.append(f"training did not help: {folder / BEST} is the network as it was before")
    return lines


def _separate(words: list[str]) -> tuple[str, list[str]]:
    """The recipe and the settings, of which some may come first."""
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    from ..training.configuration import make_parser
    from .parsing import separate

    plain, settings = separate(make_parser(), words)
    if not plain:
        raise ValueError("RECIPE must be given: a name from `reid recipes`, or a YAML file of settings")
    return plain[0], [*plain[1:], *settings]


COMMAND = Command(
    name="train",
    summary="trains a model by a recipe into a folder of its own: weights, curves, checkpoints",
    example=EXAMPLE,
    configure=configure,
    run=run,
    passes_on=True,
)
