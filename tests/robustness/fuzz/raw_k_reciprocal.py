"""Right calls of re-ranking's raw operators, each from the stage before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reid_ops.k_reciprocal import candidates

from .chance import Chance

ITEMS, PLACES, LENGTH = 12, 5, 7
NAMES = (
    "nearest",
    "products",
    "search",
    "reverse_ranks",
    "sets",
    "pair_distances",
    "encode",
    "expand",
    "invert",
    "blend",
)


def drawn(name: str, chance: Chance) -> list[Any]:
    """A right call of any sizes."""
    items = chance.size(20, 6)
    return good(name, items, chance.size(5, 2), chance.size(40), chance.randrange(1000))


def operator(name: str) -> Any:
    return getattr(torch.ops.reid_ops, f"k_reciprocal_{name}").default


def good(
    name: str, items: int = ITEMS, places: int = PLACES, length: int = LENGTH, seed: int = 3
) -> list[Any]:
    """Arguments of a call that is right, for so many items and neighbours; tensors are new ones."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(items, length, generator=generator)
    state = candidates.State(items, places, features)
    norms = candidates.norms_of(features)
    block = features @ features.t()
    if name == "nearest":
        return [block, norms, norms, 2, 0, False, 0, 0, state.distances, state.indices, state.largest]
    if name == "products":
        return [features[:4], features[4:], torch.empty(4, items - 4)]
    if name == "search":
        return [features, torch.empty(4, items - 4), state.distances, state.indices, state.largest]
    operator("search")(features, None, state.distances, state.indices, state.largest)
    neighbours = state.indices
    if name == "reverse_ranks":
        return [neighbours]
    reverse = operator("reverse_ranks")(neighbours)
    offsets = running(operator("sets")(neighbours, reverse, None, 0, places, 3))
    entries = int(offsets[-1])
    if name == "sets":
        return [neighbours, reverse, offsets, entries, places, 3]
    columns = operator("sets")(neighbours, reverse, offsets, entries, places, 3)
    if name == "pair_distances":
        return [features, offsets, columns]
    distances = operator("pair_distances")(features, offsets, columns)
    if name == "encode":
        return [distances, 1 / state.largest, offsets]
    weights = operator("encode")(distances, 1 / state.largest, offsets)
    wide = running(operator("expand")(neighbours, offsets, columns, None, 2, None, 0)[0])
    if name == "expand":
        return [neighbours, offsets, columns, weights, 2, wide, int(wide[-1])]
    lists = running(operator("invert")(offsets, columns, None, 4, None, 0)[0])
    if name == "invert":
        return [offsets, columns, weights, 4, lists, int(lists[-1])]
    inverse = operator("invert")(offsets, columns, weights, 4, lists, int(lists[-1]))
    part = block[:4, 4:].contiguous()
    terms = (norms[:4], norms[4:], 2, 0, None)
    return [part, *terms, offsets, columns, weights, 0, lists, *inverse, None, None, 0.3]


def running(sizes: Tensor) -> Tensor:
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
