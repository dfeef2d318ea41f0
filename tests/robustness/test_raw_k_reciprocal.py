"""Re-ranking's raw operators, which everyone can call: what does not fit is refused, and never a signal.

What the tensors hold is looked at on the CPU only; on a device that would mean waiting for it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.robustness.fuzz.raw_k_reciprocal import ITEMS, LENGTH, NAMES, PLACES, good, operator, running

FAR = 2**63 - 1


def changed(name: str, place: int, value: Any) -> list[Any]:
    arguments = good(name)
    arguments[place] = value(arguments[place]) if callable(value) else value
    return arguments


def moved_on(offsets: torch.Tensor) -> torch.Tensor:
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
