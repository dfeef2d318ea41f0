"""stripe_pool against the reference, on every backend.

Maxima are exact. A mean of n values differs from the exact one by at most (n + 2) * u * mean |x|, and a
gradient of m terms likewise, which the reference gives on absolute values.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from tests.conftest import Backend, other_thread_count

# Rounding unit of the stored result; sums are kept in float32, of float64 in float64.
STORE = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float64: 0.0, torch.float32: 1e-38, torch.float16: 6e-8, torch.bfloat16: 1e-38}
DTYPES = list(STORE)
LAYOUTS = ["contiguous", "channels-last"]

# N, C, H, W, stripes
SHAPES = {
    "paper, few channels": (2, 48, 24, 8, 6),
    "one of everything": (1, 1, 1, 1, 1),
    "one stripe": (2, 5, 7, 3, 1),
    "stripes of one row": (1, 33, 6, 5, 6),
    "stripes of one pixel": (3, 70, 5, 1, 5),
    "primes": (3, 7, 33, 13, 11),
    "fewer channels than lanes": (2, 3, 12, 8, 3),
    "one channel more than a group": (1, 65, 8, 4, 4),
    "one channel more than four groups": (1, 129, 4, 2, 2),
    "stripes longer than a chunk": (1, 17, 12, 100, 2),
    "chunks that cut stripes": (1, 18, 60, 11, 12),
    "most stripes": (1, 5, 64, 2, 64),
}


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: str, layout: str = "contiguous") -> Tensor:
    x = torch.randn(shape[:4], dtype=torch.float64).to(dtype).to(device)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels-last" else x


def exact(x: Tensor, stripes: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The float64 reference's output (N, windows, 2, C) and gradient."""
    wide = x.detach().double().requires_grad_()
    output = reference.stripe_pool(wide, stripes, stacked=True)
    assert isinstance(output, Tensor)
    return output.detach(), torch.autograd.grad(output, wide, grad.double())[0]


def assert_within(actual: Tensor, expected: Tensor, magnitude: Tensor, terms: int) -> None:
    dtype = actual.dtype
    unit = STORE[torch.float64 if dtype == torch.float64 else torch.float32]
    allowed = (terms + 2) * unit * magnitude + STORE[dtype] * expected.abs() + SMALLEST[dtype]
    excess = (actual.double() - expected).abs() - allowed
    assert not (excess > 0).any(), f"off by {excess.max().item():.3g} more than rounding allows"
    assert not actual.isnan().any()


def check_against_reference(x: Tensor, stripes: int) -> None:
    """Forward exactly or within rounding, the gradient within rounding, all in x's dtype and layout."""
    x = x.detach().requires_grad_()
    output = reid_ops.stripe_pool(x, stripes, stacked=True)
    assert output.dtype == x.dtype and output.is_contiguous()
    with torch.no_grad():  # without argmax
        assert torch.equal(reid_ops.stripe_pool(x, stripes, stacked=True), output)
        maximum, mean = reid_ops.stripe_pool(x, stripes)
    assert torch.equal(maximum, output[:, :, 0]) and torch.equal(mean, output[:, :, 1])

    grad = torch.randn_like(output)
    expected, expected_gradient = exact(x, stripes, grad)
    magnitude, _ = exact(x.detach().abs(), stripes, grad)
    assert torch.equal(output[:, :, 0].double(), expected[:, :, 0])
    terms = x.shape[2] * x.shape[3]
    assert_within(output[:, :, 1].detach(), expected[:, :, 1], magnitude[:, :, 1], terms)

    (gradient,) = torch.autograd.grad(output, x, grad)
    # The same maxima win for these, so every term counts with its magnitude.
    _, magnitude = exact(x, stripes, grad.abs())
    assert gradient.dtype == x.dtype and gradient.stride() == x.stride()
    assert_within(gradient, expected_gradient, magnitude, stripes * (stripes + 1))


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SHAPES)
def test_matches_reference(backend: Backend, name: str, layout: str) -> None:
    shape = SHAPES[name]
    check_against_reference(random_map(shape, torch.float32, backend.device, layout), shape[4])


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(backend: Backend, dtype: torch.dtype, layout: str) -> None:
    for shape in ((2, 40, 12, 8, 3), (1, 19, 30, 9, 5), (1, 130, 4, 3, 2)):
        check_against_reference(random_map(shape, dtype, backend.device, layout), shape[4])


def test_windows_of_the_paper() -> None:
    """21 windows: two explicit ranges of section III-C, and how often each stripe takes part."""
    windows = reference.stripe_windows(6)
    assert len(windows) == 21 and windows[0] == (0, 6)
    assert windows[1:3] == [(0, 5), (1, 6)] and windows[15:] == [(k, k + 1) for k in range(6)]
    assert sum(end - first for first, end in windows) == 56


def test_against_plain_slices(backend: Backend) -> None:
    """Not by the reference: window by window as PyTorch users write it."""
    x = random_map((2, 20, 24, 8), torch.float32, backend.device)
    maximum, mean = reid_ops.stripe_pool(x)
    assert maximum.shape == mean.shape == (2, 21, 20)
    window = 0
    for length in range(6, 0, -1):
        for first in range(6 - length + 1):
            rows = x[:, :, 4 * first : 4 * (first + length)]
            assert torch.equal(maximum[:, window], rows.amax((2, 3)))
            torch.testing.assert_close(mean[:, window], rows.mean((2, 3)))
            window += 1
    assert window == 21


def test_other_strides(backend: Backend) -> None:
    """Slices, transposed and expanded maps give what their contiguous copies give."""
    base = random_map((4, 24, 26, 18), torch.float32, backend.device)
    views = {
        "slice": base[1:3, 2:20, 1:25, 3:11],
        "every other": base[::2, ::3, ::2][:, :, :12],
        "transposed": base.transpose(2, 3),
        "expanded": base[:1, :1].expand(2, 20, 26, 18),
        "flipped batch": base.flip(0)[..., :8],
    }
    for name, view in views.items():
        stripes = 6 if view.shape[2] % 6 == 0 else 2
        a, b = view.detach().requires_grad_(), view.detach().contiguous().requires_grad_()
        outputs = [reid_ops.stripe_pool(x, stripes, stacked=True) for x in (a, b)]
        assert torch.equal(*outputs), name
        grad = torch.randn_like(outputs[0])
        gradients = [torch.autograd.grad(o, x, grad)[0] for o, x in zip(outputs, (a, b), strict=True)]
        assert torch.equal(*gradients), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ties_go_to_the_first(backend: Backend, layout: str) -> None:
    """Within a stripe, across stripes and everywhere equal, also at minus infinity."""
    for fill in (0.0, -float("inf"), float("inf")):
        x = torch.full((1, 20, 6, 4), fill, device=backend.device)
        if layout == "channels-last":
            x = x.contiguous(memory_format=torch.channels_last)
        if fill == 0.0:
            x[:, ::2, 3, 1:3] = 7.0  # two equal maxima in the second stripe of three
            x[:, ::2, 5, 0] = 7.0  # and one in the third
        x.requires_grad_()
        maximum, _ = reid_ops.stripe_pool(x, 3)
        weights = torch.rand_like(maximum)
        (gradient,) = torch.autograd.grad(maximum, x, weights)
        wide = x.detach().clone().requires_grad_()
        result = reference.stripe_pool(wide, 3)
        assert isinstance(result, tuple)
        (expected,) = torch.autograd.grad(result[0], wide, weights)
        torch.testing.assert_close(gradient, expected)
        if fill == 0.0:
            assert (gradient[:, ::2, 3, 1] > 0).all() and (gradient[:, ::2, 3, 2] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity(backend: Backend, layout: str, dtype: torch.dtype) -> None:
    """As torch's max and mean: NaN wins, the first of several gets the gradient; infinities stay apart."""
    x = random_map((2, 21, 12, 5), dtype, backend.device, layout)
    x[0, 3, 4, 1] = x[0, 3, 4, 3] = x[0, 3, 10, 0] = float("nan")
    x[1, 20, 0, 0] = x[1, 17, 11, 4] = float("nan")
    x[1, 5, 6, 2] = float("inf")
    x[1, 6, 6, 2], x[1, 6, 7, 0] = float("inf"), -float("inf")  # the mean is NaN, the maximum is not
    x.requires_grad_()
    maximum, mean = reid_ops.stripe_pool(x, 4)
    wide = x.detach().double().requires_grad_()
    expected = reference.stripe_pool(wide, 4)
    assert isinstance(expected, tuple)
    assert torch.equal(maximum.isnan(), expected[0].isnan()) and torch.equal(
        mean.isnan(), expected[1].isnan()
    )
    assert torch.equal(maximum.double().nan_to_num(), expected[0].nan_to_num())
    assert torch.equal(mean.isinf(), expected[1].isinf())
    ones = torch.ones_like(maximum)
    (gradient,) = torch.autograd.grad(maximum, x, ones)
    (expected_gradient,) = torch.autograd.grad(expected[0], wide, ones.double())
    assert torch.equal(gradient.double(), expected_gradient)


def test_empty_batch(backend: Backend) -> None:
    x = torch.zeros(0, 5, 12, 4, device=backend.device, requires_grad=True)
    maximum, mean = reid_ops.stripe_pool(x, 3)
    assert maximum.shape == mean.shape == (0, 6, 5)
    (maximum.sum() + mean.sum()).backward()
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(backend: Backend, layout: str) -> None:
    """First and second derivatives by finite differences; distinct values, so that maxima do not change."""
    values = torch.randperm(2 * 3 * 6 * 2).double().view(2, 3, 6, 2).to(backend.device)
    if layout == "channels-last":
        values = values.contiguous(memory_format=torch.channels_last)
    x = values.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: reid_ops.stripe_pool(t, 3), (x,))
    assert torch.autograd.gradgradcheck(lambda t: reid_ops.stripe_pool(t, 3), (x,))


def test_third_derivative_and_one_output(backend: Backend) -> None:
    """The gradient of a gradient penalty; and only the means used."""
    x = random_map((1, 4, 6, 3), torch.float64, backend.device).requires_grad_()

    def penalty(function: object) -> list[Tensor]:
        maximum, mean = function(x, 3)  # type: ignore[operator]
        first = torch.autograd.grad((maximum**3 + mean**3).sum(), x, create_graph=True)[0]
        second = torch.autograd.grad((first**2).sum(), x, create_graph=True)[0]
        return [first, second, torch.autograd.grad(second.sum(), x)[0]]

    for actual, expected in zip(penalty(reid_ops.stripe_pool), penalty(reference.stripe_pool), strict=True):
        torch.testing.assert_close(actual, expected)
    _, mean = reid_ops.stripe_pool(x, 3)
    result = reference.stripe_pool(x, 3)
    torch.testing.assert_close(
        torch.autograd.grad(mean.sum(), x)[0], torch.autograd.grad(result[1].sum(), x)[0]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_deterministic(backend: Backend, layout: str) -> None:
    """Run after run, with other numbers of threads, and row by row as in a batch: the same bits."""
    x = random_map((3, 70, 24, 8), torch.float32, backend.device, layout).requires_grad_()
    output = reid_ops.stripe_pool(x, stacked=True)
    grad = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, x, grad)
    with other_thread_count():
        again = reid_ops.stripe_pool(x, stacked=True)
        assert torch.equal(again, output)
        assert torch.equal(torch.autograd.grad(again, x, grad)[0], gradient)
    row = x.detach()[1:2].requires_grad_()
    alone = reid_ops.stripe_pool(row, stacked=True)
    assert torch.equal(alone, output[1:2])
    assert torch.equal(torch.autograd.grad(alone, row, grad[1:2])[0], gradient[1:2])


def test_layouts_agree(backend: Backend) -> None:
    """Channels-last gives the same maxima and winners, means within rounding."""
    x = random_map((2, 40, 24, 8), torch.float32, backend.device)
    last = x.contiguous(memory_format=torch.channels_last)
    operator = getattr(torch.ops, backend.library).stripe_pool
    (first, winners), (second, winners_last) = operator(x, 6, True), operator(last, 6, True)
    assert torch.equal(first[:, :, 0], second[:, :, 0]) and torch.equal(winners, winners_last)
    torch.testing.assert_close(first, second)


def test_channel_attention_commutes(backend: Backend) -> None:
    """max(s x) = s max(x) bit for bit, mean(s x) = s mean(x) within rounding, for a factor s > 0."""
    x = random_map((2, 50, 24, 8), torch.float32, backend.device)
    factor = torch.rand(2, 50, device=backend.device) + 1e-3
    maximum, mean = reid_ops.stripe_pool(x * factor[:, :, None, None])
    before = reid_ops.stripe_pool(x)
    assert torch.equal(maximum, before[0] * factor[:, None])
    torch.testing.assert_close(mean, before[1] * factor[:, None])
