"""Benchmark of hybrid attention's windows and heads (MGO and MPFE) in a training step, against naive ones.

Forward and backward from the fused map to the logits of 21 heads, with the gradients of the map and of all
weights. What is compared are the logits and those gradients.

Needs the extra ``models``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import reid_ops
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work
from reid_ops.reference import stripe_windows

STRIPES, WINDOWS = 6, 21
CHANNELS, REDUCED, WIDTH, IDENTITIES = 3840, 256, 512, 751

# ---------------------------------------------------------------------------------------------- sizes

CASES = (
    Case("N=16", {"batch": 16}, ("cpu",), quick=True),
    Case("N=64", {"batch": 64}, ("cuda",), quick=True),
)
SWEEP = tuple(Case(f"N={batch}", {"batch": batch}) for batch in (4, 16, 64))
MODES = (Mode("training step", backward=True),)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """A normal map, and weights of the heads' own deviations."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float) -> Tensor:
        return (deviation * torch.randn(shape, generator=generator)).to(device, dtype)

    weights = (
        normal(WINDOWS, REDUCED, 2 * CHANNELS, deviation=(2 / REDUCED) ** 0.5),
        normal(WINDOWS, WIDTH, REDUCED, deviation=(2 / WIDTH) ** 0.5),
        normal(WINDOWS, IDENTITIES, WIDTH, deviation=0.001),
    )
    return Inputs((normal(case.sizes["batch"], CHANNELS, 24, 8, deviation=1.0), *weights))


# ----------------------------------------------------------------------------------------------- work


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """The heads' products, three times; the map read and its gradient written, weights read twice."""
    batch = case.sizes["batch"]
    weights = WINDOWS * (REDUCED * 2 * CHANNELS + WIDTH * REDUCED + IDENTITIES * WIDTH)
    pixels = batch * CHANNELS * 24 * 8
    flops = 3 * 2 * batch * weights + 3 * pixels
    return Work(flops, flops, (pixels + 2 * weights) * element_size, (pixels + weights) * element_size)


# ----------------------------------------------------------------------------------------- contenders


@functools.cache
def _heads(device: str, dtype: torch.dtype) -> Any:
    from reid_models.papers.hybrid_attention.heads import WindowHeads

    heads = WindowHeads(
        WINDOWS, 2 * CHANNELS, IDENTITIES, shared=False, reduced=REDUCED, width=WIDTH, negative_slope=0.0
    )
    return heads.to(torch.device(device), dtype)


def ours(x: Tensor, reduce: Tensor, embed: Tensor, classifier: Tensor) -> Tensor:
    """As the network does it: all windows from one read, all heads in one product."""
    heads = _heads(str(x.device), x.dtype)
    described = reid_ops.stripe_pool(x, STRIPES, stacked=True).flatten(2)
    weights = {"reduce.weight": reduce, "embed.weight": embed}
    embedded = torch.func.functional_call(heads, weights, (described,))
    logits: Tensor = torch.func.functional_call(heads.classifier, {"weight": classifier}, (embedded.post_bn,))
    return logits.contiguous()


def naive(x: Tensor, reduce: Tensor, embed: Tensor, classifier: Tensor) -> Tensor:
    """Window by window: two poolings of a slice, then its head's layers."""
    rows = x.shape[2] // STRIPES
    logits = []
    for window, (first, end) in enumerate(stripe_windows(STRIPES)):
        part = x[:, :, rows * first : rows * end]
        pooled = torch.cat([F.adaptive_max_pool2d(part, 1), F.adaptive_avg_pool2d(part, 1)], 1).flatten(1)
        reduced = F.batch_norm(F.linear(pooled, reduce[window]), None, None, training=True).relu()
        embedded = F.batch_norm(F.linear(reduced, embed[window]), None, None, training=True)
        logits.append(F.linear(embedded, classifier[window]))
    return torch.stack(logits, 1)


BENCHMARK = Benchmark(
    name="window_heads",
    ours=ours,
    reference=naive,
    formulations=(Formulation("naive windows", naive, compilable=False),),
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    # Sums of 7,680 products, normalised twice, of the largest value.
    tolerance={torch.float64: 1e-9, torch.float32: 5e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1},
    sweep_modes=("training step",),
    table_cases={"cpu": ("N=16",), "cuda": ("N=64",)},
    table_modes=("training step",),
    headline="training step",
)
