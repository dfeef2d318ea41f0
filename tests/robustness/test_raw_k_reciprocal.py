"""Re-ranking's raw operators, which everyone can call: what does not fit is refused, and never a signal.

What the tensors hold is looked at on the CPU only; on a device that would mean waiting for it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_ops.k_reciprocal import candidates

ITEMS, PLACES, LENGTH = 12, 5, 7
FAR = 2**63 - 1
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


def operator(name: str) -> Any:
    return getattr(torch.ops.reid_ops, f"k_reciprocal_{name}").default


def good(name: str) -> list[Any]:
    """Arguments of a call that is right, each from the stage before; tensors are new ones."""
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(ITEMS, LENGTH, generator=generator)
    state = candidates.State(ITEMS, PLACES, features)
    norms = candidates.norms_of(features)
    block = features @ features.t()
    if name == "nearest":
        return [block, norms, norms, 2, 0, False, 0, 0, state.distances, state.indices, state.largest]
    if name == "products":
        return [features[:4], features[4:], torch.empty(4, ITEMS - 4)]
    if name == "search":
        return [features, torch.empty(4, ITEMS - 4), state.distances, state.indices, state.largest]
    operator("search")(features, None, state.distances, state.indices, state.largest)
    neighbours = state.indices
    if name == "reverse_ranks":
        return [neighbours]
    reverse = operator("reverse_ranks")(neighbours)
    offsets = running(operator("sets")(neighbours, reverse, None, 0, PLACES, 3))
    entries = int(offsets[-1])
    if name == "sets":
        return [neighbours, reverse, offsets, entries, PLACES, 3]
    columns = operator("sets")(neighbours, reverse, offsets, entries, PLACES, 3)
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


def changed(name: str, place: int, value: Any) -> list[Any]:
    arguments = good(name)
    arguments[place] = value(arguments[place]) if callable(value) else value
    return arguments


def moved_on(offsets: Tensor) -> Tensor:
    """Ascending and of the same end, but one row's first entry is the last of the one before."""
    sizes = offsets.diff()
    row = int(sizes.argmax())
    other = (row + 1) % len(sizes)
    sizes[row] -= 1
    sizes[other] += 1
    return running(sizes)


NO_OFFSETS = torch.zeros(0, dtype=torch.int64)
NAMED: dict[str, tuple[str, int, Any]] = {
    "sets, no offsets": ("sets", 2, NO_OFFSETS),
    "sets, offsets that fall": ("sets", 2, lambda offsets: offsets.flip(0)),
    "sets, offsets of other sets": ("sets", 2, moved_on),
    "sets, too few entries": ("sets", 3, lambda entries: entries - 1),
    "sets, entries below 0": ("sets", 3, -1),
    "sets, entries without end": ("sets", 3, FAR),
    "sets, no list": ("sets", 4, 0),
    "pair_distances, no offsets": ("pair_distances", 1, NO_OFFSETS),
    "pair_distances, offsets beyond": ("pair_distances", 1, lambda offsets: offsets + 1),
    "encode, no offsets": ("encode", 2, NO_OFFSETS),
    "encode, no scale": ("encode", 1, torch.zeros(0)),
    "expand, no offsets": ("expand", 1, NO_OFFSETS),
    "expand, columns beyond": ("expand", 2, lambda columns: columns + ITEMS),
    "expand, columns below 0": ("expand", 2, lambda columns: columns - ITEMS),
    "expand, no members": ("expand", 4, 0),
    "expand, members below 0": ("expand", 4, -FAR),
    "expand, weights without offsets": ("expand", 5, None),
    "expand, offsets of other rows": ("expand", 5, moved_on),
    "expand, no expanded offsets": ("expand", 5, NO_OFFSETS),
    "invert, no offsets": ("invert", 0, NO_OFFSETS),
    "invert, columns beyond": ("invert", 1, lambda columns: columns + ITEMS),
    "invert, first row below 0": ("invert", 3, -1),
    "invert, first row beyond": ("invert", 3, ITEMS + 1),
    "invert, first row without end": ("invert", 3, FAR),
    "invert, offsets of other lists": ("invert", 4, moved_on),
    "invert, offsets without weights": ("invert", 2, None),
    "blend, no offsets": ("blend", 6, NO_OFFSETS),
    "blend, columns beyond": ("blend", 7, lambda columns: columns + ITEMS),
    "blend, first row without end": ("blend", 9, FAR),
    "blend, first row below 0": ("blend", 9, -1),
    "blend, no list offsets": ("blend", 10, NO_OFFSETS),
    "blend, rows beyond": ("blend", 11, lambda rows: rows + ITEMS),
    "blend, one sum alone": ("blend", 13, torch.zeros(4)),
    "nearest, first candidate without end": ("nearest", 6, FAR),
    "nearest, itself without end": ("nearest", 7, -FAR - 1),
    "nearest, no places": ("nearest", 8, torch.zeros(ITEMS, 0)),
    "nearest, no terms": ("nearest", 1, None),
    "search, no places": ("search", 2, torch.zeros(ITEMS, 0)),
    "search, more queries than items": ("search", 1, torch.zeros(ITEMS + 1, 0)),
    "search, lists of others": ("search", 3, torch.zeros(ITEMS - 1, PLACES, dtype=torch.int32)),
    "products, other lengths": ("products", 1, torch.zeros(3, LENGTH + 1)),
    "products, no room": ("products", 2, torch.zeros(4, 3)),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_right_is_taken(name: str) -> None:
    operator(name)(*good(name))


@pytest.mark.parametrize("case", NAMED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    name, place, value = NAMED[case]
    with pytest.raises(RuntimeError, match="k_reciprocal: "):
        operator(name)(*changed(name, place, value))


LARGEST = {torch.int64: FAR, torch.int32: 2**31 - 1}
TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x[:0],
    lambda x: x[:1],
    lambda x: x[1:],
    lambda x: x.flip(0),
    lambda x: x.flatten(),
    lambda x: x[None],
    lambda x: x.t() if x.dim() == 2 else x,
    lambda x: torch.cat([x, x]),
    lambda x: x.double(),
    lambda x: x.int(),
    lambda x: x.long(),
    lambda x: x.half(),
    lambda x: x.bool(),
    lambda x: x + 1,
    lambda x: x - 1,
    lambda x: -x,
    lambda x: x * 0,
    lambda x: x * 2**20,
    lambda x: x[..., :0],
    lambda x: x[..., :1].expand_as(x) if x.dim() else x,
    lambda x: x.repeat_interleave(2, 0),
    lambda x: torch.zeros((), dtype=x.dtype),
    lambda x: x.to("meta"),
    lambda x: torch.full_like(x, LARGEST.get(x.dtype, float("nan"))),
    lambda x: torch.full_like(x, -1),
    lambda x: None,
    lambda x: x[torch.randperm(len(x))] if x.dim() else x,
)
NUMBERS = (-FAR - 1, -(2**31), -1, 0, 1, 2, 3, ITEMS, ITEMS + 1, 2**31 - 1, 2**31, 2**62, FAR, 4.5, True)


def fuzz(seed: int, calls: int) -> None:
    """Calls with one to three arguments that are wrong, most likely; prints how many were refused."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    right = {name: good(name) for name in NAMES}
    refused = 0
    for _ in range(calls):
        name = choose.choice(NAMES)
        arguments = [each.clone() if isinstance(each, Tensor) else each for each in right[name]]
        for place in choose.sample(range(len(arguments)), min(len(arguments), choose.choice((1, 1, 2, 3)))):
            if isinstance(arguments[place], Tensor):
                arguments[place] = choose.choice(TENSORS)(arguments[place])
            else:
                arguments[place] = choose.choice(NUMBERS)
        try:
            operator(name)(*arguments)
        except Exception:  # whatever Python sees as one
            refused += 1
    print(refused)


@pytest.mark.parametrize("seed", range(3))
def test_no_call_ends_in_a_signal(seed: int) -> None:
    calls = 4000
    program = f"from tests.robustness.test_raw_k_reciprocal import fuzz; fuzz({seed}, {calls})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert calls / 2 < int(ran.stdout) < calls  # some do no harm, such as an order that does not matter
