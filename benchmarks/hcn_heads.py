"""Benchmark of HCN's heads: from the trunk's maps R2 to R5 to the losses, by weighted sums or literally.

A training step of the heads is both cross maps, pooling, three classifiers, three cross-entropies and the
gradients of maps and weights; the trunk is left out, and so is dropout, which is random. ``reference`` makes
the cross maps C1 and C2, as the authors' network does; ours never does. In a peak of memory the four maps are
not counted, their gradients are.

    python -m benchmarks hcn_heads --no-compile

Needs the extra ``models``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work

IDENTITIES = 751  # Market-1501's
CHANNELS = {"r2": 256, "r3": 512, "r4": 1024, "r5": 2048}
REDUCTIONS = {"r2": 4, "r3": 8, "r4": 16, "r5": 32}
WEIGHTS = {  # of laterals and classifiers: their shapes
    "w1": (2048, 512, 1, 1),
    "w2": (1024, 256, 1, 1),
    "f5": (IDENTITIES, 2048),
    "f1": (IDENTITIES, 2048),
    "f2": (IDENTITIES, 1024),
}


def _case(batch: int, size: int, devices: tuple[str, ...], quick: bool = False) -> Case:
    return Case(f"{size} N={batch}", {"batch": batch, "size": size}, devices, quick=quick)


CASES = (_case(16, 224, ("cpu", "cuda")), _case(4, 128, ("cpu",), quick=True), _case(64, 224, ("cuda",)))
SWEEP = tuple(_case(batch, 224, ("cpu", "cuda")) for batch in (2, 4, 8, 16, 32, 64))
MODES = (Mode("training step", backward=True), Mode("forward"))


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Maps from 0 on, as behind a ReLU, and weights of the classifiers' usual size."""
    generator = torch.Generator().manual_seed(seed)
    batch, size = case.sizes["batch"], case.sizes["size"]
    maps = [
        torch.randn(batch, CHANNELS[name], size // by, size // by, generator=generator).relu()
        for name, by in REDUCTIONS.items()
    ]
    weights = [0.02 * torch.randn(shape, generator=generator) for shape in WEIGHTS.values()]
    identities = torch.arange(batch, device=device) % IDENTITIES
    return Inputs(tuple(t.to(device, dtype) for t in (*maps, *weights)), {"identities": identities})


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """By sums: every element of the maps is read once, and in training its gradient is written once."""
    batch, size = case.sizes["batch"], case.sizes["size"]
    maps = batch * sum(CHANNELS[name] * (size // by) ** 2 for name, by in REDUCTIONS.items())
    products = batch * sum(shape[0] * shape[1] for shape in WEIGHTS.values())
    weights = sum(shape[0] * shape[1] for shape in WEIGHTS.values())
    passes = 3 if mode.backward else 1
    flops = 2 * passes * (maps + products)
    written = (maps + weights) if mode.backward else 0
    return Work(flops, flops, (maps + passes * weights) * element_size, written * element_size)


@functools.cache
def _cross_map(top: int, bottom: int, impl: str) -> Any:
    from reid_models.papers.hcn.cross_map import CrossMap

    with torch.device("meta"):
        shapes = CrossMap(top, bottom, impl=impl)
    return shapes.to_empty(device="cpu")


def _by(impl: str) -> Callable[..., Tensor]:
    def function(
        r2: Tensor,
        r3: Tensor,
        r4: Tensor,
        r5: Tensor,
        w1: Tensor,
        w2: Tensor,
        f5: Tensor,
        f1: Tensor,
        f2: Tensor,
        *,
        identities: Tensor,
    ) -> Tensor:
        from reid_models.papers.hcn.cross_map import average, bilinear_kernel

        line = bilinear_kernel().to(r5)
        kernel = torch.outer(line, line)[None, None]
        first, second = _cross_map(2048, 512, impl), _cross_map(1024, 256, impl)
        c1 = functional_call(first, {"lateral.weight": w1, "kernel": kernel}, (r5, r3))
        c2 = functional_call(second, {"lateral.weight": w2, "kernel": kernel}, (r4, r2))
        heads = ((average(r5), f5), (c1, f1), (c2, f2))
        return torch.stack([F.cross_entropy(F.linear(pooled, head), identities) for pooled, head in heads])

    return function


ours, reference = _by("fused"), _by("literal")

BENCHMARK = Benchmark(
    name="hcn_heads",
    ours=ours,
    reference=reference,
    formulations=(Formulation("literal", reference),),
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    # Means over 3,136 places and products over 2,048 channels, of the largest loss or gradient.
    tolerance={torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 5e-2, torch.float16: 1e-2},
    sweep_modes=("training step",),
    table_cases={"cpu": ("224 N=16",), "cuda": ("224 N=16", "224 N=64")},
    table_modes=("training step",),
    headline="training step",
)
