"""Samplers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..._registry import Registry, check_class, table
from ..._suggest import unknown
from .base import TrainSampler
from .fitted import FittedSampler
from .identity import IdentitySampler
from .pairs import PairSampler
from .shuffled import ShuffledSampler

#: Samplers by name, with those of papers (``SAMPLERS`` in ``samplers.py``).
SAMPLERS: Registry[type[TrainSampler]] = Registry(
    "sampler",
    {
        "fitted": FittedSampler,
        "identity": IdentitySampler,
        "pairs": PairSampler,
        "shuffled": ShuffledSampler,
    },
    "samplers",
    table("SAMPLERS"),
    check_class(TrainSampler),
)
PROCESSES = ("seed", "rank", "world_size")  # the run's, not the recipe's


def make_sampler(
    options: Mapping[str, Any],
    identities: Sequence[int],
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TrainSampler:
    """A sampler from a recipe's ``data.sampler``: its name and its arguments.

    The name is one in :data:`SAMPLERS`, or ``package.module:Class`` for a class derived from
    :class:`TrainSampler`.

    Args:
        options: ``{"name": "identity", "identities_per_batch": 32, "images_per_identity": 4}``, for example.
        identities: of every image, by index in the dataset.
        seed: as for :class:`TrainSampler`.
        rank: likewise.
        world_size: likewise.

    Raises:
        TypeError, ValueError: no name, an unknown name or argument, or one that the sampler refuses.

    Example:
        >>> sampler = make_sampler({"name": "shuffled", "batch_size": 16}, images.identities)
    """
    arguments = dict(options)
    if "name" not in arguments:
        raise ValueError(f"sampler: name must be given, got {arguments}")
    name = arguments.pop("name")
    make: Any = SAMPLERS.find(name)
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in PROCESSES]
    for argument in arguments:
        if argument not in known:
            raise unknown(f"argument of sampler {name}", argument, known)
    made: TrainSampler = make(identities, **arguments, seed=seed, rank=rank, world_size=world_size)
    return made
