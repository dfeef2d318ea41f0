"""Reference of :func:`reid_ops.similarity_graph` and :class:`reid_ops.HSGM`: HSGNet in pure PyTorch.

Equation numbers are the paper's. Everything works on any device and is differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Map", "average_pool", "divide", "graph_within", "hsgm", "neighbor_offsets", "similarity_graph"]


# ------------------------------------------------------------------------------------------ the graph


def similarity_graph(
    values: Tensor,
    theta: Tensor | None = None,
    *,
    neighborhood: int | tuple[str, float] | None = None,
    include_self: bool = False,
    edges: str = "softmax",
    form: str = "sparse",
) -> Tensor:
    """Aggregates every node with its neighbours, ``((I + E) v) * theta`` (Eqs. 3-5 and 8).

    ``form="sparse"`` keeps a list of each node's neighbours, ``form="dense"`` builds the whole matrix E.
    Half types are computed in float32. Shapes, ranges and readings of Eq. 3 are those of
    :func:`reid_ops.similarity_graph`.
    """
    half = values.dtype in (torch.float16, torch.bfloat16)
    nodes = values.float() if half else values
    grid = nodes if nodes.dim() == 3 else nodes.unsqueeze(1)  # a chain is a grid of one row
    offsets = neighbor_offsets(neighborhood, values.dim() == 3, include_self)
    aggregate = {"sparse": _aggregate_sparse, "dense": _aggregate_dense}[form]
    result = (grid + aggregate(grid, offsets, edges)).view_as(nodes)  # Eq. 4
    if theta is not None:
        result = result * (theta.float() if half else theta)  # Eq. 5
    return result.to(values.dtype)


def neighbor_offsets(
    neighborhood: int | tuple[str, float] | None, grid: bool, include_self: bool
) -> list[tuple[int, int]]:
    """Row and column offsets of a node's neighbours: all within a squared distance."""
    if not grid:
        squared = (1 if neighborhood is None else int(neighborhood)) ** 2  # type: ignore[arg-type]
    elif isinstance(neighborhood, (tuple, list)):
        squared = int(neighborhood[1] ** 2 + 1e-9)
    else:
        squared = {None: 1, 4: 1, 8: 2}[neighborhood]
    return _offsets_within(squared, grid, include_self)


def graph_within(grid: Tensor, squared: int, include_self: bool, edges: str) -> Tensor:
    """``(I + E) v`` of grids (B, H, W) whose nodes are neighbours within a squared distance."""
    return grid + _aggregate_sparse(grid, _offsets_within(squared, grid.shape[1] > 1, include_self), edges)


def _offsets_within(squared: int, grid: bool, include_self: bool) -> list[tuple[int, int]]:
    reach = int(squared**0.5)
    rows = range(-reach, reach + 1) if grid else range(1)
    return [
        (row, column)
        for row in rows
        for column in range(-reach, reach + 1)
        if row**2 + column**2 <= squared and (include_self or (row, column) != (0, 0))
    ]


def _weights(nodes: Tensor, neighbors: Tensor, exists: Tensor, edges: str) -> Tensor:
    """Rows of E (Eq. 3): ``nodes`` (..., 1) against their ``neighbors`` (..., J), 0 where none exists."""
    logits = {
        "softmax": lambda: neighbors.expand_as(exists * neighbors),
        "printed": lambda: neighbors.expand_as(exists * neighbors),
        "product": lambda: nodes * neighbors,
        "negdist": lambda: -(nodes - neighbors).abs(),
        "none": lambda: torch.zeros_like(neighbors),
    }[edges]()
    # A row without any neighbour (a map of one node) must give zeros, not 0/0.
    nothing = exists.any(-1, keepdim=True).to(logits.dtype) * torch.finfo(logits.dtype).min
    logits = torch.where(exists, logits, nothing)
    if edges == "none":
        return torch.zeros_like(logits)
    if edges == "printed":  # exp(V_i) / sum_j exp(V_j): the numerator does not depend on j
        return torch.exp(nodes - logits.logsumexp(-1, keepdim=True)) * exists
    return torch.softmax(logits, -1) * exists


def _aggregate_sparse(grid: Tensor, offsets: Sequence[tuple[int, int]], edges: str) -> Tensor:
    """E v from a list of neighbours: one shifted copy of the grid for every offset."""
    if not offsets:
        return torch.zeros_like(grid)
    height, width = grid.shape[-2:]
    reach = max(max(abs(row), abs(column)) for row, column in offsets)
    padded = F.pad(grid, (reach,) * 4)
    inside = F.pad(torch.ones_like(grid[:1], dtype=torch.bool), (reach,) * 4)

    def shifted(map_: Tensor) -> Tensor:
        return torch.stack(
            [
                map_[:, reach + row : reach + row + height, reach + column : reach + column + width]
                for row, column in offsets
            ],
            -1,
        )

    neighbors = shifted(padded)
    weights = _weights(grid.unsqueeze(-1), neighbors, shifted(inside), edges)
    return (weights * neighbors).sum(-1)


def _aggregate_dense(grid: Tensor, offsets: Sequence[tuple[int, int]], edges: str) -> Tensor:
    """E v from the whole matrix E, d x d for d nodes."""
    batch, height, width = grid.shape
    row = torch.arange(height, device=grid.device).repeat_interleave(width)
    column = torch.arange(width, device=grid.device).repeat(height)
    down, across = row - row[:, None], column - column[:, None]
    exists = torch.zeros_like(down, dtype=torch.bool)
    for row_offset, column_offset in offsets:
        exists |= (down == row_offset) & (across == column_offset)
    nodes = grid.flatten(1)
    matrix = _weights(nodes.unsqueeze(-1), nodes.unsqueeze(-2), exists, edges)
    return torch.bmm(matrix, nodes.unsqueeze(-1)).view(batch, height, width)


# ----------------------------------------------------------------------------------------- the module


class Map(NamedTuple):
    """One of the maps a level divides the features into: rows and columns ``[begin, end)``."""

    top: int
    bottom: int
    left: int
    right: int


def divide(height: int, width: int, rows: int, columns: int) -> list[Map]:
    """Cuts a map into ``rows x columns``; part r begins at ``floor(r * height / rows)``, so none is empty."""
    top = [height * row // rows for row in range(rows + 1)]
    left = [width * column // columns for column in range(columns + 1)]
    return [Map(top[r], top[r + 1], left[c], left[c + 1]) for r in range(rows) for c in range(columns)]


def average_pool(squeezed: Tensor, k: int, pooling: str = "same") -> Tensor:
    """AP_k of maps (N, h, w) with the size kept (Eq. 2).

    ``same``: stride 1, (k-1)//2 before and the rest after, divided by the number of pixels inside.
    ``same_padded``: the same, divided by k*k. ``stride``: stride k, then every mean in its k x k place.
    ``valid``: windows wholly inside (shrunk to the map where it is smaller), nearest to each pixel.
    ``stride_bilinear``, ``valid_bilinear``: means at stride k, or of all windows wholly inside, up-sampled.
    """
    if pooling in ("stride_bilinear", "valid_bilinear"):
        windows = [min(k, size) for size in squeezed.shape[-2:]]  # the last ones of a stride may be smaller
        stride = k if pooling == "stride_bilinear" else 1
        means = F.avg_pool2d(squeezed.unsqueeze(1), windows, stride, ceil_mode=True, count_include_pad=False)
        return F.interpolate(means, squeezed.shape[-2:], mode="bilinear").squeeze(1)
    for axis in (-2, -1):
        size = squeezed.shape[axis]
        position = torch.arange(size, device=squeezed.device)
        if pooling == "stride":
            first = position // k * k
            last = first + k
        elif pooling == "valid":
            window = min(k, size)
            first = position * (size - window + 1) // size
            last = first + window
        else:
            first = position - (k - 1) // 2
            last = first + k
        inside = (position >= first[:, None]) & (position < last[:, None])  # output x input
        count = k if pooling == "same_padded" else inside.sum(1, keepdim=True)
        matrix = inside.to(squeezed.dtype) / count
        squeezed = (squeezed.movedim(axis, -1).unsqueeze(-2) * matrix).sum(-1).movedim(-1, axis)
    return squeezed


def hsgm(
    x: Tensor,
    theta: Tensor | None,
    delta: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    divisions: Sequence[tuple[int, int]],
    scales: Sequence[int] = (1, 2, 3),
    neighborhood: int | tuple[str, float] = 4,
    channel_window: int = 1,
    include_self: bool = False,
    edges: str = "softmax",
    channel_edges: str | None = None,
    pooling: str = "same",
    upsample: str = "stitch",
    residual: bool = True,
    aggregate_scale: float = 1.0,
    negative_slope: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: Any = None,
    form: str = "sparse",
) -> Tensor:
    """The whole module on features ``x`` (N, C, H, W).

    ``divisions`` holds rows and columns of maps for each level, ``theta`` (levels, scales, H, W) lies on the
    features (a map's part of it is cut out like the map), ``delta``, ``weight``, ``bias`` and the running
    statistics are (maps, C). ``theta`` None: no spatial graph; ``delta`` None: no channel graph.
    ``channel_edges``: reading of Eq. 3 of the channel graphs where it is not ``edges``. ``upsample`` and the
    other options are as in :class:`reid_ops.HSGM`, ``form`` (of the graphs) as in :func:`similarity_graph`.
    """
    precise = torch.float64 if x.dtype == torch.float64 else torch.float32
    options: dict[str, Any] = {"include_self": include_self, "form": form}
    height, width = x.shape[-2:]
    result: Tensor | float = 0.0
    levels: list[list[Tensor]] = []
    index = 0
    for level, (rows, columns) in enumerate(divisions):
        outputs = []
        for top, bottom, left, right in divide(height, width, rows, columns):
            part = x[:, :, top:bottom, left:right]
            spatial = channel = None
            if theta is not None:
                squeezed = part.mean(1, dtype=precise)  # Eq. 1
                spatial = squeezed.new_zeros(())
                for scale, k in enumerate(scales):
                    nodes = average_pool(squeezed, k, pooling)  # Eq. 2
                    own_theta = theta[level, scale, top:bottom, left:right]
                    spatial = spatial + similarity_graph(
                        nodes, own_theta, neighborhood=neighborhood, edges=edges, **options
                    )  # Eqs. 3-6
                spatial = spatial.unsqueeze(1)
            if delta is not None:
                means = part.mean((2, 3), dtype=precise)  # Eq. 7
                channel = similarity_graph(
                    means, delta[index], neighborhood=channel_window, edges=channel_edges or edges, **options
                )  # Eq. 8
                channel = channel[:, :, None, None]
            if spatial is not None and channel is not None:
                product = spatial * channel  # Eq. 9
            elif spatial is not None:
                product = spatial.expand(part.shape)
            elif channel is not None:
                product = channel.expand(part.shape)
            else:
                product = part.to(precise)
            statistics = (None, None) if running_mean is None or running_var is None else (
                running_mean[index], running_var[index]
            )  # fmt: skip
            normalized = _batch_norm(
                product, statistics, weight[index], bias[index], training, momentum, eps, group
            )
            output = F.leaky_relu(normalized, negative_slope)  # Eq. 10
            outputs.append(output + part if residual else output)  # Eq. 11
            index += 1
        if upsample == "interp":
            levels.append(outputs)
            continue
        # A level's maps are stitched to the whole extent again and added to the level above.
        stitched = [torch.cat(outputs[row : row + columns], 3) for row in range(0, rows * columns, columns)]
        result = result + torch.cat(stitched, 2)
    if upsample == "interp":
        result = _interpolated(levels, divisions)
    assert isinstance(result, Tensor)
    if aggregate_scale != 1.0:
        result = result * aggregate_scale
    return result.to(x.dtype)


def _interpolated(levels: Sequence[list[Tensor]], divisions: Sequence[tuple[int, int]]) -> Tensor:
    """From the last level up, each map is brought to its parent's size and added to it."""
    for level in reversed(range(1, len(levels))):
        (parent_rows, parent_columns), (rows, columns) = divisions[level - 1], divisions[level]
        for index, child in enumerate(levels[level]):
            row, column = index // columns, index % columns
            above = row * parent_rows // rows * parent_columns + column * parent_columns // columns
            parent = levels[level - 1][above]
            levels[level - 1][above] = parent + F.interpolate(child, parent.shape[2:], mode="bilinear")
    return levels[0][0]


def _batch_norm(
    product: Tensor,
    statistics: tuple[Tensor | None, Tensor | None],
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    group: Any,
) -> Tensor:
    """Batch norm; with a process group, over the batches of all its processes."""
    if group is None or not training:
        return F.batch_norm(product, *statistics, weight, bias, training, momentum, eps)
    from torch.distributed.nn.functional import all_reduce  # differentiable

    count = product.new_tensor(product.numel() // product.shape[1])
    count = all_reduce(count, group=group)
    divisor = count.clamp(min=1)  # all batches may be empty: the running statistics then stay
    mean = all_reduce(product.sum((0, 2, 3)), group=group) / divisor
    centred = product - mean[:, None, None]
    variance = all_reduce(centred.square().sum((0, 2, 3)), group=group) / divisor
    running_mean, running_var = statistics
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, batch in ((running_mean, mean), (running_var, unbiased)):
                blended = running.lerp(batch.to(running.dtype), momentum)
                running.copy_(torch.where(count > 0, blended, running))
    scale = weight * torch.rsqrt(variance + eps)
    return centred * scale[:, None, None] + bias[:, None, None]
