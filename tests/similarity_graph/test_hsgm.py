"""The HSGM module: fused against reference, in every option, on every backend.

In float64 both must agree to rounding. In lower precision the fused module may lose four times what the
reference loses in float32 on the same input, both against float64, plus roundings of the stored result.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reid_ops
from tests.conftest import Backend
from tests.similarity_graph.support import Results, assert_close, make, run
from tests.similarity_graph.test_graph import DTYPES, ROUNDING

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
    "pooling stride_bilinear": {"pooling": "stride_bilinear", "scales": (1, 2, 3, 7)},
    "pooling valid_bilinear": {"pooling": "valid_bilinear", "scales": (1, 2, 3, 7)},
    "spatial graph without edges": {"spatial": False, "ablate": "edges"},
    "channel graph without edges": {"channel": False, "ablate": "edges"},
    "graphs without edges": {"spatial": False, "channel": False, "ablate": "edges"},
    "interpolated": {"upsample": "interp"},
    "interpolated grid": {"upsample": "interp", "split": "grid", "aggregate_scale": 1 / 3},
    "interpolated, no residual, a graph": {"upsample": "interp", "residual": False, "channel": False},
    "interpolated, no graph": {"upsample": "interp", "spatial": False, "channel": False},
    "eps and momentum": {"eps": 0.1, "momentum": 0.7},
}


SHAPES = [(3, 20, 9, 6), (2, 130, 16, 8), (3, 33, 13, 7), (2, 1, 4, 1), (1, 3, 8, 5), (2, 5, 31, 19)]


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
    options: dict[str, Any] = {"levels": levels, "upsample": "interp", "pooling": "stride_bilinear"}
    expected = run(make(shape, backend.device, impl="reference", **options), x, grad)
    found = run(make(shape, backend.device, **options), *ordered)
    assert found["y"].is_contiguous(memory_format=layout)
    assert_close(found, expected, 1e-11)


def check_precision(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str, **options: Any
) -> None:
    """Against float64, the fused module is about as precise as plain PyTorch in float32."""
    x = torch.randn(shape, device=device).to(dtype)
    grad = torch.randn_like(x)
    own = torch.float64 if dtype == torch.float64 else torch.float32
    exact = run(make(shape, device, impl="reference", **options), x.double(), grad.double())
    plain = run(make(shape, device, own, impl="reference", **options), x.to(own), grad.to(own))
    module = make(shape, device, own, **options)
    found = run(module, x.to(memory_format=layout), grad)
    for name, true in exact.items():
        usual = (plain[name].double() - true).abs().max()
        stored = ROUNDING[dtype] if name in ("y", "x.grad") else 0.0
        allowed = 4 * usual + (2 * stored + 16 * ROUNDING[own]) * true.abs().max()
        if name == "delta.grad":
            allowed = allowed + 16 * ROUNDING[own] * exact["norm.weight.grad"].abs().max() * shape[0]
        error = (found[name].double() - true).abs().max()
        assert error <= allowed, f"{name}: off by {error:.3g}, plain PyTorch by {usual:.3g}"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(backend: Backend, dtype: torch.dtype, layout: torch.memory_format) -> None:
    check_precision((4, 150, 16, 8), dtype, layout, backend.device)
    check_precision((3, 37, 13, 7), dtype, layout, backend.device)
    check_precision(
        (3, 37, 13, 7), dtype, layout, backend.device, upsample="interp", pooling="valid_bilinear"
    )


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split": "grid", "edges": "product"},
        {"residual": False},
        {"upsample": "interp", "pooling": "stride_bilinear"},
        {"pooling": "valid_bilinear", "spatial": False, "ablate": "edges"},
    ],
    ids=str,
)
def test_gradcheck(backend: Backend, training: bool, options: dict[str, Any]) -> None:
    shape = (2, 3, 5, 4)
    module = make(shape, backend.device, **options).train(training)
    names = [name for name, _ in module.named_parameters()]
    x = torch.randn(shape, dtype=torch.float64, device=backend.device, requires_grad=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *(p.detach().requires_grad_() for p in module.parameters())))


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
    for name in ("y", "x.grad", "norm.running_mean", "norm.running_var"):
        usual = (plain[name].double() - exact[name]).abs().max()
        error = (found[name].double() - exact[name]).abs().max()
        assert error <= 8 * usual, f"{name}: off by {error:.3g}, plain PyTorch by {usual:.3g}"
    # usual is now the running variance's.
    squares = (
        exact["norm.running_mean"].square().max()
    )  # one rounding of what a difference of moments subtracts
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


@pytest.mark.parametrize("pooling", ["stride_bilinear", "valid_bilinear"])
@pytest.mark.parametrize("shape", [(1, 4), (2, 7), (16, 8), (31, 5)], ids=str)
def test_bilinear_pooling_and_its_gradient(backend: Backend, shape: tuple[int, int], pooling: str) -> None:
    """One map without edges: a is theta times AP_k(S), and so is theta's gradient; windows up to any size."""
    for k in (1, 2, 3, 4, 9, 40):
        options: dict[str, Any] = {"levels": (1,), "scales": (k,), "edges": "none", "pooling": pooling}
        x = torch.randn(3, 2, *shape, dtype=torch.float64, device=backend.device)
        grad = torch.randn_like(x)
        results = [
            run(make(x.shape, backend.device, impl=i, **options), x, grad) for i in ("fused", "reference")
        ]
        assert_close(*results, 1e-11)


def test_interpolation_adds_each_child_to_its_parent(backend: Backend) -> None:
    """With batch norms that give zero, what is left is the residual: x and its interpolated parts."""
    x = torch.randn(2, 3, 8, 5, dtype=torch.float64, device=backend.device)

    def up(part: Tensor, rows: int) -> Tensor:
        return nn.functional.interpolate(part, (rows, 5), mode="bilinear")

    halves = [half + sum(up(quarter, 4) for quarter in half.split(2, 2)) for half in x.split(4, 2)]
    for impl in ("fused", "reference"):
        module = reid_ops.HSGM(3, 8, 5, upsample="interp", zero_init_residual=True, impl=impl)
        found = module.to(backend.device, torch.float64)(x)
        torch.testing.assert_close(found, x + sum(up(half, 8) for half in halves), rtol=1e-13, atol=1e-13)


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
