"""Operators called past the Python functions: their own checks refuse, and nothing ends in a signal."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import Backend

# What fuzzing found, or would find with luck: (operator, arguments, what its refusal says).
RULE = [2**32, 1, 1, 2**16, 1, 3, 0, 0, 0, 1]
NO_CHANNELS = [torch.zeros(1, 0, 3, 3), None, torch.zeros(1, 0, 3, 3), torch.zeros(1, 2, 0, 3, 3)]
BYTES = [torch.zeros(1, 3, 4, 4, dtype=torch.uint8), None, None, 1, 0, 4, 4, 0, 0, [0.5] * 3, [0.5] * 3]
NAMED: dict[str, tuple[str, list[Any], str]] = {
    "nothing to erase": (
        "polygon_erase_",
        [None, None, 1, 0, RULE, [], False],
        "images must be a torch.Tensor",
    ),
    "channels of a gradient": (
        "part_correlation_backward",
        [*NO_CHANNELS, None, None, None, 1, [True, True]],
        "at least one channel",
    ),
    "one element for all": (
        "polygon_erase_",
        [torch.zeros(()).expand(2, 3, 4, 4), None, 1, 0, RULE, [0.0, 1.0], False],
        "must not overlap itself",
    ),
    "a side beyond all memory": (
        "similarity_graph_statistics",
        [torch.zeros(1, 1, 1), *[torch.zeros(1, 1, dtype=torch.float64)] * 2, 2**62, 2**62, [1], [1]],
        "H, W <= 32768",
    ),
    "a rule of one number": ("augment", [*BYTES, [1], [0.0], [], [], torch.float32], "must have 10 numbers"),
}


@pytest.mark.parametrize("case", NAMED)
def test_named_calls_are_refused(backend: Backend, case: str) -> None:
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    name, arguments, message = NAMED[case]
    with pytest.raises((RuntimeError, TypeError), match=message):
        getattr(getattr(torch.ops, backend.library), name)(*arguments)
