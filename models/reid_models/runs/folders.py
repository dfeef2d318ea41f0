"""Run folders, as training and evaluation leave them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from .._yaml import parse_yaml
from .files import BEST, EVALUATION, METRICS, READ, RECIPE
from .metrics_log import MetricsLog, read_metrics
from .specs import is_spec, spec_label

METHOD_NAMES = {"plain": "", "reranked": "re-ranked", "single_shot": "single-shot"}


@dataclass(frozen=True)
class Run:
    """What is in a run folder; None for what is not there.

    Attributes:
        name: to show.
        path: the folder.
        recipe: the configuration that was run.
        recipe_text: the same as it stands in ``recipe.yaml``; "" without.
        log: of training.
        evaluation: ``evaluation.json`` as it is.
        weights: ``best.safetensors``.
    """

    name: str
    path: Path
    recipe: Mapping[str, Any] | None
    recipe_text: str
    log: MetricsLog | None
    evaluation: Mapping[str, Any] | None
    weights: Path | None

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """``"plain"``, ``"reranked"`` and whatever else was measured: metric -> percent."""
        return {
            method: {metric: 100.0 * value for metric, value in values.items()}
            for method, values in (self.evaluation or {}).items()
            if _is_scores(values)
        }

    @property
    def cmc(self) -> dict[str, list[float]]:
        """``"plain"`` and so on: the CMC curve from rank 1 on, in [0, 1]."""
        curves = (self.evaluation or {}).get("cmc")
        return {name: list(curve) for name, curve in curves.items()} if isinstance(curves, dict) else {}

    def setting(self, *keys: str) -> Any:
        """A value of the recipe by its path, such as ``"model", "network"``; None where there is none."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def label(self, method: str) -> str:
        """The run's name with the method: ``"hsgnet, re-ranked"``."""
        shown = METHOD_NAMES.get(method, method)
        return f"{self.name}, {shown}" if shown else self.name


def read_run(path: str | os.PathLike[str], *, name: str | None = None) -> Run:
    """Reads a run folder. Any of its files may be missing, but not all.

    Args:
        path: the folder.
        name: to show; None takes the folder's.

    Raises:
        FileNotFoundError: no such folder, or none of the files is in it.
        ValueError: a file is damaged.

    Example:
        >>> read_run("runs/hsgnet_veri776").scores["plain"]["mAP"]
        80.6
    """
    op = "read_run"
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{op}: path must be a run folder, got {folder}")
    present = {file for file in READ if (folder / file).is_file()}
    if not present:
        raise FileNotFoundError(f"{op}: {folder} must hold one of {', '.join(READ)}; is it a run folder?")
    recipe_text = _read_text(folder / RECIPE) if RECIPE in present else ""
    return Run(
        name=folder.resolve().name if name is None else name,
        path=folder,
        recipe=_parse_recipe(recipe_text, folder) if recipe_text else None,
        recipe_text=recipe_text,
        log=read_metrics(folder) if METRICS in present else None,
        evaluation=_read_evaluation(folder) if EVALUATION in present else None,
        weights=folder / BEST if BEST in present else None,
    )


def name_paths(words: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Paths by names to show: those of ``NAME=PATH``, and for others as much of the path as tells them apart.

    Of ``timm:NAME@FILE`` and ``onnx:FILE``, handed on as they are, the network's or the file's name.

    Raises:
        ValueError: a path or a name comes twice.

    Example:
        >>> name_paths(["HSGNet=runs/hsgnet_veri776", "runs/baseline"])
        {'HSGNet': PosixPath('runs/hsgnet_veri776'), 'baseline': PosixPath('runs/baseline')}
    """
    op = "name_paths"
    split = [_split_name(os.fspath(word)) for word in words]
    folders = [_shown(path) for _, path in split]
    depth = 1
    while depth < 20 and len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    named: dict[str, Path] = {}
    for (name, path), folder in zip(split, folders, strict=True):
        shown = name or "/".join(folder.parts[-depth:])
        if shown in named:
            raise ValueError(f"{op}: every path must have a name of its own, but {shown!r} comes twice")
        named[shown] = Path(path)
    return named


def _shown(path: str) -> Path:
    return Path(spec_label(path)) if is_spec(path) else Path(path).resolve()


def _split_name(word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    return (name, path) if equals and name and path and not Path(word).exists() else ("", word)


def read_runs(paths: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Several run folders, named as by :func:`name_paths`.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_run`; a folder or a name comes twice.
    """
    return [read_run(path, name=name) for name, path in name_paths(paths).items()]


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"read_run: {file} must be UTF-8 text ({error})") from None


def _parse_recipe(text: str, folder: Path) -> Mapping[str, Any]:
    try:
        recipe = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"read_run: {folder / RECIPE} is not YAML ({error})") from None
    if not isinstance(recipe, dict):
        got = type(recipe).__name__
        raise ValueError(f"read_run: {folder / RECIPE} must hold a mapping, got {got}")
    return recipe


def _read_evaluation(folder: Path) -> Mapping[str, Any]:
    file = folder / EVALUATION
    try:
        evaluation = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"read_run: {file} is not JSON ({error})") from None
    if not isinstance(evaluation, dict):
        raise ValueError(f"read_run: {file} must hold an object, got {type(evaluation).__name__}")
    for method, values in evaluation.items():
        if _is_scores(values) and not all(_is_share(value) for value in values.values()):
            raise ValueError(f"read_run: {file}: {method} must have shares in [0, 1], got {values}")
    return evaluation


def _is_scores(values: object) -> bool:
    return isinstance(values, dict) and ("mAP" in values or "rank1" in values)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
