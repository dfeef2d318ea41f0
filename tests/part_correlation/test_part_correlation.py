"""part_correlation and csn_similarity against the reference, on every backend.

Tolerances are not tuned: a dot product of n terms in precision u differs from the exact one by at
most (n + 2) * u * sum |x| |f|, which the reference gives on absolute values.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reid_ops
from reid_ops import reference
from tests.conftest import Backend, other_thread_count

# Rounding unit of accumulation and of the stored result.
ACCUMULATE = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-24,
}
STORE = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float64: 0.0, torch.float32: 1e-38, torch.float16: 6e-8, torch.bfloat16: 1e-38}
DTYPES = list(STORE)

# N, C, H, W, P, kh, kw
SHAPES = {
    "level 2": (2, 18, 40, 15, 3, 10, 10),
    "level 3": (3, 33, 20, 8, 3, 5, 5),
    "level 3, floor pool": (1, 16, 20, 7, 3, 5, 5),
    "level 4": (2, 96, 10, 4, 3, 3, 3),
    "one of everything": (1, 1, 1, 1, 1, 1, 1),
    "one pixel, large filter": (2, 3, 1, 1, 2, 7, 9),
    "primes": (3, 7, 13, 11, 5, 3, 7),
    "one row": (2, 5, 1, 37, 4, 1, 6),
    "one column": (2, 5, 37, 1, 2, 6, 1),
    "filter larger than map": (2, 4, 3, 5, 2, 8, 12),
    "1x1 filters": (2, 17, 9, 6, 6, 1, 1),
    "even and odd": (1, 6, 12, 10, 1, 4, 5),
    "many parts": (1, 3, 8, 8, 11, 3, 3),
    "wider than a tile": (1, 2, 9, 130, 1, 3, 5),
    "taller than a tile": (1, 2, 150, 9, 2, 5, 3),
    "filter of 17": (1, 2, 20, 18, 2, 17, 17),
}
POOLS = [1, 2, 3]


def random_inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    n, c, h, w, p, kh, kw = shape
    signal = torch.randn(n, c, h, w, dtype=torch.float64).to(dtype).to(device)
    parts = torch.randn(n, p, c, kh, kw, dtype=torch.float64).to(dtype).to(device)
    return signal, parts


def bound(magnitude: Tensor, exact: Tensor, terms: int, dtype: torch.dtype) -> Tensor:
    """How far a result may lie from the exact one: rounding while adding up, then when storing."""
    return (terms + 2) * ACCUMULATE[dtype] * magnitude + STORE[dtype] * exact.abs() + SMALLEST[dtype]


def assert_within(actual: Tensor, exact: Tensor, allowed: Tensor) -> None:
    assert actual.shape == exact.shape
    excess = (actual.double() - exact).abs() - allowed
    assert not (excess > 0).any(), f"off by {excess.max().item():.3g} more than rounding allows"
    assert not actual.isnan().any()


def exact_gradients(
    signal: Tensor, parts: Tensor, pairs: Tensor | None, grad: Tensor, argmax: Tensor | None, pool: int
) -> tuple[Tensor, Tensor]:
    """float64 gradients of the reference; behind a pool, at the maxima the kernel had chosen.

    (Where two values of a window differ by less than rounding, either may be chosen.)
    """
    signal, parts = signal.double().requires_grad_(), parts.double().requires_grad_()
    output = reference.part_correlation(signal, parts, pairs=pairs)
    if pool > 1:
        assert argmax is not None
        output = pick(output, argmax, pool)
    gradients = torch.autograd.grad(output, (signal, parts), grad.double())
    return gradients[0], gradients[1]


def pick(full: Tensor, argmax: Tensor, pool: int) -> Tensor:
    rows = torch.arange(argmax.shape[2], device=full.device)[:, None] * pool
    columns = torch.arange(argmax.shape[3], device=full.device) * pool
    position = (rows + argmax // pool) * full.shape[3] + columns + argmax % pool
    return full.flatten(2).gather(2, position.flatten(2).long()).view(argmax.shape)


def check_against_reference(
    backend: Backend, signal: Tensor, parts: Tensor, pool: int, pairs: Tensor | None = None
) -> None:
    """Forward and both gradients within rounding of the float64 reference."""
    dtype = signal.dtype
    signal, parts = signal.requires_grad_(), parts.requires_grad_()
    output = reid_ops.part_correlation(signal, parts, pool=pool, pairs=pairs)
    operator = getattr(torch.ops, backend.library).part_correlation
    with torch.no_grad():
        again, argmax = operator(signal, parts, pairs, pool, True)
    assert torch.equal(output, again)
    assert output.dtype == dtype and output.is_contiguous()

    wide, wide_parts = signal.detach().double(), parts.detach().double()
    terms = parts.shape[-1] * parts.shape[-2]
    exact = reference.part_correlation(wide, wide_parts, pairs=pairs)
    allowed = bound(
        reference.part_correlation(wide.abs(), wide_parts.abs(), pairs=pairs), exact, terms, dtype
    )
    if pool > 1:
        chosen, worst = pick(exact, argmax, pool), F.max_pool2d(allowed, pool, ceil_mode=True)
        exact = F.max_pool2d(exact, pool, ceil_mode=True)
        assert not (chosen < exact - 2 * worst).any(), "argmax is not a maximum"
        allowed = worst
    assert_within(output.detach(), exact, allowed)

    grad = torch.randn_like(output)
    to_signal, to_parts = torch.autograd.grad(output, (signal, parts), grad)
    exact_pair = exact_gradients(signal.detach(), parts.detach(), pairs, grad, argmax, pool)
    magnitudes = exact_gradients(signal.detach().abs(), parts.detach().abs(), pairs, grad.abs(), argmax, pool)
    uses = 1 if pairs is None else pairs.shape[0]
    map_size = signal.shape[2] * signal.shape[3]
    for actual, true, magnitude, count in (
        (to_signal, exact_pair[0], magnitudes[0], uses * parts.shape[1] * terms),
        (to_parts, exact_pair[1], magnitudes[1], uses * map_size),
    ):
        assert actual.dtype == dtype
        assert_within(actual, true, bound(magnitude, true, count, dtype))


@pytest.mark.sanitize
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", SHAPES)
def test_matches_reference(backend: Backend, name: str, pool: int) -> None:
    signal, parts = random_inputs(SHAPES[name], torch.float32, backend.device)
    check_against_reference(backend, signal, parts, pool)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["level 3", "primes", "even and odd", "1x1 filters", "wider than a tile"])
def test_dtypes(backend: Backend, name: str, dtype: torch.dtype) -> None:
    for pool in (1, 2):
        signal, parts = random_inputs(SHAPES[name], dtype, backend.device)
        check_against_reference(backend, signal, parts, pool)


@pytest.mark.parametrize("shape", [(2, 5, 70, 33, 2, 31, 31), (1, 2, 40, 70, 1, 64, 64)], ids=str)
@pytest.mark.parametrize("pool", [1, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_filters(backend: Backend, shape: tuple[int, ...], pool: int, dtype: torch.dtype) -> None:
    signal, parts = random_inputs(shape, dtype, backend.device)
    check_against_reference(backend, signal, parts, pool)


@pytest.mark.sanitize
@pytest.mark.parametrize("kernel", [(3, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("pool", [1, 2])
def test_pairs(backend: Backend, pool: int, kernel: tuple[int, int]) -> None:
    """Rows used often, once and never; the last has no gradient."""
    signal = torch.randn(4, 19, 9, 7, device=backend.device)
    parts = torch.randn(3, 2, 19, *kernel, device=backend.device)
    pairs = torch.tensor([[0, 1], [3, 0], [3, 1], [0, 0], [0, 1], [1, 1], [3, 1]], device=backend.device)
    check_against_reference(backend, signal, parts, pool, pairs)
    reid_ops.part_correlation(signal, parts, pool=pool, pairs=pairs).sum().backward()
    assert signal.grad is not None and parts.grad is not None
    assert not signal.grad[2].any() and not parts.grad[2].any()


def test_pairs_without_repetition_equal_rows(backend: Backend) -> None:
    signal, parts = random_inputs((5, 6, 8, 7, 2, 3, 3), torch.float32, backend.device)
    order = torch.tensor([3, 1, 4, 0, 2], device=backend.device)
    by_pairs = reid_ops.part_correlation(signal, parts, pairs=torch.stack([order, order], 1))
    assert torch.equal(by_pairs, reid_ops.part_correlation(signal, parts)[order])


def test_one_gradient_alone_equals_both(backend: Backend) -> None:
    """Wanted together, the gradients come from one kernel; apart, and for large maps, from two."""
    for shape in ((3, 20, 13, 9, 3, 4, 5), (1, 2, 150, 90, 2, 5, 3)):
        signal, parts = random_inputs(shape, torch.float32, backend.device)
        grad = torch.randn(shape[0], shape[4] * shape[1], -(-shape[2] // 2), -(-shape[3] // 2))
        apart = []
        for wanted in ((True, True), (True, False), (False, True)):
            signal.requires_grad_(wanted[0]), parts.requires_grad_(wanted[1])
            output = reid_ops.part_correlation(signal, parts, pool=2)
            inputs = [tensor for tensor, want in zip((signal, parts), wanted, strict=True) if want]
            apart.append(torch.autograd.grad(output, inputs, grad.to(backend.device)))
        assert torch.equal(apart[0][0], apart[1][0]) and torch.equal(apart[0][1], apart[2][0])


def test_empty(backend: Backend) -> None:
    signal = torch.randn(0, 4, 6, 5, device=backend.device, requires_grad=True)
    parts = torch.randn(0, 2, 4, 3, 3, device=backend.device, requires_grad=True)
    output = reid_ops.part_correlation(signal, parts, pool=2)
    assert output.shape == (0, 8, 3, 3)
    output.sum().backward()
    assert signal.grad is not None and signal.grad.shape == signal.shape

    signal, parts = random_inputs((2, 4, 6, 5, 2, 3, 3), torch.float32, backend.device)
    signal.requires_grad_()
    pairs = torch.zeros(0, 2, dtype=torch.int64, device=backend.device)
    output = reid_ops.part_correlation(signal, parts, pairs=pairs)
    assert output.shape == (0, 8, 6, 5)
    output.sum().backward()
    assert signal.grad is not None and not signal.grad.any()


def layouts(signal: Tensor, parts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The same values in other memory layouts."""
    wide = torch.full((*signal.shape[:3], 2 * signal.shape[3] + 1), float("nan"), dtype=signal.dtype).to(
        signal.device
    )
    wide[..., 1::2] = signal
    return {
        "channels last": (
            signal.to(memory_format=torch.channels_last),
            parts.movedim(2, -1).contiguous().movedim(-1, 2),
        ),
        "every other column": (wide[..., 1::2], parts.transpose(-1, -2).contiguous().transpose(-1, -2)),
        "batch innermost": (
            signal.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
            parts.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["channels last", "every other column", "batch innermost"])
def test_layouts(backend: Backend, layout: str, dtype: torch.dtype) -> None:
    signal, parts = random_inputs((3, 35, 9, 7, 3, 4, 3), dtype, backend.device)
    expected = reid_ops.part_correlation(signal, parts, pool=2)
    other, other_parts = layouts(signal, parts)[layout]
    assert not other.is_contiguous() and not other_parts.is_contiguous()
    assert torch.equal(other, signal) and torch.equal(other_parts, parts)
    assert torch.equal(reid_ops.part_correlation(other, other_parts, pool=2), expected)
    check_against_reference(backend, other, other_parts, 2)


def test_expanded_inputs_and_gradients(backend: Backend) -> None:
    """Stride 0, in the inputs and in the upstream gradient (as from .sum())."""
    signal = torch.randn(1, 3, 6, 5, device=backend.device).expand(4, -1, -1, -1)
    parts = torch.randn(4, 2, 1, 3, 3, device=backend.device).expand(-1, -1, 3, -1, -1).requires_grad_()
    (actual,) = torch.autograd.grad(reid_ops.part_correlation(signal, parts).sum(), parts)
    (expected,) = torch.autograd.grad(reference.part_correlation(signal, parts).sum(), parts)
    torch.testing.assert_close(actual, expected)


def test_equals_grouped_convolution(backend: Backend) -> None:
    """The published depthwise cross-correlation: one conv2d with a group per image and channel."""
    signal, parts = random_inputs((3, 8, 12, 9, 1, 4, 3), torch.float64, backend.device)
    padded = F.pad(signal, (1, 1, 1, 2)).reshape(1, 24, 15, 11)
    expected = F.conv2d(padded, parts.reshape(24, 1, 4, 3), groups=24).view(3, 8, 12, 9)
    torch.testing.assert_close(reid_ops.part_correlation(signal, parts), expected)


def test_an_impulse_gives_the_filter_unflipped(backend: Backend) -> None:
    """By hand: an impulse at (3, 3) brings tap (u, v) to output (3 + top - u, 3 + left - v)."""
    signal = torch.zeros(1, 1, 7, 7, device=backend.device)
    signal[..., 3, 3] = 1
    parts = torch.arange(1.0, 13.0, device=backend.device).view(1, 1, 1, 3, 4)
    output = reid_ops.part_correlation(signal, parts)[0, 0]
    assert torch.equal(output[2:5, 1:5], parts[0, 0, 0].flip(0, 1))
    assert output.count_nonzero() == 12


def test_csn_similarity(backend: Backend) -> None:
    first, second = torch.randn(2, 3, 5, 9, 6, device=backend.device)
    parts_first, parts_second = torch.randn(2, 3, 3, 5, 4, 4, device=backend.device)
    for pool in (1, 2):
        actual = reid_ops.csn_similarity(first, second, parts_first, parts_second, pool=pool)
        expected = reference.csn_similarity(first, second, parts_first, parts_second, pool=pool)
        assert actual.shape[1] == 2 * 3 * 5
        torch.testing.assert_close(actual, expected)
        for impl in ("fused", "reference"):
            module = reid_ops.CSNSimilarity(pool, impl=impl)
            torch.testing.assert_close(module(first, second, parts_first, parts_second), expected)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_gradcheck(backend: Backend, pool: int, with_pairs: bool) -> None:
    """Gradients and double gradients against finite differences."""
    signal = torch.randn(2, 3, 5, 4, dtype=torch.float64, device=backend.device, requires_grad=True)
    parts = torch.randn(2, 2, 3, 2, 3, dtype=torch.float64, device=backend.device, requires_grad=True)
    pairs = torch.tensor([[0, 1], [1, 1], [0, 0]], device=backend.device) if with_pairs else None

    def call(x: Tensor, f: Tensor) -> Tensor:
        return reid_ops.part_correlation(x, f, pool=pool, pairs=pairs)

    assert torch.autograd.gradcheck(call, (signal, parts))
    assert torch.autograd.gradgradcheck(call, (signal, parts))


def test_deterministic_and_independent_of_batch_and_threads(backend: Backend) -> None:
    """Bit for bit: again, one image alone, and with another number of threads."""
    signal, parts = random_inputs((5, 7, 21, 9, 3, 5, 4), torch.float32, backend.device)
    signal.requires_grad_(), parts.requires_grad_()
    pairs = torch.randint(0, 5, (12, 2), device=backend.device)

    def run() -> tuple[Tensor, ...]:
        output = reid_ops.part_correlation(signal, parts, pool=2, pairs=pairs)
        return output, *torch.autograd.grad(output.square().sum(), (signal, parts))

    first = run()
    with other_thread_count():
        second = run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    whole = reid_ops.part_correlation(signal, parts)
    assert torch.equal(whole[3:4], reid_ops.part_correlation(signal[3:4], parts[3:4]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_signal_reaches_its_outputs_and_no_others(backend: Backend, value: float) -> None:
    signal, parts = random_inputs((2, 3, 9, 8, 2, 4, 3), torch.float32, backend.device)
    signal[1, 2, 4, 5] = value
    for pool in (1, 2):
        output = reid_ops.part_correlation(signal, parts, pool=pool)
        expected = reference.part_correlation(signal, parts, pool=pool)
        assert torch.equal(output.isnan(), expected.isnan())
        assert torch.equal(output.isfinite(), expected.isfinite())
        assert not output.isfinite().all()


def test_nan_in_a_filter_reaches_its_maps(backend: Backend) -> None:
    signal, parts = random_inputs((2, 3, 9, 8, 2, 4, 3), torch.float32, backend.device)
    parts[0, 1, 2, 1, 1] = float("nan")
    output = reid_ops.part_correlation(signal, parts)
    assert output[0, 1 * 3 + 2].isnan().all()  # the tap at the centre meets every pixel
    assert output.isnan().sum() == 9 * 8
