"""similarity_graph against the reference's two forms, on every backend.

Results are compared with the float64 reference. In lower precision the allowance is what plain PyTorch
in that precision loses on the same input (times four), plus a few roundings of the largest value; in
float64, where the reference is the measure itself, only roundings: of sums of up to 30 products.
"""

# ruff: noqa: E501 (tables, a case a line)

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from tests.conftest import Backend, other_thread_count
from tests.instruction_set_support import INSTRUCTION_SETS, run_with

ROUNDING = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}
DTYPES = list(ROUNDING)
EDGES = ["softmax", "printed", "product", "negdist", "none"]

# shape of values, neighborhood
GRAPHS: dict[str, tuple[tuple[int, ...], Any]] = {
    "chain": ((3, 37), None),
    "chain, half-width 5": ((2, 129), 5),
    "chain, wider than itself": ((2, 4), 9),
    "chain of one": ((3, 1), None),
    "chain of two": ((3, 2), 1),
    "grid": ((2, 7, 9), None),
    "grid 16x16": ((1, 16, 16), 4),
    "8 neighbours": ((2, 7, 9), 8),
    "radius 3": ((2, 6, 21), ("radius", 3)),
    "radius 2.3": ((1, 9, 5), ("radius", 2.3)),
    "grid of one": ((2, 1, 1), 8),
    "one column": ((2, 33, 1), None),
    "one row": ((2, 1, 33), 8),
}


def check_against_reference(values: Tensor, theta: Tensor | None, **options: Any) -> None:
    """Forward and gradients against both forms of the float64 reference."""
    dtype = values.dtype
    inputs = [tensor for tensor in (values, theta) if tensor is not None]
    grad = torch.randn_like(values)

    def run(function: Any, as_type: torch.dtype, **more: Any) -> list[Tensor]:
        leaves = [tensor.detach().to(as_type).requires_grad_() for tensor in inputs]
        output = function(*leaves, **options, **more)
        return [output.detach(), *torch.autograd.grad(output, leaves, grad.to(as_type))]

    found = run(reid_ops.similarity_graph, dtype)
    assert found[0].shape == values.shape and all(tensor.dtype == dtype for tensor in found)
    plain = run(reference.similarity_graph, dtype)
    for form in ("sparse", "dense"):
        exact = run(reference.similarity_graph, torch.float64, form=form)
        for mine, theirs, true in zip(found, plain, exact, strict=True):
            assert torch.equal(mine.isfinite(), theirs.isfinite())
            error, usual = (mine.double() - true).abs().max(), (theirs.double() - true).abs().max()
            roundings = 256 if dtype == torch.float64 else 16
            assert error <= 4 * usual + roundings * ROUNDING[dtype] * true.abs().max() + 1e-300


@pytest.mark.sanitize
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("name", GRAPHS)
def test_matches_reference(backend: Backend, name: str, edges: str) -> None:
    shape, neighborhood = GRAPHS[name]
    for include_self in (False, True):
        values = torch.randn(shape, device=backend.device)
        theta = torch.randn(shape[1:], device=backend.device)
        options = {"neighborhood": neighborhood, "edges": edges, "include_self": include_self}
        check_against_reference(values, theta, **options)
        check_against_reference(values.double(), None, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(backend: Backend, dtype: torch.dtype) -> None:
    for name in ("chain", "grid", "8 neighbours"):
        shape, neighborhood = GRAPHS[name]
        values = torch.randn(shape, device=backend.device).to(dtype)
        theta = torch.randn(shape, device=backend.device).to(dtype)  # one for every graph
        check_against_reference(values, theta, neighborhood=neighborhood)


def test_by_hand(backend: Backend) -> None:
    """Two nodes are each other's only neighbour: E is the exchange, whatever the values."""
    values = torch.tensor([[2.0, 5.0]], device=backend.device)
    theta = torch.tensor([1.0, 10.0], device=backend.device)
    for edges in ("softmax", "product", "negdist"):
        output = reid_ops.similarity_graph(values, theta, edges=edges)
        torch.testing.assert_close(output, torch.tensor([[7.0, 70.0]], device=backend.device))
    # The printed numerator is the node's own: e^{v_i} / e^{v_j} * v_j.
    printed = reid_ops.similarity_graph(values, edges="printed")
    expected = torch.tensor([[2 + 5 * 2.718281828**-3, 5 + 2 * 2.718281828**3]], device=backend.device)
    torch.testing.assert_close(printed, expected)


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("edges", ["softmax", "product", "negdist"])
def test_stable_for_large_values(backend: Backend, edges: str, scale: float) -> None:
    if edges == "product" and scale > 1e10:
        pytest.skip("products of 1e30 are beyond float32")
    values = (torch.rand(2, 6, 5, device=backend.device) * 2 - 1) * scale
    output = reid_ops.similarity_graph(values, edges=edges)
    assert output.isfinite().all()
    check_against_reference(values, torch.rand(6, 5, device=backend.device), edges=edges)


def test_weights_sum_to_one(backend: Backend) -> None:
    """A constant graph doubles: U = v + sum_j E_ij v, at a border too."""
    values = torch.full((1, 5, 4), 3.0, device=backend.device)
    for edges in ("softmax", "product", "negdist", "printed"):
        count = 1 if edges != "printed" else None
        output = reid_ops.similarity_graph(values, edges=edges)
        assert count is None or torch.allclose(output, torch.full_like(output, 6.0))


@pytest.mark.parametrize("edges", EDGES)
def test_gradcheck(backend: Backend, edges: str) -> None:
    """Gradients and second gradients against finite differences."""
    for shape, neighborhood in (((2, 5), 2), ((2, 3, 4), 8)):
        values = torch.randn(shape, dtype=torch.float64, device=backend.device, requires_grad=True)
        theta = torch.randn(shape[1:], dtype=torch.float64, device=backend.device, requires_grad=True)

        def call(v: Tensor, t: Tensor, neighborhood: Any = neighborhood) -> Tensor:
            return reid_ops.similarity_graph(v, t, neighborhood=neighborhood, edges=edges)

        assert torch.autograd.gradcheck(call, (values, theta))
        assert torch.autograd.gradgradcheck(call, (values, theta))


@pytest.mark.parametrize("edges", EDGES)
def test_third_derivatives(backend: Backend, edges: str) -> None:
    """The gradient's own second gradients, also where the gradient comes from the values."""
    values = torch.randn(1, 4, dtype=torch.float64, device=backend.device, requires_grad=True)
    theta = torch.randn(4, dtype=torch.float64, device=backend.device, requires_grad=True)

    def gradients(v: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        output = reid_ops.similarity_graph(v, t, edges=edges)
        return torch.autograd.grad(output.square().sum(), (v, t), create_graph=True)

    assert torch.autograd.gradgradcheck(gradients, (values, theta))


def test_opcheck(backend: Backend) -> None:
    ops = getattr(torch.ops, backend.library)
    values = torch.randn(4, 3, 5, device=backend.device, requires_grad=True)
    theta = torch.randn(2, 3, 5, device=backend.device, requires_grad=True)
    for weights in (theta, None):
        for with_aggregate in (True, False):
            torch.library.opcheck(ops.similarity_graph.default, (values, weights, 2, True, 1, with_aggregate))
        grad = torch.randn(4, 3, 5, device=backend.device, requires_grad=True)
        torch.library.opcheck(ops.similarity_graph_backward.default, (grad, values, weights, 2, False, 3))


def test_layouts(backend: Backend) -> None:
    values = torch.randn(3, 6, 7, device=backend.device)
    theta = torch.randn(6, 7, device=backend.device)
    expected = reid_ops.similarity_graph(values, theta)
    other = values.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not other.is_contiguous()
    assert torch.equal(reid_ops.similarity_graph(other, theta.t().contiguous().t()), expected)
    leaf = values.clone().requires_grad_()
    reid_ops.similarity_graph(leaf.expand(3, 6, 7), theta).sum().backward()  # a gradient of stride 0
    assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_empty(backend: Backend) -> None:
    values = torch.randn(0, 4, 5, device=backend.device, requires_grad=True)
    for shape in ((4, 5), (0, 4, 5)):
        theta = torch.randn(shape, device=backend.device, requires_grad=True)
        output = reid_ops.similarity_graph(values, theta)
        assert output.shape == (0, 4, 5)
        output.sum().backward()
        assert theta.grad is not None and not theta.grad.any()


def test_deterministic(backend: Backend) -> None:
    values = torch.randn(9, 12, 10, device=backend.device, requires_grad=True)
    theta = torch.randn(12, 10, device=backend.device, requires_grad=True)

    def run() -> tuple[Tensor, ...]:
        output = reid_ops.similarity_graph(values, theta)
        return output, *torch.autograd.grad(output.square().sum(), (values, theta))

    first = run()
    with other_thread_count():
        second = run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nan_reaches_its_neighbours_and_no_others(backend: Backend) -> None:
    values = torch.randn(1, 7, 7, device=backend.device)
    values[0, 3, 3] = float("nan")
    output = reid_ops.similarity_graph(values)
    assert torch.equal(output.isnan(), reference.similarity_graph(values).isnan())
    assert output.isnan().sum() == 5


def test_compile(backend: Backend) -> None:
    compiled = torch.compile(reid_ops.similarity_graph, fullgraph=True, backend="aot_eager")
    results = []
    for function in (reid_ops.similarity_graph, compiled):
        torch.manual_seed(1)
        values = torch.randn(2, 5, 4, device=backend.device, requires_grad=True)
        theta = torch.randn(5, 4, device=backend.device, requires_grad=True)
        output = function(values, theta, neighborhood=8)
        output.square().sum().backward()
        results.append((output, values.grad, theta.grad))
    for eager, traced in zip(*results, strict=True):
        assert torch.equal(eager, traced)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tensor": ({"values": 1.0}, TypeError, "values must be a torch.Tensor, got float"),
    "rank": ({"values": torch.zeros(5)}, ValueError, r"values must have shape \(B, H, W\), got \(5,\)"),
    "integer": ({"values": torch.zeros(2, 3, dtype=torch.int32)}, TypeError, "values must be float32.*got int32"),
    "no nodes": ({"values": torch.zeros(2, 0)}, ValueError, "values must have at least one node"),
    "theta type": ({"theta": [1.0]}, TypeError, "theta must be a torch.Tensor, got list"),
    "theta rank": ({"theta": torch.zeros(4)}, ValueError, r"theta must have shape \(H, W\), got \(4,\)"),
    "theta shape": ({"theta": torch.zeros(5, 3)}, ValueError, r"shape of one graph \(4, 5\) or of values \(3, 4, 5\), got \(5, 3\)"),
    "theta rows": ({"theta": torch.zeros(2, 4, 5)}, ValueError, r"got \(2, 4, 5\)"),
    "theta dtype": ({"theta": torch.zeros(4, 5).double()}, TypeError, "theta must have the dtype of values"),
    "theta device": ({"theta": torch.zeros(4, 5, device="meta")}, ValueError, "theta must be on the device of values"),
    "edges": ({"edges": "cosine"}, ValueError, "edges must be one of .*\"negdist\".*, got 'cosine'"),
    "neighborhood": ({"neighborhood": 6}, ValueError, r'must be 4, 8 or \("radius", r\), got 6'),
    "radius": ({"neighborhood": ("radius", 0.5)}, ValueError, r"radius of neighborhood must be in \[1, 181\], got 0.5"),
    "half-width": ({"values": torch.zeros(2, 3), "neighborhood": 0}, ValueError, r"neighborhood must be in \[1, 181\], got 0"),
    "chain radius": ({"values": torch.zeros(2, 3), "neighborhood": ("radius", 2)}, TypeError, "neighborhood must be an int, got tuple"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        reid_ops.similarity_graph(**{"values": torch.zeros(3, 4, 5), **change})


def test_operators_check_too(backend: Backend) -> None:
    """A call that bypasses the Python function raises instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    ops = getattr(torch.ops, backend.library)
    values = torch.zeros(4, 3, 5)
    for arguments, message in (
        ((values[0], None, 1, False, 1, False), "values must have shape"),
        ((values.half(), None, 1, False, 1, False), "values must be float32 or float64"),
        ((values.transpose(1, 2), None, 1, False, 1, False), "values must be contiguous"),
        ((values, torch.zeros(3, 3, 5), 1, False, 1, False), "T dividing B"),
        ((values, torch.zeros(2, 5, 3), 1, False, 1, False), "theta must have shape"),
        ((values, torch.zeros(2, 3, 5).double(), 1, False, 1, False), "theta must be float32"),
        ((values, None, -1, False, 1, False), "radius_squared must be in"),
        ((values, None, 1, False, 7, False), "edges must be in"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.similarity_graph(*arguments)
    with pytest.raises(RuntimeError, match="grad_output must have shape"):
        ops.similarity_graph_backward(values[:2].contiguous(), values, None, 1, False, 1)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_instruction_set(instruction_set: str) -> None:
    """The wheel's older code paths, in a process of their own: the choice is made once."""
    code = (
        "import torch, reid_ops\n"
        "from tests.similarity_graph import test_graph as graphs, test_hsgm as modules\n"
        "torch.manual_seed(0)\n"
        "for shape, neighborhood in graphs.GRAPHS.values():\n"
        "    for edges in graphs.EDGES:\n"
        "        graphs.check_against_reference(torch.randn(shape), torch.randn(shape[1:]),"
        " neighborhood=neighborhood, edges=edges)\n"
        "for dtype in graphs.DTYPES:\n"
        "    for layout in (torch.contiguous_format, torch.channels_last):\n"
        "        modules.check_precision((3, 37, 13, 7), dtype, layout, 'cpu')\n"
    )
    run_with(instruction_set, code)
