"""Neighbour-similarity graphs: kernels behind autograd (HSGNet, Eqs. 3-5 and 8). HSGM: :mod:`.hsgm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _checks, _dispatch
from ..reference.similarity_graph import graph_within

__all__ = ["similarity_graph"]

EDGES = {
    "none": 0,
    "softmax": 1,
    "printed": 2,
    "product": 3,
    "negdist": 4,
}  # csrc/similarity_graph/kernels.h: Edges
MAX_REACH = 181  # the squared distance to a neighbour is at most 2**15

_OP = "similarity_graph"


def similarity_graph(
    values: Tensor,
    theta: Tensor | None = None,
    *,
    neighborhood: int | tuple[str, float] | None = None,
    include_self: bool = False,
    edges: str = "softmax",
) -> Tensor:
    r"""Adds to every node a similarity-weighted mean of its neighbours: ``((I + E) v) * theta``.

    HSGNet, Eqs. 3-5 for a grid (spatial graph) and Eq. 8 for a chain (channel graph):

    .. math::
        u_i = \Big(v_i + \sum_{j \in N(i)} E_{ij} v_j\Big)\,\theta_i, \qquad
        E_{ij} = \frac{e^{x_{ij}}}{\sum_{j' \in N(i)} e^{x_{ij'}}}

    E is never materialised: the kernels recompute a node's row where they need it.

    Equivalent to: building E (B, d, d) and ``torch.bmm(I + E, v) * theta``; see
    :func:`reid_ops.reference.similarity_graph`.

    Args:
        values: nodes, a chain ``(B, L)`` or a grid ``(B, H, W)``, B graphs; float32, float64, or float16 or
            bfloat16, which are computed in float32 and rounded at the end. Any strides (made contiguous).
        theta: weights of the nodes, of one graph's shape (``(L,)`` or ``(H, W)``) or of ``values``' own;
            dtype and device of ``values``. None: no weights.
        neighborhood: on a grid 4 (the default), 8, or ``("radius", r)``, all nodes at a Euclidean distance of
            at most r, 1 <= r <= 181; on a chain the half-width s, 1 (the default) to 181. Neighbourhoods end
            at the border. A node without neighbours keeps its value.
        include_self: whether a node is its own neighbour too.
        edges: the reading of Eq. 3. ``"softmax"``: x_ij = v_j, rows sum to one. ``"printed"``: the numerator
            is e^{v_i}, as printed; its weights are unbounded and overflow for values some hundred apart.
            ``"product"``: x_ij = v_i v_j. ``"negdist"``: x_ij = -\|v_i - v_j\|. ``"none"``: E = 0 (ablation).
            All take the row's maximum off first, so that softmax and negdist never overflow, and product
            does not while every v_i v_j is finite.

    Returns:
        Shape and dtype of ``values``, contiguous. Differentiable in both arguments, deterministic; second
        and higher derivatives run on the reference's formulas. Keeps its dtype under ``torch.autocast``.

    Raises:
        TypeError: an argument is no tensor, not a supported float type, or of another dtype.
        ValueError: a shape, device or option is out of range.
        NotImplementedError: under forward-mode differentiation.

    Example:
        >>> squeezed = torch.rand(8, 16, 16)
        >>> reid_ops.similarity_graph(squeezed, torch.ones(16, 16), neighborhood=8).shape
        torch.Size([8, 16, 16])
    """
    _check(values, theta, edges)
    is_grid = values.dim() == 3
    radius_squared = squared_radius(neighborhood, is_grid, _OP)
    half = values.dtype in (torch.float16, torch.bfloat16)
    nodes = (values if is_grid else values.unsqueeze(1)).contiguous()
    weights = None
    if theta is not None:
        weights = theta.reshape(-1, *nodes.shape[1:]).contiguous()
        weights = weights.float() if half else weights
    output, _ = _dispatch.call(
        "similarity_graph",
        nodes.float() if half else nodes,
        weights,
        radius_squared,
        bool(include_self),
        EDGES[edges],
        torch.is_grad_enabled() and theta is not None and theta.requires_grad,
    )
    return output.view(values.shape).to(values.dtype)


def squared_radius(neighborhood: int | tuple[str, float] | None, is_grid: bool, op: str) -> int:
    """All neighbourhoods as one number: nodes within a squared distance, on a chain ``s**2``."""
    if not is_grid:
        half_width = 1 if neighborhood is None else neighborhood
        _checks.check_integer(half_width, "neighborhood", 1, MAX_REACH, op)  # type: ignore[arg-type]
        assert isinstance(half_width, int)
        return half_width**2
    if isinstance(neighborhood, (tuple, list)) and len(neighborhood) == 2 and neighborhood[0] == "radius":
        radius = neighborhood[1]
        if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not 1 <= radius <= MAX_REACH:
            raise ValueError(f"{op}: the radius of neighborhood must be in [1, {MAX_REACH}], got {radius!r}")
        return int(radius**2 + 1e-9)
    if neighborhood is None or neighborhood == 4:
        return 1
    if neighborhood == 8:
        return 2
    raise ValueError(f'{op}: neighborhood of a grid must be 4, 8 or ("radius", r), got {neighborhood!r}')


def check_edges(edges: str, op: str) -> None:
    """One of the readings of Eq. 3."""
    if not isinstance(edges, str) or edges not in EDGES:
        names = ", ".join(f'"{name}"' for name in EDGES)
        raise ValueError(f"{op}: edges must be one of {names}, got {edges!r}")


def _check(values: Tensor, theta: Tensor | None, edges: str) -> None:
    is_chain = isinstance(values, Tensor) and values.dim() == 2
    _checks.check_features(values, "values", ("B", "L") if is_chain else ("B", "H", "W"), _OP)
    if min(values.shape[1:]) < 1:
        raise ValueError(f"{_OP}: values must have at least one node, got shape {tuple(values.shape)}")
    check_edges(edges, _OP)
    if theta is None:
        return
    own = values.dim() if isinstance(theta, Tensor) and theta.dim() == values.dim() else values.dim() - 1
    _checks.check_features(theta, "theta", ("B", "H", "W")[-own:] if not is_chain else ("B", "L")[-own:], _OP)
    _checks.check_alike(theta, "theta", values, "values", _OP)
    if theta.shape != values.shape[-theta.dim() :]:
        raise ValueError(
            f"{_OP}: theta must have the shape of one graph {tuple(values.shape[1:])} or of values "
            f"{tuple(values.shape)}, got {tuple(theta.shape)}"
        )


def _sum_rows(gradient: Tensor, theta: Tensor) -> Tensor:
    """Adds up the graphs that share a row of theta: row b % T belongs to graph b."""
    return gradient.view(-1, *theta.shape).sum(0) if gradient.shape[0] else torch.zeros_like(theta)


@_dispatch.registers
def _register(library: str) -> None:
    """Fake kernels (shapes for tracing) and gradients of the two graph operators in ``library``."""

    @torch.library.register_fake(f"{library}::similarity_graph")
    def _(
        values: Tensor, theta: Any, radius_squared: int, include_self: bool, edges: int, with_aggregate: bool
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(values), values.new_empty(values.shape if with_aggregate else (0,))

    @torch.library.register_fake(f"{library}::similarity_graph_backward")
    def _(
        grad_output: Tensor, values: Tensor, theta: Any, radius_squared: int, include_self: bool, edges: int
    ) -> Tensor:
        return torch.empty_like(values)

    def save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        values, theta, *graph, with_aggregate = inputs
        ctx.save_for_backward(values, theta, output[1] if with_aggregate else None)
        ctx.graph, ctx.with_aggregate = graph, with_aggregate
        ctx.set_materialize_grads(False)

    def backward_forward(ctx: Any, grad: Tensor | None, grad_aggregate: Tensor | None) -> tuple[Any, ...]:
        values, theta, aggregate = ctx.saved_tensors
        to_values = to_theta = None
        if grad is not None and ctx.needs_input_grad[1]:
            if aggregate is None:
                aggregate, _ = _dispatch.call_in(library, "similarity_graph", values, None, *ctx.graph, False)
            to_theta = _sum_rows(grad * aggregate, theta)
        if ctx.needs_input_grad[0]:
            if grad_aggregate is not None and ctx.with_aggregate:  # when theta's gradient is differentiated
                grad = grad_aggregate if grad is None else grad_aggregate + _weighted(grad, theta)
                theta = None
            if grad is not None:
                to_values = _dispatch.call_in(
                    library, "similarity_graph_backward", grad.contiguous(), values, theta, *ctx.graph
                )
        return to_values, to_theta, None, None, None, None

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, values, theta, *graph = inputs
        ctx.save_for_backward(grad, values, theta)
        ctx.graph = graph

    def backward_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """Second derivatives by differentiating the reference; with grad mode on, differentiable again."""
        again = torch.is_grad_enabled()

        def leaf_of(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not (again and tensor.requires_grad):
                return None if tensor is None else tensor.detach().requires_grad_()
            return tensor.view_as(tensor)  # a node of its own, should the arguments depend on each other

        wanted = [k for k in range(3) if ctx.needs_input_grad[k]]
        radius_squared, include_self, edges = ctx.graph
        name = next(name for name, value in EDGES.items() if value == edges)
        with torch.enable_grad():
            leaves = [leaf_of(tensor) for tensor in ctx.saved_tensors]
            grad, values, theta = leaves
            assert grad is not None and values is not None
            output = graph_within(values, radius_squared, include_self, name)
            (first,) = torch.autograd.grad(output, values, _weighted(grad, theta), create_graph=True)
            targets = [leaf for k, leaf in enumerate(leaves) if k in wanted and leaf is not None]
            found = torch.autograd.grad(
                first, targets, upstream, allow_unused=True, create_graph=again, materialize_grads=True
            )
        result: list[Tensor | None] = [None] * 6
        for k, gradient in zip(wanted, found, strict=True):
            result[k] = gradient
        return tuple(result)

    _dispatch.register_gradient(library, "similarity_graph", backward_forward, save_forward)
    _dispatch.register_gradient(library, "similarity_graph_backward", backward_backward, save_backward)


def _weighted(grad: Tensor, theta: Tensor | None) -> Tensor:
    return grad if theta is None else (grad.view(-1, *theta.shape) * theta).view(grad.shape)
