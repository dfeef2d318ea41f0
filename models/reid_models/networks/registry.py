"""Models by name."""

from __future__ import annotations

import inspect
from typing import Any

from .._suggest import unknown
from ..papers.hsgnet.network import HSGNet
from .baseline import Baseline

MODELS: dict[str, type[Baseline]] = {model.name: model for model in (Baseline, HSGNet)}


def list_models() -> list[str]:
    """Names that :func:`create_model` knows.

    Example:
        >>> list_models()
        ['baseline', 'hsgnet']
    """
    return sorted(MODELS)


def create_model(name: str, num_classes: int, **options: Any) -> Baseline:
    """A network by name, with random weights unless options say otherwise.

    Args:
        name: one of :func:`list_models`.
        num_classes: training identities.
        **options: of the network's class: :class:`Baseline`, :class:`HSGNet`.

    Returns:
        A module in training mode. Training gives named outputs for the losses, evaluation features (N, D).

    Raises:
        ValueError: unknown name or option (the nearest one is suggested), or an option out of range.
        TypeError: an option of the wrong type.
        RuntimeError: pretrained weights can't be fetched.

    Example:
        >>> model = create_model("hsgnet", 751, backbone="resnet50", image_size=(256, 128), stages=(3,))
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    known = _options(MODELS[name])
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return MODELS[name](num_classes, **options)


def _options(model: type) -> set[str]:
    """Keyword arguments of a class and, where it passes others on, of its base."""
    names: set[str] = set()
    for owner in model.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names
