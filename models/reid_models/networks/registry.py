"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .._registry import Registry, check_class
from .._suggest import unknown
from .baseline import Baseline
from .embedding import Embedding
from .network import Network


def _networks(module: ModuleType) -> Mapping[str, type[Network]]:
    """The networks that a room's ``network.py`` defines."""
    return {
        thing.name: thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Network)
        and thing.__module__ == module.__name__
        and "name" in vars(thing)
    }


#: Networks by name: those here and those of the papers.
MODELS: Registry[type[Network]] = Registry(
    "model", {"baseline": Baseline, "embedding": Embedding}, "network", _networks, check_class(Network)
)


def list_models() -> list[str]:
    """Names that :func:`create_model` knows.

    Example:
        >>> list_models()
        ['baseline', 'hsgnet']
    """
    return list(MODELS)


def create_model(name: str, num_classes: int, **options: Any) -> Network:
    """A network by name, with random weights unless options say otherwise.

    Args:
        name: one of :func:`list_models`, or ``package.module:Class`` for a class derived from
            :class:`Network`; that module is imported.
        num_classes: training identities.
        **options: of the network's class.

    Returns:
        A module in training mode. Training gives named outputs for the losses, evaluation features (N, D).

    Raises:
        ValueError: unknown name or option (the nearest one is suggested), or an option out of range.
        TypeError: an option of the wrong type; the name stands for something else.
        RuntimeError: pretrained weights can't be fetched.

    Example:
        >>> model = create_model("hsgnet", 751, backbone="resnet50", image_size=(256, 128), stages=(3,))
    """
    network = MODELS.find(name)
    known = _options(network)
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return network(num_classes, **options)


def model_name(model: Network) -> str:
    """The name by which :func:`create_model` makes such a network."""
    return MODELS.name_of(type(model))


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
