"""HSGM among torch's own: compilation, export, checkpoints, autocast, processes, layouts, CUDA graphs."""

# ruff: noqa: E501 (tables, a case a line)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.conftest import Backend, other_thread_count
from tests.cuda_support import capture, on_another_stream
from tests.similarity_graph.support import make, run


def test_other_layouts(backend: Backend) -> None:
    """Neither contiguous nor channels-last: made contiguous; a gradient in the other layout, or of stride 0."""
    shape = (3, 10, 8, 6)
    x = torch.randn(shape, device=backend.device)
    grad = torch.randn_like(x)
    module = make(shape, backend.device, torch.float32)
    expected = run(module, x, grad)
    sliced = torch.full((3, 10, 8, 12), float("nan"), device=backend.device)
    sliced[..., ::2] = x
    leaf = sliced[..., ::2].detach().requires_grad_()
    y = make(shape, backend.device, torch.float32)(leaf)
    y.backward(grad.to(memory_format=torch.channels_last))
    assert torch.equal(y, expected["y"])
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected["x.grad"])
    x = x.requires_grad_()
    make(shape, backend.device, torch.float32)(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_once_differentiable(backend: Backend) -> None:
    module = make((2, 3, 5, 4), backend.device)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, device=backend.device, requires_grad=True)
    (grad,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_deterministic(backend: Backend) -> None:
    """Bit for bit: again, with another number of threads, and in evaluation one image alone."""
    shape = (5, 140, 13, 7)
    x, grad = torch.randn(2, *shape, device=backend.device)
    first = run(make(shape, backend.device, torch.float32), x, grad)
    with other_thread_count():
        second = run(make(shape, backend.device, torch.float32), x, grad)
    assert all(torch.equal(first[name], second[name]) for name in first)
    module = make(shape, backend.device, torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(module(x)[3:4], module(x[3:4]))


def test_nothing_of_the_features_size_is_kept(backend: Backend) -> None:
    shape = (2, 256, 16, 8)
    x = torch.randn(shape, device=backend.device, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        make(shape, backend.device, torch.float32)(x)
    assert sum(kept) < 0.6 * x.numel() and max(kept) < 0.2 * x.numel()


def test_opcheck(backend: Backend) -> None:
    ops = getattr(torch.ops, backend.library)
    n, c, h, w = 2, 5, 6, 4
    rows, columns, maps = [1, 2], [1, 1], 3
    device: Any = {"device": backend.device}
    double: Any = {"dtype": torch.float64, **device}
    x, y = torch.randn(2, n, c, h, w, **device)
    planes, by_map, table = (
        torch.randn(n, 2, h, w, **device),
        torch.randn(n, maps, c, **device),
        torch.rand(maps, c, **double),
    )
    mean, per_map, weight = (
        torch.rand(n, maps, **double),
        torch.rand(n, maps, **device),
        torch.rand(maps, c, **device),
    )
    scaled, theta = torch.randn(n, 2, 1, h, w, **device), torch.randn(2, 1, h, w, **device)
    graph = (rows, columns, [3], 0, 1, False, 1)
    size = (h, w, rows, columns)
    calls: dict[str, tuple[Any, ...]] = {
        "squeeze": (x, rows, columns),
        "nodes": (planes[:, 0].contiguous(), theta, *graph),
        "nodes_backward": (planes, planes, per_map, per_map, scaled, theta, *graph),
        "statistics": (by_map, mean, mean, *size),
        "affine": (by_map, mean, weight, weight, table, table, *size),
        "affine_sums": (by_map, by_map, by_map, mean, weight, table, table, *size),
        "affine_backward": (by_map, by_map, by_map, mean, mean, weight, table, table, table, table, *size),
        "excite": (x, planes, by_map, by_map, rows, columns, 2.0, 1.0, 0.2),
        "sums": (y, planes, by_map, by_map, rows, columns, 1.0, 0.2),
        "input": (y, planes, by_map, rows, columns, 2.0),
        "evaluate": (
            x,
            theta,
            weight,
            weight,
            weight,
            table,
            table,
            *graph[:5],
            1,
            False,
            1,
            0,
            2.0,
            1.0,
            0.2,
        ),
    }
    for name, arguments in calls.items():
        operator = getattr(ops, f"similarity_graph_{name}").default
        torch.library.opcheck(operator, arguments)
        last = tuple(
            a.to(memory_format=torch.channels_last) if isinstance(a, Tensor) and a.shape == x.shape else a
            for a in arguments
        )
        torch.library.opcheck(operator, last, test_utils=("test_schema", "test_faketensor"))


def test_compile_and_export(backend: Backend) -> None:
    torch._dynamo.reset()  # each option is a graph of its own
    shape = (3, 6, 8, 5)
    x, grad = torch.randn(2, *shape, device=backend.device)
    for options in ({}, {"spatial": False}, {"share_parameters": "level"}, {"upsample": "interp"}):
        for training in (True, False):
            module = make(shape, backend.device, torch.float32, **options).train(training)
            compiled = torch.compile(
                make(shape, backend.device, torch.float32, **options).train(training),
                fullgraph=True,
                backend="aot_eager",
            )
            expected, found = run(module, x, grad), run(compiled, x, grad)
            for name, tensor in expected.items():
                actual = found[name] if name in found else found[name.replace("", "_orig_mod.", 1)]
                torch.testing.assert_close(actual, tensor, rtol=1e-6, atol=1e-6)
    module = make(shape, backend.device, torch.float32).eval()
    with torch.no_grad():
        program = torch.export.export(module, (x,))
        assert "similarity_graph_evaluate" in program.graph_module.code
        assert torch.equal(program.module()(x), module(x))


def test_checkpoint(backend: Backend) -> None:
    """Recomputing the forward pass gives the same gradients; as with nn.BatchNorm2d it counts the batch twice."""
    shape = (3, 6, 8, 5)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, device=backend.device)
    expected = run(make(shape, backend.device), x, grad)
    for reentrant in (True, False):
        module = make(shape, backend.device)
        leaf = x.clone().requires_grad_()
        checkpoint(module, leaf, use_reentrant=reentrant).backward(grad)  # type: ignore[union-attr]
        assert leaf.grad is not None and torch.equal(leaf.grad, expected["x.grad"])
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and torch.equal(parameter.grad, expected[f"{name}.grad"])


def test_autocast(backend: Backend) -> None:
    shape = (3, 6, 8, 5)
    x = torch.randn(shape, device=backend.device)
    for impl in ("fused", "reference"):
        module = make(shape, backend.device, torch.float32, impl=impl).eval()
        with torch.autocast(backend.device, torch.bfloat16):
            assert module(x).dtype == torch.float32
            half = module(x.bfloat16().requires_grad_())
        assert half.dtype == torch.bfloat16
        assert torch.equal(half, module(x.bfloat16()))
        half.sum().backward()
        assert module.norm.weight.grad is not None and module.norm.weight.grad.dtype == torch.float32
    whole = make(shape, backend.device, torch.bfloat16)
    output = whole(x.bfloat16())
    assert output.dtype == torch.bfloat16 and whole.running_mean.dtype == torch.bfloat16


PROCESSES = """
import sys, torch, reid_ops
from torch.nn.parallel import DistributedDataParallel
from tests.similarity_graph.support import make, run, assert_close
rank, store, impl = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(1)
shape = (5, 6, 8, 5)
x, grad = torch.randn(2, *shape, dtype=torch.float64)
mine = slice(0, 2) if rank == 0 else slice(2, 5)  # batches of different size
module = make(shape, "cpu", impl=impl, sync_batchnorm=True)
found = run(DistributedDataParallel(module), x[mine], grad[mine])
found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
expected = run(make(shape, "cpu"), x, grad)  # one process, the joint batch
for name in ("y", "x.grad"):
    expected[name] = expected[name][mine]
for name, parameter in module.named_parameters():
    found[f"{name}.grad"] *= 2  # DistributedDataParallel averages
assert_close(found, expected, 1e-11)
for count in (0, 5):  # every batch empty, then that of the first process
    mine = slice(0, count * rank)
    found = run(make(shape, "cpu", impl=impl, sync_batchnorm=True), x[mine], grad[mine])
    expected = run(make(shape, "cpu", impl=impl), x[:count], grad[:count])
    for name in ("norm.running_mean", "norm.running_var"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-11, atol=1e-11)
    assert all(tensor.isfinite().all() for tensor in found.values())
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_two_processes_equal_the_joint_batch(impl: str, tmp_path: Path) -> None:
    """sync_batchnorm under DistributedDataParallel."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, str(rank), str(tmp_path / "store"), impl],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:  # none waits for the other for ever
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    def test_graph_capture(self) -> None:
        shape = (4, 64, 16, 8)
        module = make(shape, "cuda", torch.float32)
        x, grad = torch.randn(2, *shape, device="cuda")
        x.requires_grad_()

        def step() -> tuple[Tensor, ...]:
            y = module(x)
            return y, *torch.autograd.grad(y, [x, *module.parameters()], grad)

        graph, captured = capture(step)
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        graph.replay()
        for actual, expected in zip(captured, step(), strict=True):
            assert torch.equal(actual, expected)

    def test_other_stream(self) -> None:
        shape = (4, 64, 16, 8)
        module = make(shape, "cuda", torch.float32).eval()
        x = torch.randn(shape, device="cuda")
        with torch.no_grad():
            expected = module(x)
            actual = on_another_stream(lambda: module(x * 1.0))
        assert torch.equal(actual, expected)
