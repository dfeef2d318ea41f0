"""HSGM's fused forward and backward pass over the operators ``similarity_graph_*``.

docs/hsgm.md derives the formulas; csrc/similarity_graph/kernels.h names the tensors. Forward reads the
features twice and writes once, backward reads the output's gradient twice and writes once. Kept in
between are tables of images, maps and channels (their sizes: docs/hsgm.md), not the features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd.function import once_differentiable

from .. import _dispatch
from . import interpolated
from .plan import OP, Plan, map_sizes


def pixels_of_maps(plan: Plan, like: Tensor, height: int, width: int) -> Tensor:
    """:func:`map_sizes` (maps,) as ``like``'s dtype, on its device.

    Filled there, a run of equal sizes at a time: copying from the host would stop a CUDA graph.
    """
    runs = itertools.groupby(map_sizes(plan, height, width))
    return torch.cat([like.new_full((len(list(run)),), size) for size, run in runs])


def all_reduce(tensor: Tensor, group: Any) -> Tensor:
    """The sum over the group's processes; without a group, the tensor itself."""
    if group is None:
        return tensor
    tensor = tensor.contiguous()
    torch.distributed.all_reduce(tensor, group=group)
    return tensor


def fused(
    x: Tensor,
    theta: Tensor | None,
    delta: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    plan: Plan,
    group: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``y`` and the batch's mean, biased variance (maps, C) and number of values (maps,) over all processes.

    ``statistics``: mean and variance to normalise with (evaluation); None: those of the batch.
    """
    mean, variance = (None, None) if statistics is None else statistics
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    if transformed:
        _refuse_second_derivatives()
    function = _Functional if transformed else _Fused
    y, batch_mean, batch_variance, counts, *_ = function.apply(
        x, theta, delta, weight, bias, mean, variance, plan, group
    )
    return y, batch_mean, batch_variance, counts


def evaluate(
    x: Tensor,
    theta: Tensor | None,
    delta: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    plan: Plan,
) -> Tensor:
    """``y`` with given statistics and no gradient: one operator, on the CPU one read of ``x`` from memory."""
    inverse = (variance.double() + plan.eps).rsqrt()
    y: Tensor = _dispatch.operators().similarity_graph_evaluate(
        x, theta, delta, weight, bias, mean.double(), inverse, *plan.maps, list(plan.scales), plan.pooling,
        plan.radius_squared, plan.channel_radius_squared, plan.include_self, plan.edges, plan.channel_edges,
        plan.residual, plan.factor, plan.negative_slope,
    )  # fmt: skip
    return y


def _reshaped(channel_values: Tensor) -> Tensor:
    """(..., C) as chains: grids of one row."""
    return channel_values.reshape(-1, 1, channel_values.shape[-1])


def _excite(x: Tensor, centred: Tensor, scale: Tensor, shift: Tensor, plan: Plan) -> Tensor:
    """Eqs. 9-11: one read, one write."""
    y: Tensor = _dispatch.operators().similarity_graph_excite(
        x, centred, scale, shift, *plan.maps, plan.residual, plan.factor, plan.negative_slope
    )
    return y


def _backward(
    grad_y: Tensor, centred: Tensor, scale: Tensor, shift: Tensor, plan: Plan
) -> tuple[tuple[Tensor, Tensor, Tensor], Callable[[Tensor | None, Tensor | None], Tensor]]:
    """The sums over ``grad_y``, one read; and what makes ``grad_x`` of it later, one read and one write."""
    ops = _dispatch.operators()
    sums = ops.similarity_graph_sums(
        grad_y, centred, scale, shift, *plan.maps, plan.factor, plan.negative_slope
    )

    def input_gradient(grad_squeezed: Tensor | None, grad_means: Tensor | None) -> Tensor:
        grad_x: Tensor = ops.similarity_graph_input(
            grad_y, grad_squeezed, grad_means, *plan.maps, plan.residual
        )
        return grad_x

    return sums, input_gradient


def _run_forward(
    x: Tensor,
    theta: Tensor | None,
    delta: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    given_mean: Tensor | None,
    given_variance: Tensor | None,
    plan: Plan,
    group: Any,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[Tensor | None, ...]]:
    """What :func:`fused` returns, and what backward needs besides."""
    ops = _dispatch.operators()
    images, _, height, width = x.shape
    size = (height, width, *plan.maps)
    squeezed, means = ops.similarity_graph_squeeze(x, *plan.maps)  # Eqs. 1, 7

    pooled = aggregate = None
    if theta is not None:  # Eqs. 2-6
        centred, mean, spread, pooled, aggregate = ops.similarity_graph_nodes(
            squeezed, theta, *plan.spatial_graph
        )
    else:
        centred = squeezed.new_zeros(images, len(plan.rows), height, width)
        mean = squeezed.new_ones(images, means.shape[1], dtype=torch.float64)
        spread = torch.zeros_like(mean)

    channel_aggregate = None
    if delta is not None:  # Eq. 8
        channel, channel_aggregate = ops.similarity_graph(
            _reshaped(means), _reshaped(delta), *plan.channel_graph, True
        )
        channel = channel.view(means.shape)
    else:
        channel = torch.ones_like(means)

    count = mean.new_full((), images)
    if given_mean is None or given_variance is None:
        batch_mean, batch_variance = ops.similarity_graph_statistics(channel, mean, spread, *size)
        if group is not None:
            batch_mean, batch_variance, count = _joint(batch_mean, batch_variance, count, group)
    else:
        batch_mean, batch_variance = given_mean.double(), given_variance.double()
    counts = count * pixels_of_maps(plan, count, height, width)
    inverse = (batch_variance + plan.eps).rsqrt()
    scale, shift = ops.similarity_graph_affine(channel, mean, weight, bias, batch_mean, inverse, *size)
    excite = interpolated.excite if plan.interpolated else _excite
    y = excite(x, centred, scale, shift, plan)  # Eqs. 9-11
    between = (
        means, centred, mean, spread, pooled, aggregate, channel, channel_aggregate, scale, shift, inverse,
    )  # fmt: skip
    return (y, batch_mean, batch_variance, counts), between


def _save(
    ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], between: tuple[Tensor | None, ...]
) -> None:
    _, theta, delta, weight, _, given_mean, _, plan, group = inputs
    _, batch_mean, _, counts = outputs
    ctx.save_for_backward(theta, delta, weight, batch_mean, counts, *between)
    ctx.plan, ctx.group, ctx.uses_batch = plan, group, given_mean is None
    ctx.set_materialize_grads(False)


def _run_backward(ctx: Any, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 9
    ops, plan = _dispatch.operators(), ctx.plan
    (
        theta, delta, weight, batch_mean, counts, means, centred, mean, spread, pooled, aggregate, channel,
        channel_aggregate, scale, shift, inverse,
    ) = ctx.saved_tensors  # fmt: skip
    height, width = grad_y.shape[2:]
    size = (height, width, *plan.maps)
    passes = interpolated.backward if plan.interpolated else _backward
    (sums, total, moment), input_gradient = passes(grad_y, centred, scale, shift, plan)
    normalized = (channel, mean, weight, batch_mean, inverse)
    grad_weight, grad_bias = ops.similarity_graph_affine_sums(total, moment, *normalized, *size)

    mean_total, mean_moment = torch.zeros_like(grad_bias), torch.zeros_like(grad_weight)
    if ctx.uses_batch:
        joint = all_reduce(torch.stack([grad_bias, grad_weight]), ctx.group)
        mean_total, mean_moment = (joint / counts.clamp(min=1)[:, None]).unbind()
    grad_channel, offset, slope = ops.similarity_graph_affine_backward(
        total, moment, channel, mean, spread, *normalized[2:], mean_total, mean_moment, *size
    )

    grad_theta = grad_squeezed = grad_delta = grad_means = None
    if theta is not None:
        grad_nodes, grad_squeezed = ops.similarity_graph_nodes_backward(
            sums, centred, offset, slope, pooled, theta, *plan.spatial_graph
        )
        grad_theta = (grad_nodes.unsqueeze(2) * aggregate).sum(0)
    if delta is not None:
        grad_delta = (grad_channel * channel_aggregate.view(grad_channel.shape)).sum(0)
        grad_means = ops.similarity_graph_backward(
            _reshaped(grad_channel), _reshaped(means), _reshaped(delta), *plan.channel_graph
        ).view(grad_channel.shape)
    grad_x = None
    if ctx.needs_input_grad[0]:
        grad_x = input_gradient(grad_squeezed, grad_means)
    return (
        grad_x, grad_theta, grad_delta, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype),
        None, None, None, None,
    )  # fmt: skip


def _refuse_second_derivatives() -> None:
    """Of a transform inside another; what follows forward and backward themselves is refused by torch."""
    differentiating = (TransformType.Grad, TransformType.Jvp)
    levels = [level.key() in differentiating for level in retrieve_all_functorch_interpreters()]
    if sum(levels) > 1:
        raise NotImplementedError(f'{OP}: impl="fused" is once differentiable; use impl="reference"')


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        outputs, between = _run_forward(*inputs)
        _save(ctx, inputs, outputs, between)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _run_backward(ctx, grad_y)


class _Functional(torch.autograd.Function):
    """The same for ``torch.func``, whose transforms save nothing but inputs and outputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        (y, *tables), between = _run_forward(*inputs)
        views = [table.view_as(table) for table in tables]  # given statistics may be inputs themselves
        return y, *views, *(y.new_empty(0) if tensor is None else tensor for tensor in between)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _save(ctx, inputs, output[:4], output[4:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _run_backward(ctx, grad_y)


def _joint(mean: Tensor, variance: Tensor, count: Tensor, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of all processes' batches: their means first, then squares around the joint mean."""
    mean, variance = (torch.where(count > 0, table, 0) for table in (mean, variance))  # 0/0 of no images
    gathered = all_reduce(torch.cat([(mean * count).flatten(), count.view(1)]), group)
    images = gathered[-1]
    divisor = images.clamp(min=1)
    joint_mean = gathered[:-1].view(mean.shape) / divisor
    squares = all_reduce((variance + (mean - joint_mean).square()) * count, group)
    return joint_mean, squares / divisor, images


@_dispatch.registers
def _register(library: str) -> None:
    """Fake kernels: shapes for tracing. Gradients are in ``_Fused``: they may have to ask other processes."""

    def precise(x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 else torch.float32

    def number_of_maps(rows: Sequence[int], columns: Sequence[int]) -> int:
        return sum(down * across for down, across in zip(rows, columns, strict=True))

    def like_features(x: Tensor) -> Tensor:
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        return torch.empty_like(x if dense else x.contiguous())

    @torch.library.register_fake(f"{library}::similarity_graph_squeeze")
    def _(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, channels, height, width = x.shape
        squeezed = x.new_empty(images, height, width, dtype=precise(x))
        return squeezed, x.new_empty(images, number_of_maps(rows, columns), channels, dtype=precise(x))

    @torch.library.register_fake(f"{library}::similarity_graph_nodes")
    def _(
        squeezed: Tensor, theta: Tensor, rows: Sequence[int], columns: Sequence[int], *_: Any
    ) -> tuple[Tensor, ...]:
        images, height, width = squeezed.shape
        levels, scales = theta.shape[:2]
        maps = squeezed.new_empty(images, number_of_maps(rows, columns), dtype=torch.float64)
        nodes = squeezed.new_empty(images, levels, scales, height, width)
        centred = squeezed.new_empty(images, levels, height, width)
        return centred, maps, torch.empty_like(maps), nodes, torch.empty_like(nodes)

    @torch.library.register_fake(f"{library}::similarity_graph_nodes_backward")
    def _(sums: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(sums), torch.empty_like(sums)

    @torch.library.register_fake(f"{library}::similarity_graph_statistics")
    def _(channel: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        table = channel.new_empty(channel.shape[1:], dtype=torch.float64)
        return table, torch.empty_like(table)

    @torch.library.register_fake(f"{library}::similarity_graph_affine")
    def _(channel: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(channel), torch.empty_like(channel)

    @torch.library.register_fake(f"{library}::similarity_graph_affine_sums")
    def _(total: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        table = total.new_empty(total.shape[1:], dtype=torch.float64)
        return table, torch.empty_like(table)

    @torch.library.register_fake(f"{library}::similarity_graph_affine_backward")
    def _(total: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        maps = total.new_empty(total.shape[:2])
        return torch.empty_like(total), maps, torch.empty_like(maps)

    @torch.library.register_fake(f"{library}::similarity_graph_excite")
    def _(x: Tensor, *_: Any) -> Tensor:
        return like_features(x)

    @torch.library.register_fake(f"{library}::similarity_graph_evaluate")
    def _(x: Tensor, *_: Any) -> Tensor:
        return like_features(x)

    @torch.library.register_fake(f"{library}::similarity_graph_sums")
    def _(grad_y: Tensor, centred: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(centred), torch.empty_like(scale), torch.empty_like(scale)

    @torch.library.register_fake(f"{library}::similarity_graph_input")
    def _(grad_y: Tensor, *_: Any) -> Tensor:
        return like_features(grad_y)
