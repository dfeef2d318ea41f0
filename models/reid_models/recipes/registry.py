"""Recipes by name. They are data: a recipes.yaml in each paper's room; HSGNet's describes their form."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from .._registry import rooms
from .._suggest import unknown
from .._yaml import parse_yaml

SUFFIXES = (".yaml", ".yml")
BOOK = "recipes.yaml"
BUILT_IN = {name: Path(__file__).with_name(f"{name}.yaml") for name in ("own_images", "builtin")}


@dataclass(frozen=True)
class Recipe:
    """One experiment.

    Attributes:
        name: as in :func:`list_recipes`; for a file of one's own its stem.
        title: the same in words.
        config: settings by name: ``model``, ``data``, ``trainer``, ``seed_everything``.
        targets: what the paper measured, as far as printed: ``rank1``, ``rank5``, ``rank10``, ``rank20`` and
            ``mAP`` in percent; ``seconds``, ``megabytes``, ``parameters`` (millions), ``gflops`` as they are.
        source: the paper's table and row, or the file.
        measure: how the targets are measured, where it is not the default: ``metric`` and ``ranking``
            (``"plain"`` or ``"reranked"``).
        computed: what the network costs by counting, without a run: ``parameters``, ``gflops``, ``depth``,
            ``feature_length``, ``megabytes``.
        paper: whose recipe it is, in words; "" for a file of one's own.
    """

    name: str
    title: str
    config: dict[str, Any]
    targets: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    paper: str = ""
    measure: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Book:
    """The recipes of one room.

    Attributes:
        room: its name; ``"builtin"`` for those that need no dataset.
        file: the YAML file.
        content: of the file: ``paper``, ``base``, ``parts``, ``recipes`` and ``tables``.
    """

    room: str
    file: Path
    content: Mapping[str, Any]

    @property
    def tables(self) -> Sequence[Mapping[str, Any]]:
        """The paper's tables: ``title``, and ``rows`` of recipes' names or of means over several."""
        return self.content.get("tables") or ()

    @property
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """Rows by name: ``title``, ``parts``, ``source``, ``targets``."""
        return self.content["recipes"]  # type: ignore[no-any-return]


def list_recipes() -> list[str]:
    """Names that :func:`load_recipe` knows, paper by paper in the order of its tables.

    Example:
        >>> "market1501_hsgnet" in list_recipes()
        True
    """
    return list(_owners())


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """A recipe by name, or a file of settings in YAML (such as a run's ``recipe.yaml``).

    A recipe is data, but training by it runs code that it names: a network, loss, sampler, schedule or reader
    ``package.module:Name``, and a ``class_path`` in its ``trainer``, are imported. Read a stranger's first.

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
    owners = _owners()
    if name not in owners:
        raise unknown("recipe", name, owners)
    book = owners[name]
    row, content = book.recipes[name], book.content
    for part in row["parts"]:
        if part not in content["parts"]:
            raise unknown(f"part of the recipe {name} in {book.file}", part, content["parts"])
    layers = [content["base"], *(content["parts"][part] for part in row["parts"])]
    config: dict[str, Any] = functools.reduce(merged, layers, {})
    return Recipe(
        name,
        row["title"],
        config,
        targets_of(row),
        row["source"],
        content["paper"],
        measure=row.get("measure") or {},
        computed=row.get("computed") or {},
    )


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two settings as one: mappings are merged, everything else of ``over`` replaces. Shares nothing."""
    result = {key: _copied(value) for key, value in under.items()}
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else _copied(value)  # type: ignore[arg-type]
    return result


def targets_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's targets by name."""
    return dict(row.get("targets") or {})


def books() -> tuple[Book, ...]:
    """The built-in recipes, then those of every paper's room.

    Raises:
        ValueError: a room's ``recipes.yaml`` is damaged.
    """
    found = BUILT_IN | {room: folder / BOOK for room, folder in rooms().items()}
    return tuple(_read_book(room, file) for room, file in found.items() if file.is_file())


def _owners() -> dict[str, Book]:
    """Each recipe's book, by name."""
    owners: dict[str, Book] = {}
    for book in books():
        for name in book.recipes:
            if name in owners:
                raise ValueError(f"recipe {name!r} is in {owners[name].file} and in {book.file}")
            owners[name] = book
    return owners


@functools.cache
def _read_book(room: str, file: Path) -> Book:
    content = _read_settings(file)
    missing = [key for key in ("paper", "base", "parts", "recipes") if key not in content]
    if missing:
        raise ValueError(f"{file} must have {', '.join(missing)}")
    for name, row in content["recipes"].items():
        lacking = [key for key in ("title", "parts", "source") if key not in row]
        if lacking:
            raise ValueError(f"{file}: the recipe {name} must have {', '.join(lacking)}")
        for key in ("targets", "computed"):
            if not isinstance(row.get(key) or {}, dict):
                raise ValueError(f"{file}: {key} of {name} must be numbers by name, got {row[key]}")
    return Book(room, file, content)


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
