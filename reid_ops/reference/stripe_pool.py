"""Reference of :func:`reid_ops.stripe_pool`: the specification in code, pure PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["stripe_pool", "stripe_windows"]


def stripe_windows(stripes: int) -> list[tuple[int, int]]:
    """The windows as (first stripe, one past the last): widest first, then from the top down.

    ``stripes=3``: ``[(0, 3), (0, 2), (1, 3), (0, 1), (1, 2), (2, 3)]`` (hybrid attention, section III-C).
    """
    return [
        (first, first + length) for length in range(stripes, 0, -1) for first in range(stripes - length + 1)
    ]


def stripe_pool(x: Tensor, stripes: int = 6, *, stacked: bool = False) -> tuple[Tensor, Tensor] | Tensor:
    """Maximum and mean of every run of consecutive stripes, one window at a time.

    Shapes and ranges are those of :func:`reid_ops.stripe_pool`; this one works on any device and dtype, and
    autograd differentiates it. The gradient of a maximum goes to the first of equal ones. It is the formula
    alone and checks nothing.
    """
    rows = x.shape[2] // stripes
    windows = [x[:, :, rows * first : rows * end].flatten(2) for first, end in stripe_windows(stripes)]
    maximum = torch.stack([window.max(-1).values for window in windows], 1)
    mean = torch.stack([window.mean(-1) for window in windows], 1)
    return torch.stack([maximum, mean], 2) if stacked else (maximum, mean)
