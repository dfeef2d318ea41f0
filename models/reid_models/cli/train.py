"""``reid train``: a training run by a recipe."""

from __future__ import annotations

from .command import ArgumentParser, Command, Namespace

EXAMPLE = """\
reid train hsgnet_market --data.root /data/Market-1501-v15.09.15
reid train hsgnet_market --data.root DIR --model.options.backbone resnet18 --trainer.max_epochs 3 --name trial
reid train hsgnet_market --data.root DIR --trainer.precision bf16-mixed --model.channels_last true
reid train hsgnet_market --data.root DIR --resume       # goes on after an interruption
reid train hsgnet_market --help                         # every setting
torchrun --nproc_per_node 4 -m reid_models train hsgnet_market --data.root DIR        # four GPUs
torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29400 \\
         -m reid_models train hsgnet_market --data.root DIR   # on each of two machines, the same folder"""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, help="a name from `reid recipes`, or a YAML file of settings")
    parser.add_argument("settings", nargs="...", help="settings over the recipe's: --GROUP.SETTING VALUE")


def run(options: Namespace) -> None:
    from ..engine.train import train

    name, recipe = _read_recipe(options.recipe)
    folder = train({"name": name, **recipe}, options.settings)
    print(folder)


def _read_recipe(given: str) -> tuple[str, dict]:
    """A recipe's name and settings."""
    from pathlib import Path

    from ..engine.configuration import read_yaml

    path = Path(given)
    return path.stem, read_yaml(path)


COMMAND = Command(
    name="train",
    summary="trains a model by a recipe into a folder of its own: weights, curves, checkpoints",
    example=EXAMPLE,
    configure=configure,
    run=run,
)
