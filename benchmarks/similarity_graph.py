"""Benchmark of :class:`reid_ops.HSGM`: the paper's sizes, training steps and inference.

Seven maps at three scales, each a graph of its own, are about a megabyte of generated C++: ``torch.compile``
takes most of a minute for one pass. So only the reference is compiled, for the table's rows, and once for all
numbers of threads.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

import reid_ops
import reid_ops.reference
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work

# ---------------------------------------------------------------------------------------------- sizes

# Behind stage 3 of a ResNet-50: 256x256 vehicles and 256x128 persons; the other stages for the sweep.
_PLACES = {"vehicle": (1024, 16, 16), "person": (1024, 16, 8)}
_STAGES = {
    "S1 person": (256, 64, 32),
    "S2 vehicle": (512, 32, 32),
    "S2 person": (512, 32, 16),
    "S4 vehicle": (2048, 16, 16),
    "odd 61x13x7": (61, 13, 7),
    "one channel": (1, 16, 8),
}
_BATCHES = {8: ("cpu",), 32: ("cpu", "cuda"), 64: ("cuda",), 128: ("cuda",)}

LEVELS = (1, 2, 4)
DIVISIONS = tuple((rows, 1) for rows in LEVELS)
MAPS = sum(LEVELS)
SCALES = (1, 2, 3)


def _sizes(batch: int, channels: int, height: int, width: int) -> dict[str, int]:
    return {"batch": batch, "channels": channels, "height": height, "width": width}


CASES = tuple(
    Case(f"{place} N={batch}", _sizes(batch, *sizes), devices, quick=batch in (8, 128))
    for batch, devices in _BATCHES.items()
    for place, sizes in _PLACES.items()
)
SWEEP = (
    *(
        Case(f"{place} N={batch}", _sizes(batch, *sizes))
        for place, sizes in _PLACES.items()
        for batch in (1, 4, 64)
    ),
    *(Case(f"{name} N=8", _sizes(8, *sizes)) for name, sizes in _STAGES.items()),
)

TABLE_CASES = {"cpu": ("vehicle N=32", "person N=32"), "cuda": ("vehicle N=128", "person N=128")}
TABLE_MODES = ("inference", "training forward + backward")

MODES = (
    Mode("inference", {"training": False}),
    Mode("training forward", {"training": True}),
    Mode("training forward + backward", {"training": True}, backward=True),
)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Normal features; parameters near one, running statistics near those of such features."""
    sizes = case.sizes
    channels, height, width = sizes["channels"], sizes["height"], sizes["width"]
    generator = torch.Generator().manual_seed(seed)
    own = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int, mean: float, spread: float) -> Tensor:
        return (mean + spread * torch.randn(shape, generator=generator)).to(device, own)

    x = torch.randn(sizes["batch"], channels, height, width, generator=generator).to(device, dtype)
    theta = normal(len(LEVELS), len(SCALES), height, width, mean=1, spread=0.1)
    delta, weight = (normal(MAPS, channels, mean=1, spread=0.1) for _ in range(2))
    bias = normal(MAPS, channels, mean=0, spread=0.1)
    statistics = {
        "running_mean": normal(MAPS, channels, mean=0, spread=1e-3),
        "running_var": normal(MAPS, channels, mean=1e-4, spread=0).abs(),
    }
    return Inputs((x, theta, delta, weight, bias), statistics)


# ----------------------------------------------------------------------------------------------- work


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """Operations and bytes of one call.

    A level costs a value four operations forward (product, normalisation, LeakyReLU, sum) and six backward;
    the squeezes and the residual six more. Training's forward pass must read x twice, because the batch's
    statistics come between, and write y; backward must read dy twice and write dx. Inference could do with
    one read and one write. Parameters and graphs are left out: they are below a hundredth.
    """
    values = case.sizes["batch"] * case.sizes["channels"] * case.sizes["height"] * case.sizes["width"]
    flops = values * (4 * len(LEVELS) + 6)
    reads, writes = (2 if mode.options["training"] else 1), 1
    if mode.backward:
        flops += values * (6 * len(LEVELS) + 6)
        reads, writes = reads + 2, writes + 1
    return Work(flops, flops, reads * values * element_size, writes * values * element_size)


# ------------------------------------------------------------------------------------------ contenders


@functools.cache
def _module(channels: int, height: int, width: int) -> reid_ops.HSGM:
    return reid_ops.HSGM(channels, height, width, levels=LEVELS, scales=SCALES)


def ours(
    x: Tensor, theta: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
    *, running_mean: Tensor, running_var: Tensor, training: bool,
) -> Tensor:  # fmt: skip
    """The module with these parameters, running statistics updated as it does."""
    module = _module(*x.shape[1:]).to(x.device).train(training)
    norm = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    tensors = {"theta": theta, "delta": delta}
    tensors |= {f"norm.{name}": tensor.view(-1) for name, tensor in norm.items()}
    output: Tensor = torch.func.functional_call(module, tensors, (x,))
    return output


def reference(
    x: Tensor, theta: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
    *, running_mean: Tensor, running_var: Tensor, training: bool,
) -> Tensor:  # fmt: skip
    """Plain PyTorch, one map after the other, graphs from neighbour lists."""
    precise = torch.float64 if x.dtype == torch.float64 else torch.float32
    parameters = (tensor.to(precise) for tensor in (theta, delta, weight, bias))
    # Copies, small ones: a check in float64 must not leave its mark on statistics that others start from.
    statistics = (tensor.to(precise, copy=True) for tensor in (running_mean, running_var))
    return reid_ops.reference.hsgm(
        x, *parameters, *statistics, divisions=DIVISIONS, scales=SCALES, training=training
    )


def _closed_form(
    x: Tensor, theta: Tensor, delta: Tensor, weight: Tensor, bias: Tensor,
    *, running_mean: Tensor, running_var: Tensor, training: bool,
) -> Tensor:  # fmt: skip
    """The closed form of the batch norm in PyTorch's own operators: what its algebra alone gains."""
    height = x.shape[2]
    rows = [height * index // LEVELS[-1] for index in range(LEVELS[-1] + 1)]
    parts = torch.stack([x[:, :, a:b].sum((2, 3)) for a, b in itertools.pairwise(rows)], 1)
    squeezed = x.mean(1)
    y, first = len(LEVELS) * x, 0
    for level, maps in enumerate(LEVELS):
        bounds = [height * index // maps for index in range(maps + 1)]
        together = LEVELS[-1] // maps
        outputs = []
        for index, (top, bottom) in enumerate(itertools.pairwise(bounds)):
            spatial: Tensor | float = 0.0
            for scale, k in enumerate(SCALES):
                pooled = reid_ops.reference.average_pool(squeezed[:, top:bottom], k)
                spatial = spatial + reid_ops.reference.similarity_graph(
                    pooled, theta[level, scale, top:bottom]
                )
            assert isinstance(spatial, Tensor)
            pixels = spatial[0].numel()
            means = parts[:, index * together : (index + 1) * together].sum(1) / pixels
            channel = reid_ops.reference.similarity_graph(means, delta[first + index])
            center = spatial.mean((1, 2))[:, None]
            mean, variance = running_mean[first + index], running_var[first + index]
            if training:
                spread = (spatial - center[:, :, None]).square().mean((1, 2))[:, None]
                mean = (channel * center).mean(0)
                variance = (channel.square() * spread + (channel * center - mean).square()).mean(0)
            factor = weight[first + index] * torch.rsqrt(variance + 1e-5)
            scale_, shift = channel * factor, (channel * center - mean) * factor + bias[first + index]
            product = (
                scale_[:, :, None, None] * (spatial - center[:, :, None])[:, None] + shift[:, :, None, None]
            )
            outputs.append(torch.nn.functional.leaky_relu(product, 0.2))
        y, first = y + torch.cat(outputs, 2), first + maps
    return y


def _divides(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    return case.sizes["height"] % LEVELS[-1] == 0 and dtype.itemsize >= 4


FORMULATIONS = (
    Formulation("reference", reference),
    Formulation("closed_form", _closed_form, _divides, compilable=False),
)


# --------------------------------------------------------------------------------------------- checks

# Of the largest magnitude. The gradients of theta are sums of N*C terms of either sign.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def gradient_mask(inputs: Inputs, mode: Mode) -> Tensor | None:
    """0 where the LeakyReLU's argument is so near zero, in any level, that rounding picks its slope."""
    x, theta, delta, weight, bias = (tensor.detach().float() for tensor in inputs.differentiable)
    mask, first = torch.ones_like(x), 0
    for level, division in enumerate(DIVISIONS):
        own = slice(first, first + division[0])
        first = own.stop
        argument = reid_ops.reference.hsgm(
            x, theta[level : level + 1], delta[own], weight[own], bias[own], None, None,
            divisions=[division], scales=SCALES, residual=False, negative_slope=1.0,
        )  # fmt: skip
        mask *= argument.abs() > (1e-4 if inputs.differentiable[0].itemsize >= 4 else 1e-2)
    return mask.to(inputs.differentiable[0].dtype)


BENCHMARK = Benchmark(
    name="similarity_graph",
    ours=ours,
    reference=reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance=TOLERANCE,
    sweep_modes=TABLE_MODES,
    table_cases=TABLE_CASES,
    table_modes=TABLE_MODES,
    headline="training forward + backward",
    gradient_mask=gradient_mask,
    compiles=lambda case, mode, device: case.name in TABLE_CASES[device] and mode.name in TABLE_MODES,
    compile_options={"cpp.dynamic_threads": True},
)
