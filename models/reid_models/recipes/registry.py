"""Recipes by name. They are data: a recipes.yaml in each paper's room; HSGNet's describes their form."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from .._suggest import unknown
from .._yaml import parse_yaml

METRICS = ("rank1", "rank5", "mAP")  # of targets, in this order
SUFFIXES = (".yaml", ".yml")
PAPERS = f"{__package__.rpartition('.')[0]}.papers"


@dataclass(frozen=True)
class Recipe:
    """One experiment.

    Attributes:
        name: as in :func:`list_recipes`; for a file of one's own its stem.
        title: the same in words.
        config: settings by name: ``model``, ``data``, ``trainer``, ``seed_everything``.
        targets: what the paper measured, in percent: ``rank1``, ``rank5``, ``mAP``, as far as printed.
        source: the paper's table and row, or the file.
    """

    name: str
    title: str
    config: dict[str, Any]
    targets: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


def list_recipes() -> list[str]:
    """Names that :func:`load_recipe` knows, in the order of the paper's tables.

    Example:
        >>> "market1501_hsgnet" in list_recipes()
        True
    """
    return list(_recipes())


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """A recipe by name, or a file of settings in YAML (such as a run's ``recipe.yaml``).

    Args:
        name_or_path: one of :func:`list_recipes`, or a path that ends in .yaml or .yml.

    Returns:
        The recipe, whose ``config`` the caller may change.

    Raises:
        ValueError: no such name (the nearest is suggested), or the file is not a mapping in YAML.
        FileNotFoundError: no such file.

    Example:
        >>> load_recipe("veri776_wo_hier").targets
        {'rank1': 96.47, 'rank5': 98.21, 'mAP': 80.03}
    """
    path = Path(name_or_path)
    if path.suffix in SUFFIXES:
        return Recipe(path.stem, path.stem, _read_settings(path), source=str(path))
    name = os.fspath(name_or_path)
    if name not in _recipes():
        raise unknown("recipe", name, _recipes())
    book, row = _recipes()[name]
    layers = [book["base"], *(book["parts"][part] for part in row["parts"])]
    config: dict[str, Any] = functools.reduce(merged, layers, {})
    return Recipe(name, row["title"], config, targets_of(row), row["source"])


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two settings as one: mappings are merged, everything else of ``over`` replaces. Shares nothing."""
    result = {key: _copied(value) for key, value in under.items()}
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else _copied(value)  # type: ignore[arg-type]
    return result


def targets_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's targets by name, without those that the paper does not print."""
    values = zip(METRICS, row.get("targets", ()), strict=False)
    return {metric: value for metric, value in values if value is not None}


@functools.cache
def books() -> tuple[dict[str, Any], ...]:
    """The built-in recipes of this folder, then those of every paper's room."""
    rooms = sorted(files(PAPERS).iterdir(), key=lambda room: room.name)
    found = [files(__package__) / "builtin.yaml", *(room / "recipes.yaml" for room in rooms)]
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")) for file in found if file.is_file())


@functools.cache
def _recipes() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Each recipe's file and row, by name."""
    return {name: (book, row) for book in books() for name, row in book["recipes"].items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_copied(inner) for inner in value]
    return value


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"load_recipe: {path} does not exist") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"load_recipe: {path} must be YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"load_recipe: {path} must hold settings by name, got {type(content).__name__}")
    return content
