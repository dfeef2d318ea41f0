"""The HSGM module: fused against reference, in every option, on every backend.

In float64 both must agree to rounding. In lower precision the fused module may lose four times what the
reference loses in float32 on the same input, both against float64, plus roundings of the stored result.
"""

# ruff: noqa: E501 (tables, a case a line)

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reid_ops
from tests.conftest import Backend
from tests.test_similarity_graph import DTYPES, ROUNDING

Results = dict[str, Tensor]

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "without hierarchy": {"levels": (1,)},
    "two levels": {"levels": (1, 2)},
    "levels that do not nest": {"levels": (1, 3, 4)},
    "four levels": {"levels": (1, 2, 4, 8)},
    "grid": {"split": "grid"},
    "grid of eight": {"split": "grid", "levels": (1, 2, 4, 8)},
    "scales 1 1 1": {"scales": (1, 1, 1)},
    "scales 2 2 2": {"scales": (2, 2, 2)},
    "scales 3 3 3": {"scales": (3, 3, 3)},
    "one large scale": {"scales": (5,)},
    "8 neighbours": {"neighborhood": 8},
    "radius": {"neighborhood": ("radius", 3)},
    "channel window 4": {"channel_window": 4},
    "include self": {"include_self": True},
    "printed": {"edges": "printed"},
    "product": {"edges": "product"},
    "negdist": {"edges": "negdist"},
    "no edges": {"edges": "none"},
    "no residual": {"residual": False},
    "no spatial graph": {"spatial": False},
    "no channel graph": {"channel": False},
    "no graph": {"spatial": False, "channel": False},
    "no graph, no residual": {"spatial": False, "channel": False, "residual": False},
    "a third": {"aggregate_scale": 1 / 3},
    "slope 0.01": {"negative_slope": 0.01},
    "slope 1.5": {"negative_slope": 1.5},
    "shared": {"share_parameters": True},
    "shared in a level": {"share_parameters": "level"},
    "pooling same_padded": {"pooling": "same_padded"},
    "pooling stride": {"pooling": "stride"},
    "pooling valid": {"pooling": "valid", "scales": (1, 2, 3, 7)},
    "eps and momentum": {"eps": 0.1, "momentum": 0.7},
}
SHAPES = [(3, 20, 9, 6), (2, 130, 16, 8), (3, 33, 13, 7), (2, 1, 4, 1), (1, 3, 8, 5), (2, 5, 31, 19)]


def make(
    shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float64, **options: Any
) -> reid_ops.HSGM:
    """A module with random parameters and running statistics, the same for every dtype."""
    torch.manual_seed(3)
    module = reid_ops.HSGM(*shape[1:], **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1, 0.3)
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
    return module.to(device=device, dtype=dtype)


def run(module: nn.Module, x: Tensor, grad: Tensor) -> Results:
    """Output, all gradients and all buffers after one pass."""
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(grad.to(y.dtype))
    assert x.grad is not None and x.grad.dtype == x.dtype and y.dtype == x.dtype and y.shape == x.shape
    results = {"y": y.detach(), "x.grad": x.grad}
    results |= {f"{name}.grad": p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert len(results) == 2 + len(list(module.parameters()))
    return results | {name: buffer.clone() for name, buffer in module.named_buffers()}


def assert_close(found: Results, expected: Results, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        scale = expected[name].double().abs().max()
        if (
            name == "delta.grad"
        ):  # batch norm undoes a channel's scale: what is left of this one is cancellation
            scale = scale + expected["weight.grad"].abs().max()
        error = (tensor.double() - expected[name].double()).abs().max()
        assert error <= tolerance * scale, f"{name}: off by {error:.3g}, largest {scale:.3g}"


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(backend: Backend, name: str, training: bool) -> None:
    shape = (3, 20, 9, 6)
    x = torch.randn(shape, dtype=torch.float64, device=backend.device)
    grad = torch.randn_like(x)
    results = []
    for impl in ("fused", "reference"):
        module = make(shape, backend.device, impl=impl, **OPTIONS[name]).train(training)
        results.append(run(module, x, grad))
        if not training:
            with torch.no_grad():  # the operator of its own
                torch.testing.assert_close(module(x), results[-1]["y"], rtol=1e-12, atol=1e-12)
    assert_close(results[0], results[1], 1e-11)


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(backend: Backend, shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = torch.randn(shape, dtype=torch.float64, device=backend.device)
    grad = torch.randn_like(x)
    levels = (1, 2, 4) if shape[2] >= 4 else (1,)
    for split in ("stripes", "grid") if shape[3] > 1 else ("stripes",):
        expected = run(make(shape, backend.device, impl="reference", split=split, levels=levels), x, grad)
        ordered = x.to(memory_format=layout), grad.to(memory_format=layout)
        found = run(make(shape, backend.device, split=split, levels=levels), *ordered)
        assert found["y"].is_contiguous(memory_format=layout)
        assert_close(found, expected, 1e-11)


def check_precision(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    """Against float64, the fused module is about as precise as plain PyTorch in float32."""
    x = torch.randn(shape, device=device).to(dtype)
    grad = torch.randn_like(x)
    own = torch.float64 if dtype == torch.float64 else torch.float32
    exact = run(make(shape, device, impl="reference"), x.double(), grad.double())
    plain = run(make(shape, device, own, impl="reference"), x.to(own), grad.to(own))
    module = make(shape, device, own)
    found = run(module, x.to(memory_format=layout), grad)
    for name, true in exact.items():
        usual = (plain[name].double() - true).abs().max()
        stored = ROUNDING[dtype] if name in ("y", "x.grad") else 0.0
        allowed = 4 * usual + (2 * stored + 16 * ROUNDING[own]) * true.abs().max()
        if name == "delta.grad":
            allowed = allowed + 16 * ROUNDING[own] * exact["weight.grad"].abs().max() * shape[0]
        error = (found[name].double() - true).abs().max()
        assert error <= allowed, f"{name}: off by {error:.3g}, plain PyTorch by {usual:.3g}"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(backend: Backend, dtype: torch.dtype, layout: torch.memory_format) -> None:
    check_precision((4, 150, 16, 8), dtype, layout, backend.device)
    check_precision((3, 37, 13, 7), dtype, layout, backend.device)


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


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("options", [{}, {"split": "grid", "edges": "product"}, {"residual": False}], ids=str)
def test_gradcheck(backend: Backend, training: bool, options: dict[str, Any]) -> None:
    shape = (2, 3, 5, 4)
    module = make(shape, backend.device, **options).train(training)
    names = [name for name, _ in module.named_parameters()]
    x = torch.randn(shape, dtype=torch.float64, device=backend.device, requires_grad=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *(p.detach().requires_grad_() for p in module.parameters())))


def test_once_differentiable(backend: Backend) -> None:
    module = make((2, 3, 5, 4), backend.device)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, device=backend.device, requires_grad=True)
    (grad,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("frozen", ["theta", "delta", "weight", "x"])
def test_frozen_inputs(backend: Backend, frozen: str) -> None:
    """Whatever needs no gradient gets none, and the others theirs."""
    shape = (2, 5, 8, 6)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, device=backend.device)
    expected = run(make(shape, backend.device), x, grad)
    module = make(shape, backend.device)
    x.requires_grad_(frozen != "x")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name != frozen)
    module(x).backward(grad)
    for name, parameter in [("x", x), *module.named_parameters()]:
        if name == frozen:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[f"{name}.grad"])


def test_parameters_are_the_papers() -> None:
    """What the equations give at the paper's place, and one state dict for both implementations."""
    for size, count in (((1024, 16, 16), 23_808), ((1024, 16, 8), 22_656), ((256, 64, 64), 42_240)):
        modules = [reid_ops.HSGM(*size, impl=impl) for impl in ("fused", "reference")]
        assert all(sum(p.numel() for p in module.parameters()) == count for module in modules)
        modules[1].load_state_dict(modules[0].state_dict())
    shared = reid_ops.HSGM(64, 8, 4, share_parameters=True), reid_ops.HSGM(64, 8, 4, share_parameters="level")
    assert [tuple(module.weight.shape) for module in shared] == [(1, 64), (3, 64)]
    assert all(module.running_mean.shape == (7, 64) for module in shared)
    module = reid_ops.HSGM(8, 8, 4, spatial=False)
    assert module.theta is None and sorted(module.state_dict()) == [
        "bias", "delta", "num_batches_tracked", "running_mean", "running_var", "weight",
    ]  # fmt: skip


@pytest.mark.parametrize("assign", [False, True])
def test_module_made_on_meta(backend: Backend, assign: bool) -> None:
    """A state dict is all that a module made without memory needs, in both ways of loading it."""
    shape = (2, 6, 9, 5)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, device=backend.device)
    filled = make(shape, backend.device)
    with torch.device("meta"):
        module = reid_ops.HSGM(*shape[1:]).double()
    if not assign:
        module = module.to_empty(device=backend.device)
    module.load_state_dict(filled.state_dict(), assign=assign)
    for parameter in module.parameters():
        parameter.requires_grad_()
    assert {buffer.device.type for buffer in module.buffers()} == {backend.device.split(":")[0]}
    assert len(list(module.buffers())) == 3  # all of them in the state dict
    assert_close(run(module, x, grad), run(make(shape, backend.device), x, grad), 0.0)


def test_batch_norm_is_sound_for_a_mean_of_1e4_times_the_spread(backend: Backend) -> None:
    """The closed form has no difference of moments: the variance is exact where that would be noise."""
    ops = getattr(torch.ops, backend.library)
    images, channels, height, width = 6, 40, 8, 4
    a = (1e4 + torch.randn(images, height * width, device=backend.device)).double()
    b = 1 + 1e-5 * torch.randn(images, 1, channels, device=backend.device)
    mean, spread = a.mean(1, keepdim=True), (a - a.mean(1, keepdim=True)).square().sum(1, keepdim=True)
    found_mean, found_variance = ops.similarity_graph_statistics(b, mean, spread, height, width, [1], [1])
    product = a[:, None] * b.double().transpose(1, 2)  # N, C, pixels
    exact = product.var((0, 2), correction=0)
    torch.testing.assert_close(found_mean[0], product.mean((0, 2)), rtol=1e-12, atol=0)
    torch.testing.assert_close(found_variance[0], exact, rtol=1e-9, atol=0)
    single = product.float()
    moments = single.square().mean((0, 2)) - single.mean((0, 2)).square()
    assert ((moments - exact).abs() / exact).max() > 1  # what a difference of moments would have given


def test_training_is_sound_for_a_mean_of_1e4_times_the_spread(backend: Backend) -> None:
    """End to end: theta and delta one, so that the product is that flat, and no residual to hide behind."""
    shape = (4, 16, 8, 6)
    x, grad = torch.randn(2, *shape, device=backend.device)
    x = 1e4 + x

    def train(dtype: torch.dtype, impl: str) -> Results:
        module = reid_ops.HSGM(*shape[1:], residual=False, impl=impl)
        module.momentum = 1.0  # the batch's own variance
        return run(module.to(backend.device, dtype), x.to(dtype), grad.to(dtype))

    exact = train(torch.float64, "reference")
    plain, found = train(torch.float32, "reference"), train(torch.float32, "fused")
    for name in ("y", "x.grad", "running_mean", "running_var"):
        usual = (plain[name].double() - exact[name]).abs().max()
        error = (found[name].double() - exact[name]).abs().max()
        assert error <= 8 * usual, f"{name}: off by {error:.3g}, plain PyTorch by {usual:.3g}"
    # usual is now the running variance's.
    squares = exact["running_mean"].square().max()  # one rounding of what a difference of moments subtracts
    assert squares * ROUNDING[torch.float32] > 100 * usual


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_in_its_map(backend: Backend, value: float) -> None:
    """Maps of 9 pixels fill no vectors: the sums' tail must not reach the next map's pixels."""
    ops = getattr(torch.ops, backend.library)
    n, c, h, w = 1, 3, 6, 3
    grad = torch.ones(n, c, h, w, device=backend.device)
    centred = torch.ones(n, 1, h, w, device=backend.device)
    scale, shift = torch.ones(2, n, 2, c, device=backend.device)
    scale[:, 0, 1] = value
    for layout in (torch.contiguous_format, torch.channels_last):
        sums, total, _ = ops.similarity_graph_sums(
            grad.to(memory_format=layout), centred, scale, shift, [2], [1], 1.0, 0.2
        )
        assert not sums[0, 0, :3].isfinite().any()
        assert torch.equal(sums[0, 0, 3:], torch.full_like(sums[0, 0, 3:], c))
        assert torch.equal(total[0, 1], torch.full_like(total[0, 1], 9))


@pytest.mark.parametrize("scale", [1e4, 1e-12])
def test_extreme_features(backend: Backend, scale: float) -> None:
    shape = (3, 12, 8, 6)
    x, grad = torch.randn(2, *shape, device=backend.device)
    for edges in ("softmax", "negdist"):
        found = run(make(shape, backend.device, torch.float32, edges=edges), x * scale, grad)
        assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_training_follows_the_reference(dtype: torch.dtype) -> None:
    """200 steps of a small net from the same seed: the same losses, to rounding."""
    curves = []
    for impl in ("fused", "reference"):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), reid_ops.HSGM(16, 8, 4, impl=impl), nn.ReLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5),
        ).to(dtype)  # fmt: skip
        images, labels = torch.randn(40, 3, 8, 4, dtype=dtype), torch.randint(0, 5, (40,))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for step in range(200):
            batch = torch.arange(20) * 2 + step % 2
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curves.append(torch.stack(losses))
    assert curves[1][-20:].mean() < 0.5 * curves[1][:20].mean()
    # A step multiplies what rounding left by a little more than one; 200 steps by some thousands.
    torch.testing.assert_close(*curves, rtol=0, atol=2e5 * ROUNDING[dtype])


def test_empty_batch(backend: Backend) -> None:
    for impl in ("fused", "reference"):
        for training in (True, False):
            module = make((0, 5, 8, 6), backend.device, impl=impl).train(training)
            before = module.running_mean.clone()
            x = torch.zeros(0, 5, 8, 6, dtype=torch.float64, device=backend.device, requires_grad=True)
            y = module(x)
            assert y.shape == x.shape and torch.equal(module.running_mean, before)
            y.sum().backward()
            assert x.grad is not None
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None and not parameter.grad.any(), (impl, training, name)


def test_deterministic(backend: Backend) -> None:
    """Bit for bit: again, with another number of threads, and in evaluation one image alone."""
    shape = (5, 140, 13, 7)
    x, grad = torch.randn(2, *shape, device=backend.device)
    threads = torch.get_num_threads()
    first = run(make(shape, backend.device, torch.float32), x, grad)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        second = run(make(shape, backend.device, torch.float32), x, grad)
    finally:
        torch.set_num_threads(threads)
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
        "evaluate": (x, theta, weight, weight, weight, table, table, *graph[:5], 1, False, 1, 2.0, 1.0, 0.2),
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
    for options in ({}, {"spatial": False}, {"share_parameters": "level"}):
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
        assert module.weight.grad is not None and module.weight.grad.dtype == torch.float32
    whole = make(shape, backend.device, torch.bfloat16)
    output = whole(x.bfloat16())
    assert output.dtype == torch.bfloat16 and whole.running_mean.dtype == torch.bfloat16


class Body(nn.Module):
    """A network with a Sequential stage and a bare layer, as torchvision's ResNets have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer3 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.conv1(x)).mean((2, 3)))


def test_insert_after() -> None:
    model = Body().double()
    before = model.state_dict().keys()
    module = reid_ops.HSGM.insert_after(model, "layer3", (33, 32), scales=(1, 2))
    assert (module.channels, module.height, module.width) == (12, 9, 8) and module.scales == (1, 2)
    assert before <= model.state_dict().keys() and "layer3.hsgm.theta" in model.state_dict()
    assert model.training and int(model.layer3[1].num_batches_tracked) == 0
    assert model(torch.randn(4, 3, 33, 32).double()).shape == (4, 2)
    assert module.num_batches_tracked == 1
    reid_ops.HSGM.insert_after(model, "conv1", (33, 32))
    assert "conv1.body.weight" in model.state_dict()
    assert model(torch.randn(4, 3, 33, 32).double()).shape == (4, 2)
    with pytest.raises(ValueError, match="has a module hsgm already"):
        reid_ops.HSGM.insert_after(model, "layer3", (33, 32))
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        reid_ops.HSGM.insert_after(model, "layer9", (33, 32))
    with pytest.raises(ValueError, match=r"layer 'head' does not give features \(N, C, H, W\)"):
        reid_ops.HSGM.insert_after(model, "head", (33, 32))


def test_insert_after_a_sequential_with_its_own_forward() -> None:
    """It would not run what is appended, or not last: it is wrapped."""

    class FirstTwo(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x))

    class Named(nn.Sequential):
        pass

    for kind, name in ((FirstTwo, "layer3.body.0.weight"), (Named, "layer3.0.weight")):
        model = Body()
        model.layer3 = kind(*model.layer3)
        module = reid_ops.HSGM.insert_after(model, "layer3", (32, 32))
        assert name in model.state_dict()
        model(torch.randn(2, 3, 32, 32))
        assert module.num_batches_tracked == 1


def test_insert_after_in_a_resnet() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    before = dict(model.state_dict())
    module = reid_ops.HSGM.insert_after(model, "layer3", (128, 64))
    assert (module.channels, module.height, module.width) == (256, 8, 4)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model(torch.randn(2, 3, 128, 64)).shape == (2, 1000)


def test_dense_and_sparse_reference_agree() -> None:
    shape = (2, 6, 8, 5)
    module = make(shape, "cpu")
    x = torch.randn(shape, dtype=torch.float64)
    parameters = (module.theta, module.delta, module.weight, module.bias, None, None)
    forms = [
        reid_ops.reference.hsgm(x, *parameters, divisions=module.divisions, form=form)
        for form in ("dense", "sparse")
    ]
    torch.testing.assert_close(*forms, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module(x), forms[0], rtol=1e-12, atol=1e-12)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "channels": ({"channels": 0}, ValueError, r"channels must be in \[1, 32768\], got 0"),
    "height": ({"height": 2.0}, TypeError, "height must be an int, got float"),
    "no levels": ({"levels": ()}, ValueError, "levels must hold 1 to 6 numbers of maps, got 0"),
    "levels fall": ({"levels": (2, 1)}, ValueError, r"levels must increase, got \(2, 1\)"),
    "levels too many": ({"levels": (1, 9)}, ValueError, "9 x 1 maps do not fit features of 8 x 6"),
    "levels cut too often": ({"height": 200, "levels": (29, 30, 31)}, ValueError, "levels must cut the rows at fewer than 64 places"),
    "grid": ({"levels": (1, 3), "split": "grid"}, ValueError, "levels must be powers of two to split a grid, got 3"),
    "split": ({"split": "columns"}, ValueError, 'split must be one of "stripes", "grid", got \'columns\''),
    "scales": ({"scales": ()}, ValueError, "scales must hold 1 to 8 window sizes, got 0"),
    "scale": ({"scales": (0,)}, ValueError, r"scales must be in \[1, 32768\], got 0"),
    "edges": ({"edges": "cosine"}, ValueError, "edges must be one of"),
    "neighborhood": ({"neighborhood": 5}, ValueError, "neighborhood of a grid must be 4, 8 or"),
    "channel_window": ({"channel_window": 0}, ValueError, r"channel_window must be in \[1, 181\], got 0"),
    "channel_window type": ({"channel_window": ("radius", 2)}, TypeError, "channel_window must be an int, got tuple"),
    "levels type": ({"levels": 3}, TypeError, "levels must be a sequence of ints, got int"),
    "scales type": ({"scales": None}, TypeError, "scales must be a sequence of ints, got NoneType"),
    "eps": ({"eps": -1e-5}, ValueError, r"eps must be in \[0, .*\], got -1e-05"),
    "eps type": ({"eps": "small"}, TypeError, "eps must be a number, got str"),
    "momentum": ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
    "momentum type": ({"momentum": None}, TypeError, "momentum must be a number, got NoneType"),
    "residual": ({"residual": 0.5}, TypeError, "residual must be a bool, got float"),
    "negative_slope": ({"negative_slope": float("nan")}, ValueError, "negative_slope must be in .*, got nan"),
    "edges type": ({"edges": ["softmax"]}, ValueError, "edges must be one of"),
    "pooling": ({"pooling": "max"}, ValueError, "pooling must be one of"),
    "impl": ({"impl": "fast"}, ValueError, 'impl must be one of "fused", "reference", got \'fast\''),
    "share_parameters": ({"share_parameters": "map"}, ValueError, "share_parameters must be False, True or"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_options(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {"channels": 4, "height": 8, "width": 6, **change}
    size = [arguments.pop(key) for key in ("channels", "height", "width")]
    with pytest.raises(error, match=message):
        reid_ops.HSGM(*size, **arguments)  # type: ignore[arg-type]


def test_options_are_fixed() -> None:
    """A change would reach one implementation and not the other."""
    module = reid_ops.HSGM(4, 8, 6, neighborhood=["radius", 2])  # type: ignore[arg-type]  # of a JSON file
    assert module.neighborhood == ("radius", 2)
    for name, value in (("eps", 0.1), ("negative_slope", 0.0), ("edges", "none"), ("divisions", [])):
        with pytest.raises(AttributeError, match=f"{name} is fixed"):
            setattr(module, name, value)
    module.impl, module.momentum, module.sync_batchnorm = "reference", 0.5, True
    copied = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert copied.extra_repr() == module.extra_repr()
    copied(torch.rand(2, 4, 8, 6))


def test_bad_input() -> None:
    module = reid_ops.HSGM(4, 8, 6)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4, 8, 6\), got \(2, 4, 6, 8\)"):
        module(torch.zeros(2, 4, 6, 8))
    with pytest.raises(ValueError, match=r"x must have shape \(N, C, H, W\), got \(4, 8, 6\)"):
        module(torch.zeros(4, 8, 6))
    with pytest.raises(TypeError, match=r"x must be float32.*got int64"):
        module(torch.zeros(2, 4, 8, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="x must be on the device of the parameters"):
        module(torch.zeros(2, 4, 8, 6, device="meta"))
    for impl in ("fused", "reference"):
        tiny = reid_ops.HSGM(4, 4, 1, impl=impl)
        with pytest.raises(ValueError, match="more than one value per channel"):
            tiny(torch.zeros(1, 4, 4, 1))
        assert tiny.eval()(torch.zeros(1, 4, 4, 1)).shape == (1, 4, 4, 1)


def test_operators_check_too(backend: Backend) -> None:
    """Calls that bypass the module raise instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    ops = getattr(torch.ops, backend.library)
    x, planes, by_map = torch.zeros(2, 4, 8, 6), torch.zeros(2, 1, 8, 6), torch.zeros(2, 1, 4)
    for operator, arguments, message in (
        (ops.similarity_graph_squeeze, (x[0], [1], [1]), "features must have shape"),
        (ops.similarity_graph_squeeze, (x, [], []), "there must be 1 to 6 levels"),
        (ops.similarity_graph_squeeze, (x, [1, 2], [1]), "there must be 1 to 6 levels"),
        (ops.similarity_graph_squeeze, (x, [9], [1]), "none empty, got 9x1 maps on 8x6"),
        (ops.similarity_graph_excite, (x, planes[:1], by_map, by_map, [1], [1], 1.0, 1.0, 0.2), "centred must have shape"),
        (ops.similarity_graph_excite, (x, planes, by_map.double(), by_map, [1], [1], 1.0, 1.0, 0.2), "scale must be float32"),
        (ops.similarity_graph_sums, (x, planes, by_map, by_map[..., :2], [1], [1], 1.0, 0.2), "shift must have shape"),
        (ops.similarity_graph_input, (x, None, by_map[:, :0], [1], [1], 1.0), "grad_means must have shape"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes, [1], [1], [1], 0, 1, False, 1), "theta must have shape"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes[:1, None, 0], [1], [1], [0], 0, 1, False, 1), "scales must be >= 1"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes[:1], [1], [1], [1], 9, 1, False, 1), "pooling must be in"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=message):
            operator(*arguments)


PROCESSES = """
import sys, torch, reid_ops
from torch.nn.parallel import DistributedDataParallel
from tests.test_hsgm import make, run, assert_close
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
    for name in ("running_mean", "running_var"):
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
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    @pytest.fixture(autouse=True)
    def _needs_cuda(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")

    def test_graph_capture(self) -> None:
        shape = (4, 64, 16, 8)
        module = make(shape, "cuda", torch.float32)
        x, grad = torch.randn(2, *shape, device="cuda")
        x.requires_grad_()

        def step() -> tuple[Tensor, ...]:
            y = module(x)
            return y, *torch.autograd.grad(y, [x, *module.parameters()], grad)

        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            step()
        torch.cuda.current_stream().wait_stream(warm)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
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
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(20_000_000)  # were the op on another stream, it would read too early
                actual = module(x * 1.0)
            stream.synchronize()
        assert torch.equal(actual, expected)
