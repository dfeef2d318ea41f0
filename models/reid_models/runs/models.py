"""Trained networks with what must be known to use them: from a run folder, or one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from .._yaml import parse_yaml
from ..data.augmentation import Augmentation
from ..networks import Network, load_model
from .files import BEST, RECIPE


@dataclass(frozen=True)
class Trained:
    """A network and how images are given to it.

    Attributes:
        model: the network, in training mode, on the CPU.
        file: its weights.
        recipe: the whole configuration that it was trained with; empty if it is not known.
    """

    model: Network
    file: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Mapping[str, Any]:
        """The recipe's part on data: dataset, root, dataset_options, image_size, augmentation."""
        return self.recipe.get("data") or {}

    @property
    def extraction(self) -> dict[str, Any]:
        """The keywords of :func:`extract_features` that belong to the model."""
        given = self.data.get("augmentation") or {}
        statistics: dict[str, Any] = {
            name: tuple(given[name]) for name in ("mean", "std") if given.get(name) is not None
        }
        statistics["channels"] = given.get("channels") or "rgb"
        return {
            "image_size": self.model.image_size,
            "augmentation": Augmentation(**statistics),
            "path": str(self.file),
        }


def load_trained(path: str | os.PathLike[str]) -> Trained:
    """A network from a run folder (the best by validation) or from a file of :func:`save_model`.

    Mean and standard deviation for images are those in ``recipe.yaml`` in the folder or beside the file;
    without that file they are ImageNet's.

    Raises:
        FileNotFoundError: no such file, or no such file in the folder.
        ValueError: a file is damaged or another one.

    Example:
        >>> trained = load_trained("runs/vans")
        >>> query = extract_features(trained.model, records, **trained.extraction)
    """
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        what = f"a run folder with {BEST}" if path.is_dir() else "a run folder or a file of a model"
        raise FileNotFoundError(f"model must be {what}, got {path}")
    return Trained(load_model(file), file, _recipe(file.parent / RECIPE))


def _recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        recipe = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged or not a recipe ({reason})") from None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("data") or {}, dict):
        raise ValueError(f"{path} must be a recipe with the part data, got {type(recipe).__name__}")
    return recipe
