"""``reid recipes``: experiments by name, their settings, and the papers' tables beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from .command import Command

if TYPE_CHECKING:
    from ..recipes import Recipe
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this recipe's settings; none: list all")
    parser.add_argument("--table", action="store_true", help="the papers' tables beside what was measured")
    parser.add_argument("--runs", metavar="DIR", help="the folder of run folders; default: runs, if there")
    parser.add_argument("--form", choices=["text", "markdown", "csv"], default="text", help="of the tables")


def run(options: Namespace) -> None:
    from ..recipes import list_recipes, load_recipe, paper_table, read_results

    if options.table:
        if options.name is not None:
            raise ValueError(f"NAME must not be given with --table, got {options.name}")
        runs = options.runs or ("runs" if Path("runs").is_dir() else None)
        print(paper_table(read_results(runs) if runs else {}, form=options.form), end="")
    elif options.runs is not None or options.form != "text":
        raise ValueError("--runs and --form must be given with --table")
    elif options.name is None:
        _list([load_recipe(name) for name in list_recipes()])
    else:
        print(_shown(load_recipe(options.name)), end="")


def _list(recipes: Sequence[Recipe]) -> None:
    """Names and titles under their papers."""
    width = max(len(recipe.name) for recipe in recipes)
    for number, (paper, group) in enumerate(groupby(recipes, key=lambda recipe: recipe.paper)):
        print(f"{'' if number == 0 else chr(10)}{paper}")
        for recipe in group:
            print(f"  {recipe.name:<{width}}  {recipe.title}")


def _shown(recipe: Recipe) -> str:
    """A recipe as YAML, which can be changed and given to ``reid train``."""
    import yaml  # type: ignore[import-untyped]

    targets = ", ".join(f"{metric} {value}" for metric, value in recipe.targets.items())
    lines = [recipe.title, recipe.source, f"the paper's results: {targets}" if targets else ""]
    comments = "".join(f"# {line}\n" for line in lines if line)
    settings: str = yaml.safe_dump(recipe.config, sort_keys=False, default_flow_style=None, width=110)
    return comments + settings


COMMAND = Command(
    name="recipes",
    summary="lists the recipes, shows one, or compares the papers' tables with what was measured",
    example="""
reid recipes
reid recipes market1501_hsgnet > my.yaml
reid recipes --table --runs runs --form markdown
""",
    configure=configure,
    run=run,
)
