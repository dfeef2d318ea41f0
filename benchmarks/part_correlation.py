"""Benchmark of :func:`reid_ops.part_correlation`: CSN's sizes, and how PyTorch users would write it."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import reid_ops
import reid_ops.reference
from benchmarks.harness.model import Benchmark, Case, Formulation, Function, Inputs, Mode, Work

# ---------------------------------------------------------------------------------------------- sizes


def _sizes(
    batch: int,
    channels: int,
    height: int,
    width: int,
    kernel: tuple[int, int] | int,
    parts: int = 3,
    **rows: int,
) -> dict[str, int]:
    """Sizes of a case; ``signals`` and ``part_sets`` rows make it a retrieval by a pairs list."""
    kernel_height, kernel_width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return {
        "batch": batch,
        "channels": channels,
        "height": height,
        "width": width,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "parts": parts,
        **rows,
    }


_PAPER = {"L2": (96, 40, 15, 10), "L3": (96, 20, 8, 5), "L4": (96, 10, 4, 3)}
_BATCHES = {16: ("cpu",), 64: ("cpu", "cuda"), 128: ("cuda",), 256: ("cuda",)}

CASES = tuple(
    Case(f"{level} N={batch}", _sizes(batch, *sizes), devices, quick=batch in (16, 256))
    for batch, devices in _BATCHES.items()
    for level, sizes in _PAPER.items()
)

MODES = (
    Mode("forward"),
    Mode("forward + pool", {"pool": 2}),
    Mode("forward + backward", backward=True),
    Mode("forward + backward + pool", {"pool": 2}, backward=True),
)

_OTHER_SIZES: dict[str, dict[str, int]] = {
    "re-ID 32x40x20 k5": _sizes(32, 32, 40, 20, 5),
    "re-ID 96x40x20 k5": _sizes(32, 96, 40, 20, 5),
    "re-ID 256x24x8 k3": _sizes(32, 256, 24, 8, 3),
    "re-ID 256x24x8 k5": _sizes(64, 256, 24, 8, 5),
    "tracking 256x31x31 k7": _sizes(16, 256, 31, 31, 7, parts=1),
    "tracking 256x29x29 k5": _sizes(8, 256, 29, 29, 5, parts=1),
    "one part": _sizes(16, 96, 40, 15, 10, parts=1),
    "four parts": _sizes(16, 64, 24, 12, 6, parts=4),
    "six parts": _sizes(16, 96, 20, 8, 5, parts=6),
    "1x1 filters": _sizes(32, 96, 20, 8, 1),
    "2x2 filters": _sizes(32, 96, 20, 8, 2),
    "8x4 filters": _sizes(16, 96, 32, 16, (8, 4)),
    "1x7 filters": _sizes(16, 96, 20, 20, (1, 7)),
    "odd 37x13 k7": _sizes(7, 61, 37, 13, 7),
    "odd 17x11 k3": _sizes(5, 33, 17, 11, 3, parts=5),
    "filter larger than the map": _sizes(16, 96, 7, 3, 9),
    "31x31 filter": _sizes(2, 32, 48, 48, 31, parts=1),
    "tiny, B*C = 4": _sizes(2, 2, 10, 4, 3),
    "tiny, B*C = 1": _sizes(1, 1, 40, 15, 10),
    "query's parts on 64 rows": _sizes(64, 96, 20, 8, 5, signals=64, part_sets=1),
    "64 rows' parts on a query": _sizes(64, 96, 20, 8, 5, signals=1, part_sets=64),
}
SWEEP = (
    *(
        Case(f"{level} N={batch}", _sizes(batch, *sizes))
        for level, sizes in _PAPER.items()
        for batch in (1, 16, 64)
    ),
    *(Case(name, sizes) for name, sizes in _OTHER_SIZES.items()),
)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Normal values; the pairs list of a retrieval runs over all signals, then over all part sets."""
    sizes = case.sizes
    generator = torch.Generator().manual_seed(seed)
    signals, part_sets = sizes.get("signals", sizes["batch"]), sizes.get("part_sets", sizes["batch"])
    signal = torch.randn(signals, sizes["channels"], sizes["height"], sizes["width"], generator=generator)
    filters = (sizes["parts"], sizes["channels"], sizes["kernel_height"], sizes["kernel_width"])
    parts = torch.randn(part_sets, *filters, generator=generator)
    constant = {}
    if "signals" in sizes:
        row = torch.arange(sizes["batch"])
        constant["pairs"] = torch.stack([row % signals, row // signals % part_sets], 1).to(device)
    return Inputs((signal.to(device, dtype), parts.to(device, dtype)), constant)


# ----------------------------------------------------------------------------------------------- work


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """Operations and bytes of one call; pooling is free, each gradient costs as much as the forward pass.

    Backward reads signal, parts and the output's gradient and writes the two gradients.
    """
    sizes, pool = case.sizes, int(mode.options.get("pool", 1))
    height, width, planes = sizes["height"], sizes["width"], sizes["parts"] * sizes["channels"]
    passes = 3 if mode.backward else 1
    taps = height * width * sizes["kernel_height"] * sizes["kernel_width"]
    taps_in_bounds = _taps_in_bounds(height, sizes["kernel_height"]) * _taps_in_bounds(
        width, sizes["kernel_width"]
    )
    pairs = sizes["batch"]
    signal = sizes.get("signals", pairs) * sizes["channels"] * height * width * element_size
    filters = planes * sizes["kernel_height"] * sizes["kernel_width"] * element_size
    parts = sizes.get("part_sets", pairs) * filters
    output = pairs * planes * -(-height // pool) * -(-width // pool) * element_size
    pair_list = 16 * pairs if "signals" in sizes else 0
    read, written = signal + parts + pair_list, output
    if mode.backward:
        read, written = 2 * read + output, written + signal + parts
    return Work(
        passes * 2 * pairs * planes * taps, passes * 2 * pairs * planes * taps_in_bounds, read, written
    )


def _taps_in_bounds(length: int, kernel: int) -> int:
    """Filter taps that fall on the map, over all positions along one axis."""
    before = (kernel - 1) // 2
    return sum(max(0, length - abs(tap - before)) for tap in range(kernel))


# ---------------------------------------------------------------------------- formulations in PyTorch


def _pad(signal: Tensor, parts: Tensor) -> Tensor:
    rows, columns = parts.shape[-2] - 1, parts.shape[-1] - 1
    return F.pad(signal, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _convolve(signal: Tensor, filters: Tensor, groups: int) -> Tensor:
    """One conv2d over all planes. For odd filters it pads by itself; even ones need an uneven border."""
    rows, columns = filters.shape[-2:]
    if rows % 2 and columns % 2:
        planes = signal.reshape(1, -1, *signal.shape[-2:])
        return F.conv2d(planes, filters, padding=(rows // 2, columns // 2), groups=groups)
    padded = _pad(signal, filters)
    return F.conv2d(padded.reshape(1, -1, *padded.shape[-2:]), filters, groups=groups)


def _grouped(signal: Tensor, parts: Tensor) -> Tensor:
    """One convolution: a group is one channel of one image, with all its parts as outputs."""
    (batch, channels, height, width), parts_per_image = signal.shape, parts.shape[1]
    filters = parts.transpose(1, 2).reshape(-1, 1, *parts.shape[-2:])
    output = _convolve(signal, filters, batch * channels)
    output = output.view(batch, channels, parts_per_image, height, width)
    return output.transpose(1, 2).reshape(batch, -1, height, width)


def _per_part(signal: Tensor, parts: Tensor) -> Tensor:
    """One depthwise convolution a part."""
    planes = signal.shape[0] * signal.shape[1]
    outputs = [
        _convolve(signal, part.reshape(-1, 1, *part.shape[-2:]), planes).view(signal.shape)
        for part in parts.unbind(1)
    ]
    return torch.cat(outputs, 1)


def _repeated(signal: Tensor, parts: Tensor) -> Tensor:
    """One depthwise convolution over the signal repeated once a part; nothing is permuted."""
    filters = parts.reshape(-1, 1, *parts.shape[-2:])
    repeated = signal.unsqueeze(1).expand(-1, parts.shape[1], -1, -1, -1)
    output = _convolve(repeated.flatten(1, 2), filters, filters.shape[0])
    return output.view(signal.shape[0], -1, *signal.shape[-2:])


def _taps(signal: Tensor, parts: Tensor) -> Tensor:
    """One multiply-add a filter tap; what torch.compile can fuse into one loop."""
    (height, width), padded = signal.shape[-2:], _pad(signal, parts).unsqueeze(1)
    output = torch.zeros((), dtype=signal.dtype, device=signal.device)
    for row in range(parts.shape[-2]):
        for column in range(parts.shape[-1]):
            shifted = padded[..., row : row + height, column : column + width]
            output = output + shifted * parts[..., row, column, None, None]
    return output.flatten(1, 2)


def _unfold(signal: Tensor, parts: Tensor) -> Tensor:
    """Patches as matrix columns and one batched matrix product."""
    batch, channels, height, width = signal.shape
    taps = parts.shape[-2] * parts.shape[-1]
    columns = F.unfold(_pad(signal, parts), tuple(parts.shape[-2:])).view(
        batch, channels, taps, height * width
    )
    return (parts.flatten(-2).transpose(1, 2) @ columns).transpose(1, 2).reshape(batch, -1, height, width)


def _fourier(signal: Tensor, parts: Tensor) -> Tensor:
    """A product in the frequency domain."""
    padded = _pad(signal, parts)
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded).unsqueeze(1) * torch.fft.rfft2(parts, s=size).conj()
    output = torch.fft.irfft2(spectrum, s=size)[..., : signal.shape[-2], : signal.shape[-1]]
    return output.flatten(1, 2).contiguous()


class _HandwrittenBackward(torch.autograd.Function):
    """Both gradients are depthwise correlations again, which PyTorch's forward convolution does faster."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, parts: Tensor) -> Tensor:
        ctx.save_for_backward(signal, parts)
        return _repeated(signal, parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        signal, parts = ctx.saved_tensors
        rows, columns = parts.shape[-2] - 1, parts.shape[-1] - 1
        padding = (columns - columns // 2, columns // 2, rows - rows // 2, rows // 2)
        padded = F.pad(gradient, padding)
        filters = parts.flip(-1, -2).reshape(-1, 1, *parts.shape[-2:])
        planes = F.conv2d(padded.view(1, -1, *padded.shape[-2:]), filters, groups=filters.shape[0])
        signal_gradient = planes.view(*parts.shape[:3], *signal.shape[-2:]).sum(1)

        padded = _pad(signal, parts).unsqueeze(1).expand(-1, parts.shape[1], -1, -1, -1)
        filters = gradient.reshape(-1, 1, *gradient.shape[-2:])
        parts_gradient = F.conv2d(padded.reshape(1, -1, *padded.shape[-2:]), filters, groups=filters.shape[0])
        return signal_gradient, parts_gradient.view(parts.shape)


def _handwritten(signal: Tensor, parts: Tensor) -> Tensor:
    return _HandwrittenBackward.apply(signal, parts)


def _shared_parts(signal: Tensor, parts: Tensor) -> Tensor:
    """Retrieval with one row of parts: ordinary depthwise convolutions over the batch of signals."""
    padded = _pad(signal, parts)
    outputs = [F.conv2d(padded, part.unsqueeze(1), groups=signal.shape[1]) for part in parts[0].unbind(0)]
    return torch.cat(outputs, 1)


def _shared_signal(signal: Tensor, parts: Tensor) -> Tensor:
    """Retrieval with one signal: its channels are the groups, all part sets their outputs."""
    filters = parts.permute(2, 0, 1, 3, 4).reshape(-1, 1, *parts.shape[-2:])
    output = F.conv2d(_pad(signal, parts), filters, groups=signal.shape[1])
    output = output.view(signal.shape[1], *parts.shape[:2], *signal.shape[-2:])
    return output.permute(1, 2, 0, 3, 4).reshape(parts.shape[0], -1, *signal.shape[-2:])


def _max_pool(maps: Tensor, pool: int) -> Tensor:
    return F.max_pool2d(maps, pool, ceil_mode=True)


def _strided_maximum(maps: Tensor, pool: int) -> Tensor:
    """The same by element-wise maxima of strided views, which vectorise where the window is small."""
    height, width = maps.shape[-2:]
    maps = F.pad(maps, (0, -width % pool, 0, -height % pool), value=float("-inf"))
    views = [maps[..., row::pool, column::pool] for row in range(pool) for column in range(pool)]
    return functools.reduce(torch.maximum, views)


def _complete(formulation: Function, gather: bool = True, pooling: Function = _max_pool) -> Function:
    """The operator's signature around a formulation of unpooled, matched rows."""

    def function(signal: Tensor, parts: Tensor, *, pool: int = 1, pairs: Tensor | None = None) -> Tensor:
        if pairs is not None and gather:
            signal, parts = signal[pairs[:, 0]], parts[pairs[:, 1]]
        output = formulation(signal, parts)
        return pooling(output, pool) if pool > 1 else output

    return function


def _taps_count(case: Case) -> int:
    return case.sizes["kernel_height"] * case.sizes["kernel_width"]


def _columns_fit(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    planes = case.sizes["batch"] * case.sizes["channels"]
    return planes * _taps_count(case) * case.sizes["height"] * case.sizes["width"] <= 1 << 26


FORMULATIONS = (
    Formulation("grouped", _complete(_grouped)),
    Formulation("per_part", _complete(_per_part)),
    Formulation("repeated", _complete(_repeated)),
    *(
        Formulation(
            f"{name}, maxima",
            _complete(function, pooling=_strided_maximum),
            lambda case, mode, dtype: bool(mode.options),
        )
        for name, function in (("grouped", _grouped), ("per_part", _per_part), ("repeated", _repeated))
    ),
    Formulation("taps", _complete(_taps), lambda case, mode, dtype: _taps_count(case) <= 36),
    Formulation("unfold", _complete(_unfold), _columns_fit),
    Formulation("fourier", _complete(_fourier), lambda case, mode, dtype: dtype.itemsize >= 4),
    Formulation(
        "shared_parts",
        _complete(_shared_parts, gather=False),
        lambda case, mode, dtype: case.sizes.get("part_sets") == 1 and case.sizes["batch"] > 1,
    ),
    Formulation(
        "shared_signal",
        _complete(_shared_signal, gather=False),
        lambda case, mode, dtype: case.sizes.get("signals") == 1 and case.sizes["batch"] > 1,
    ),
    Formulation(
        "handwritten",
        _complete(_handwritten),
        lambda case, mode, dtype: mode.backward,
        handwritten_backward=True,
    ),
)


# --------------------------------------------------------------------------------------------- checks


# Of the largest magnitude: half precisions round the result, sums of 600 terms in float32 lose about 1e-6.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def checked_rows(case: Case) -> list[int] | None:
    """First, middle and last pair; all of a retrieval, where pairs share rows."""
    if "signals" in case.sizes:
        return None
    batch = case.sizes["batch"]
    return sorted({0, batch // 2, batch - 1})


def gradient_mask(inputs: Inputs, mode: Mode) -> Tensor | None:
    """0 where the two largest values of a pooling window are so close that rounding picks the winner."""
    pool = int(mode.options.get("pool", 1))
    if pool == 1:
        return None
    dtype = inputs.differentiable[0].dtype
    wide = inputs.map(lambda tensor: tensor.detach().to(torch.promote_types(dtype, torch.float32)))
    output = wide.call(_complete(_per_part), Mode("forward"))
    first, where = F.max_pool2d(output, pool, ceil_mode=True, return_indices=True)
    without = output.flatten(2).scatter(2, where.flatten(2), float("-inf")).view(output.shape)
    second = F.max_pool2d(without, pool, ceil_mode=True)
    return (first - second > TOLERANCE[dtype] * output.abs().max()).to(dtype)


def ours(*arguments: Tensor, **options: Any) -> Tensor:
    """The operator, looked up at every call."""
    return reid_ops.part_correlation(*arguments, **options)


BENCHMARK = Benchmark(
    name="part_correlation",
    ours=ours,
    reference=reid_ops.reference.part_correlation,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance=TOLERANCE,
    sweep_modes=("forward", "forward + backward"),
    table_cases={"cpu": ("L2 N=16", "L3 N=16", "L4 N=16"), "cuda": ("L2 N=256", "L3 N=256", "L4 N=256")},
    table_modes=("forward", "forward + pool", "forward + backward"),
    headline="forward + backward",
    checked_rows=checked_rows,
    gradient_mask=gradient_mask,
)
