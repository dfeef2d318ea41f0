"""Benchmark of whole HSGNet: training steps and inference with ``impl="fused"`` and with ``"reference"``.

A training step is forward, the paper's losses, backward and SGD, on ResNet-50 with the module behind stage 3.
What is compared are the losses (total, triplet, cross-entropy), in inference the features; that gradients are
equal is tested in tests/models/test_networks.py. The learning rate is 0, so that steps do all their work and
yet every one has the same losses. Images a second are the case's N over the time.

``--dtype bfloat16`` is mixed precision: weights in float32 under autocast.

    python -m benchmarks hsgnet_training --quick
    python -m benchmarks hsgnet_training --device cuda --dtype float32 bfloat16

Needs the extra ``models``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work

IDENTITIES = 751  # Market-1501's
IMAGES_PER_IDENTITY = 4
PRECISE = (torch.float32, torch.float64)

# ---------------------------------------------------------------------------------------------- sizes

_PLACES = {"person": (256, 128), "vehicle": (256, 256)}


def _sizes(batch: int, height: int, width: int) -> dict[str, int]:
    return {"batch": batch, "height": height, "width": width}


CASES = tuple(
    Case(f"{place} N={batch}", _sizes(batch, *size), devices, quick=place == "person")
    for batch, devices in ((8, ("cpu",)), (128, ("cuda",)))
    for place, size in _PLACES.items()
)
SWEEP = tuple(Case(f"person N={batch}", _sizes(batch, 256, 128)) for batch in (4, 8, 16, 32, 64, 128))
MODES = (
    Mode("training step", {"training": True, "channels_last": False}),
    Mode("training step, channels-last", {"training": True, "channels_last": True}),
    Mode("inference", {"training": False, "channels_last": False}),
)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Normal images and four of each identity."""
    sizes = case.sizes
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(sizes["batch"], 3, sizes["height"], sizes["width"], generator=generator)
    identities = torch.arange(sizes["batch"], device=device) // IMAGES_PER_IDENTITY
    return Inputs((images.to(device, dtype),), {"identities": identities})


@functools.cache
def _macs(height: int, width: int) -> int:
    from reid_models.networks import create_model, measure_complexity

    with torch.device("meta"):
        model = create_model("baseline", IDENTITIES, image_size=(height, width))
    return measure_complexity(model).macs


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """The trunk's multiply-adds, three times as many in training; what is read is little beside them."""
    sizes = case.sizes
    flops = 2 * sizes["batch"] * _macs(sizes["height"], sizes["width"])
    flops *= 3 if mode.options["training"] else 1
    images = sizes["batch"] * 3 * sizes["height"] * sizes["width"] * element_size
    return Work(flops, flops, images, 0)


# ----------------------------------------------------------------------------------------- contenders


@functools.cache
def _network(
    impl: str, size: tuple[int, int], training: bool, channels_last: bool, dtype: torch.dtype, device: str
) -> tuple[Any, Any, torch.optim.Optimizer]:
    """The network, its losses and its optimizer: the same weights for the same size."""
    from reid_models.losses import WeightedLoss
    from reid_models.networks import create_model
    from reid_models.papers.hsgnet.defaults import HSGNET_LOSSES

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = create_model("hsgnet", IDENTITIES, image_size=size, impl=impl)
    own = torch.float64 if dtype == torch.float64 else torch.float32
    model.to(torch.device(device), own).train(training)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    return model, WeightedLoss(HSGNET_LOSSES), optimizer


def _by(impl: str) -> Callable[..., Tensor]:
    def function(images: Tensor, *, identities: Tensor, training: bool, channels_last: bool) -> Tensor:
        size, dtype = (images.shape[2], images.shape[3]), images.dtype
        where = str(images.device)
        model, losses, optimizer = _network(impl, size, training, channels_last, dtype, where)
        own = images.double() if dtype == torch.float64 else images.float()
        if channels_last:
            own = own.contiguous(memory_format=torch.channels_last)
        mixed = torch.autocast(images.device.type, dtype, enabled=dtype not in PRECISE)
        if not training:
            with torch.no_grad(), mixed:
                features: Tensor = model(own)
            return features.to(own.dtype)
        optimizer.zero_grad()
        with mixed:
            values = losses(model(own), identities)
        values["total"].backward()
        optimizer.step()
        return torch.stack([value.detach().to(own.dtype) for value in values.values()])

    return function


ours, reference = _by("fused"), _by("reference")

BENCHMARK = Benchmark(
    name="hsgnet_training",
    ours=ours,
    reference=reference,
    # Not compiled: a step holds its own backward pass.
    formulations=(Formulation("reference", reference, compilable=False),),
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    # Fifty layers' rounding, of the largest loss or feature.
    tolerance={torch.float32: 5e-4, torch.float64: 1e-10, torch.bfloat16: 5e-2, torch.float16: 1e-2},
    sweep_modes=("training step",),
    table_cases={"cpu": ("person N=8", "vehicle N=8"), "cuda": ("person N=128", "vehicle N=128")},
    table_modes=tuple(mode.name for mode in MODES),
    headline="training step",
    # Losses and features are compared as they are, not rounded to a half type.
    output_dtype=lambda dtype: torch.promote_types(dtype, torch.float32),
)
