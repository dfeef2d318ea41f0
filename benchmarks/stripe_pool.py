"""Benchmark of :func:`reid_ops.stripe_pool`: hybrid attention's fused map, and how PyTorch users write it.

Every contender gives what the heads take: maxima and means of all windows in one tensor (N, windows, 2, C).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import reid_ops
import reid_ops.reference
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work
from reid_ops.reference import stripe_windows

# ---------------------------------------------------------------------------------------------- sizes


STRIPES = 6


def _sizes(batch: int, channels: int, height: int = 24, width: int = 8) -> dict[str, int]:
    return {"batch": batch, "channels": channels, "height": height, "width": width}


# The concatenation of ResNet-50's four stages at 24x8, and its last stage alone.
CASES = (
    Case("fused N=16", _sizes(16, 3840), ("cpu", "cuda"), quick=True),
    Case("stage 4 N=16", _sizes(16, 2048), ("cpu",)),
    Case("fused N=64", _sizes(64, 3840), ("cuda",), quick=True),
)
SWEEP = (
    *(Case(f"fused N={batch}", _sizes(batch, 3840)) for batch in (1, 4, 64)),
    Case("stage 1 N=8", _sizes(8, 256, 96, 32)),
    Case("wide N=8", _sizes(8, 2048, 24, 24)),
    Case("stripes of one row N=16", _sizes(16, 2048, 6, 8)),
    Case("odd 61x42x7 N=8", _sizes(8, 61, 42, 7)),
    Case("one image of 3 channels", _sizes(1, 3)),
)

_OPTIONS = {"stripes": STRIPES}
MODES = (Mode("forward", _OPTIONS), Mode("forward + backward", _OPTIONS, backward=True))


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Normal values."""
    sizes = case.sizes
    generator = torch.Generator().manual_seed(seed)
    shape = (sizes["batch"], sizes["channels"], sizes["height"], sizes["width"])
    return Inputs((torch.randn(shape, generator=generator).to(device, dtype),))


# ----------------------------------------------------------------------------------------------- work


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """A comparison and a sum a value, from one read; backward is one write. Windows are a hundredth of that.

    Backward reads the positions of the maxima, which forward writes for it, in 32 bits.
    """
    sizes = case.sizes
    images, windows = sizes["batch"] * sizes["channels"], STRIPES * (STRIPES + 1) // 2
    values = images * sizes["height"] * sizes["width"]
    results = 2 * images * windows * element_size
    flops, read, written = 2 * values, values * element_size, results
    if mode.backward:
        positions = 4 * images * windows
        flops, read = flops + values, read + results + positions
        written += values * element_size + positions
    return Work(flops, flops, read, written)


# ---------------------------------------------------------------------------- formulations in PyTorch

Pool = Callable[[Tensor], Tensor]


def ours(x: Tensor, *, stripes: int) -> Tensor:
    """The operator, looked up at every call."""
    return reid_ops.stripe_pool(x, stripes, stacked=True)


def reference(x: Tensor, *, stripes: int) -> Tensor:
    """The specification in code."""
    output = reid_ops.reference.stripe_pool(x, stripes, stacked=True)
    assert isinstance(output, Tensor)
    return output


def _indexed_maximum(values: Tensor) -> Tensor:
    """Its gradient is a scatter by index; amax shares it among equal maxima, which takes more passes."""
    return values.max(-1).values


def _windows(maximum: Pool, mean: Pool) -> Callable[..., Tensor]:
    """Window by window, 21 times each, as the authors' code does."""

    def function(x: Tensor, *, stripes: int) -> Tensor:
        rows = x.shape[2] // stripes
        parts = [x[:, :, rows * first : rows * end] for first, end in stripe_windows(stripes)]
        both = [pool(part) for part in parts for pool in (maximum, mean)]
        return torch.stack(both, 1).view(x.shape[0], len(parts), 2, x.shape[1])

    return function


def _from_stripes(maxima: Tensor, sums: Tensor, pixels: int) -> Tensor:
    """All windows from the stripes (S, N, C): a window is the one a stripe shorter and its next stripe."""
    stripes = maxima.shape[0]
    levels, maximum, total = [], maxima, sums
    for length in range(1, stripes + 1):
        if length > 1:
            maximum = torch.maximum(maximum[:-1], maxima[length - 1 :])
            total = total[:-1] + sums[length - 1 :]
        levels.append(torch.stack([maximum, total / (length * pixels)], 1))
    return torch.cat(levels[::-1]).permute(2, 0, 1, 3).contiguous()


def _stripes(maximum: Pool) -> Callable[..., Tensor]:
    """Stripe by stripe, every stripe a row of a view."""

    def function(x: Tensor, *, stripes: int) -> Tensor:
        values = x.view(*x.shape[:2], stripes, -1)
        maxima, sums = maximum(values).permute(2, 0, 1), values.sum(-1).permute(2, 0, 1)
        return _from_stripes(maxima, sums, values.shape[-1])

    return function


def _pooled_stripes(x: Tensor, *, stripes: int) -> Tensor:
    """Stripe by stripe, by the pooling layers."""
    rows, width = x.shape[2] // stripes, x.shape[3]
    maxima = F.max_pool2d(x, (rows, width)).flatten(2).permute(2, 0, 1)
    means = F.avg_pool2d(x, (rows, width)).flatten(2).permute(2, 0, 1)
    return _from_stripes(maxima, means, 1)


FORMULATIONS = (
    Formulation("windows", _windows(lambda part: part.amax((2, 3)), lambda part: part.mean((2, 3)))),
    Formulation(
        "windows, indexed",
        _windows(lambda part: _indexed_maximum(part.flatten(2)), lambda part: part.mean((2, 3))),
    ),
    Formulation(
        "windows, adaptive pools",
        _windows(
            lambda part: F.adaptive_max_pool2d(part, 1).flatten(1),
            lambda part: F.adaptive_avg_pool2d(part, 1).flatten(1),
        ),
    ),
    Formulation("stripes", _stripes(lambda values: values.amax(-1))),
    Formulation("stripes, indexed", _stripes(_indexed_maximum)),
    Formulation("stripes, pools", _pooled_stripes),
)


# --------------------------------------------------------------------------------------------- checks


# Of the largest magnitude. Formulations may keep sums of half types in half precision.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def gradient_mask(inputs: Inputs, mode: Mode) -> Tensor:
    """0 where a window's maximum occurs twice: PyTorch's formulations do not agree whose the gradient is."""
    (x,) = (tensor.detach() for tensor in inputs.differentiable)
    rows, windows = x.shape[2] // STRIPES, stripe_windows(STRIPES)
    mask = x.new_ones(x.shape[0], len(windows), 2, x.shape[1])
    for window, (first, end) in enumerate(windows):
        part = x[:, :, rows * first : rows * end].flatten(2)
        mask[:, window, 0] = (part == part.amax(-1, keepdim=True)).sum(-1) == 1
    return mask


BENCHMARK = Benchmark(
    name="stripe_pool",
    ours=ours,
    reference=reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance=TOLERANCE,
    sweep_modes=("forward", "forward + backward"),
    table_cases={"cpu": ("fused N=16", "stage 4 N=16"), "cuda": ("fused N=16", "fused N=64")},
    table_modes=("forward", "forward + backward"),
    headline="forward + backward",
    checked_rows=lambda case: sorted({0, case.sizes["batch"] - 1}),
    gradient_mask=gradient_mask,
)
