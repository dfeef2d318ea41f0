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
from ..data.images import INTERPOLATIONS
from ..networks import Network, load_model
from ..networks.embedding import Embedding
from ..networks.onnx_file import OnnxNetwork
from .files import BEST, RECIPE
from .specs import ONNX, TIMM, TimmSpec


@dataclass(frozen=True)
class Trained:
    """A network and how images are given to it.

    Attributes:
        model: the network, in training mode, on the CPU.
        path: where it is, as :func:`load_trained` takes it again from any folder.
        recipe: the whole configuration that it was trained with; empty if it is not known.
        images: ``mean``, ``std``, ``channels`` and ``interpolation`` of its images, as far as the model says
            so itself; over those of the recipe.
    """

    model: Network
    path: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Mapping[str, Any]:
        """The recipe's part on data: dataset, root, dataset_options, image_size, augmentation."""
        return self.recipe.get("data") or {}

    @property
    def image_statistics(self) -> dict[str, Any]:
        """``mean``, ``std``, ``channels`` and ``interpolation`` of its images."""
        known = Augmentation()
        defaults = {"mean": known.mean, "std": known.std, "channels": "rgb"}
        given = {**(self.data.get("augmentation") or {}), **self.images}
        chosen = {name: given.get(name) or default for name, default in defaults.items()}
        interpolation = given.get("interpolation")
        chosen["interpolation"] = interpolation if interpolation in INTERPOLATIONS else INTERPOLATIONS[0]
        return {name: value if isinstance(value, str) else list(value) for name, value in chosen.items()}

    @property
    def extraction(self) -> dict[str, Any]:
        """The keywords of :func:`extract_features` that belong to the model."""
        images = self.image_statistics
        mean, std = tuple(images["mean"]), tuple(images["std"])
        return {
            "image_size": self.model.image_size,
            "augmentation": Augmentation(mean=mean, std=std, channels=images["channels"]),
            "interpolation": images["interpolation"],
            "path": self.path,
        }


def load_trained(path: str | os.PathLike[str]) -> Trained:
    """A network that can be used as it is.

    - a run folder (the best by validation) or a file of :func:`reid_models.save_model`;
    - ``timm:NAME``, with ImageNet weights from timm's cache or hub, or ``timm:NAME@FILE`` with a local state
      dict (``.safetensors`` or of ``torch.save``; no code is read from it). Its features are those before the
      classifier; images have the size, mean, standard deviation and interpolation that timm says, and are not
      cropped. ``timm:NAME+gem`` (or ``gap``, ``gmp``) pools otherwise, ``timm:NAME+256x128`` takes images of
      another height and width.
    - ``onnx:FILE``, run by onnxruntime.

    Mean and standard deviation for images are those in ``recipe.yaml`` in the folder or beside the file,
    unless the model says its own; without either they are ImageNet's.

    Raises:
        FileNotFoundError: no such file, or no such file in the folder.
        ValueError: a file is damaged or another one, or there is no such network.
        RuntimeError: weights can't be fetched.
        ModuleNotFoundError: ``onnx:FILE`` without onnxruntime.

    Example:
        >>> trained = load_trained("timm:vit_small_patch14_dinov2@dinov2.safetensors")
        >>> query = extract_features(trained.model, records, **trained.extraction)
    """
    spec = os.fspath(path)
    if spec.startswith(TIMM):
        return _load_timm(TimmSpec.parse(spec))
    if spec.startswith(ONNX):
        return _load_onnx(Path(spec.removeprefix(ONNX)))
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        what = f"a run folder with {BEST}" if path.is_dir() else "a run folder or a file of a model"
        raise FileNotFoundError(f"model must be {what}, or timm:NAME or onnx:FILE, got {path}")
    return Trained(load_model(file), str(file), _recipe(file.parent / RECIPE))


def _load_timm(spec: TimmSpec) -> Trained:
    model = Embedding(
        1,  # of no meaning without a classifier
        backbone=spec.name,
        pretrained=True if spec.file is None else spec.file,
        image_size=spec.image_size,
        pool=spec.pool,
        classifier=False,
    )
    images = {"mean": model.mean, "std": model.std, "interpolation": model.interpolation}
    return Trained(model, str(spec), images=images)


def _load_onnx(file: Path) -> Trained:
    recipe = _recipe(file.parent / RECIPE)
    size = (recipe.get("data") or {}).get("image_size")
    model = OnnxNetwork(file, image_size=size)
    return Trained(model, f"{ONNX}{file.resolve()}", recipe, model.images)


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
