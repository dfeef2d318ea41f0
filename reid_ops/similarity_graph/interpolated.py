"""HSGM with interpolated children (``upsample="interp"``): the passes over the features, level by level.

Every level's maps, stitched, are brought to the whole extent by two small matrices, over rows and over
columns: interpolating a child to its parent's size, adding children, and that again one level up are all
linear. So the kernels run per level, and matrix products do the rest, in float32 (float64 for such features).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _dispatch
from .plan import Plan


def to_whole_extent(parts: Sequence[int], size: int, like: Tensor) -> list[Tensor]:
    """Along one axis, each level's matrix (size, size) from its stitched maps to the whole extent."""
    whole = [torch.eye(size, dtype=like.dtype, device=like.device)]
    for parents, children in itertools.pairwise(parts):
        one_up = torch.zeros_like(whole[0])
        for child in range(children):
            begin, end = size * child // children, size * (child + 1) // children
            parent = child * parents // children
            top, bottom = size * parent // parents, size * (parent + 1) // parents
            unit = torch.eye(end - begin, dtype=like.dtype, device=like.device).unsqueeze(0)
            one_up[top:bottom, begin:end] = F.interpolate(unit, size=bottom - top, mode="linear")[0].T
        whole.append(whole[-1] @ one_up)
    return whole


def excite(x: Tensor, centred: Tensor, scale: Tensor, shift: Tensor, plan: Plan) -> Tensor:
    """Eqs. 9-11, every level's result interpolated up to the whole: ``y``, like ``x``."""
    with torch.autocast(x.device.type, enabled=False):
        features = x.to(centred.dtype)
        y = torch.zeros_like(features)
        for down, across, own in _levels(features, centred, scale, shift, plan):
            level = _dispatch.operators().similarity_graph_excite(
                features, *own, plan.residual / len(plan.rows), plan.factor, plan.negative_slope
            )
            y += down @ level @ across.T
    return _like(y, x)


def backward(
    grad_y: Tensor, centred: Tensor, scale: Tensor, shift: Tensor, plan: Plan
) -> tuple[tuple[Tensor, Tensor, Tensor], Callable[[Tensor | None, Tensor | None], Tensor]]:
    """The sums over ``grad_y`` by level, map and channel; and what makes ``grad_x`` of it later."""
    ops = _dispatch.operators()
    sums = []
    with torch.autocast(grad_y.device.type, enabled=False):
        grad = grad_y.to(centred.dtype)
        passed_on = torch.zeros_like(grad)
        for down, across, own in _levels(grad, centred, scale, shift, plan):
            grad_level = (down.T @ grad @ across).contiguous()
            sums.append(ops.similarity_graph_sums(grad_level, *own, plan.factor, plan.negative_slope))
            passed_on += grad_level * (plan.residual / len(plan.rows))
    planes, totals, moments = (torch.cat(found, 1) for found in zip(*sums, strict=True))

    def input_gradient(grad_squeezed: Tensor | None, grad_means: Tensor | None) -> Tensor:
        grad_x = ops.similarity_graph_input(passed_on, grad_squeezed, grad_means, *plan.maps, 1.0)
        return _like(grad_x, grad_y)

    return (planes, totals, moments), input_gradient


def _levels(
    features: Tensor, centred: Tensor, scale: Tensor, shift: Tensor, plan: Plan
) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, list[int], list[int]]]]:
    """Each level's two matrices, and its own part of the tables with its rows and columns of maps."""
    matrices = [
        to_whole_extent(parts, size, features)
        for parts, size in zip((plan.rows, plan.columns), features.shape[2:], strict=True)
    ]
    first = 0
    for level, (rows, columns) in enumerate(zip(plan.rows, plan.columns, strict=True)):
        maps = slice(first, first + rows * columns)
        first = maps.stop
        tables = (centred[:, level : level + 1], scale[:, maps], shift[:, maps])
        owned = tuple(table.contiguous() for table in tables)
        yield matrices[0][level], matrices[1][level], (owned[0], owned[1], owned[2], [rows], [columns])


def _like(result: Tensor, features: Tensor) -> Tensor:
    """In the features' dtype and layout."""
    last = not features.is_contiguous() and features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return result.to(features.dtype).contiguous(memory_format=layout)
