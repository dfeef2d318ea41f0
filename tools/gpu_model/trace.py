"""A benchmark's row, run in the emulation at two small batches and carried on to the whole one.

What a launch does is taken to grow with the batch along a straight line, launch by launch: the kernels of the
two small runs must be the same. What Python does between them counts as a launch an operator of torch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness.model import Benchmark, Case, Mode
from reid_ops import _dispatch
from tests.emulation.build import build_operators
from tests.emulation.observation import Launch, Observation, Site
from tests.emulation.observation import Tensor as SeenTensor
from tools.gpu_model.devices import Device

EMULATED = "reid_ops_emulated"
# The size that is cut, and the two cuts: enough images for the mean of random erasing, else the fewest.
CUTS = {
    "similarity_graph": ("batch", 2, 4),
    "part_correlation": ("batch", 1, 2),
    "polygon_erasing": ("batch", 16, 32),
    "augmentation": ("batch", 8, 16),
    "stripe_pool": ("batch", 1, 2),
    "k_reciprocal": ("queries", 8, 24),
}
# Modes whose time is torch's own products and sorts are left out, and what never runs on a GPU.
LEFT_OUT = {"k_reciprocal": ("rerank", "search")}
# They move no data on a GPU.
_FREE = [
    "view",
    "_unsafe_view",
    "reshape",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "detach",
    "alias",
    "t",
    "transpose",
    "permute",
    "as_strided",
    "unbind",
    "split",
    "split_with_sizes",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "unfold",
    "narrow",
    "_reshape_alias",
    "chunk",
    "view_as",
    "lift_fresh",
    "is_same_size",
    "sym_size",
    "sym_stride",
    "sym_numel",
    "resize_",
    "set_",
    "_to_copy_",
]


@dataclass(frozen=True)
class TorchCall:
    """An operator of torch's own, and the bytes it reads and writes."""

    name: str
    bytes: float


@dataclass(frozen=True)
class Trace:
    """All launches of one row at its whole size."""

    launches: tuple[Launch, ...]
    torch_calls: tuple[TorchCall, ...]


class _TorchCalls(TorchDispatchMode):
    """Notes the operators that would be kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[TorchCall] = []

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        namespace, _, name = function.name().partition("::")
        if namespace == "aten" and name.partition(".")[0] not in _FREE:
            self.calls.append(TorchCall(name, _bytes(arguments) + _bytes((result,))))
        return result


def _bytes(values: Sequence[Any]) -> float:
    found = 0.0
    for value in values:
        if isinstance(value, Tensor):
            found += value.numel() * value.element_size()
        elif isinstance(value, (list, tuple)):
            found += _bytes(value)
    return found


@functools.cache
def library() -> Path:
    """The observed library, loaded."""
    path = build_operators(observe=True)
    torch.ops.load_library(str(path))
    _dispatch.add_library(EMULATED)
    return path


@contextmanager
def emulated_device(device: Device) -> Iterator[None]:
    """The emulation tells the operators' plans of this device."""
    name = "REID_OPS_EMULATION_DEVICE"
    before = os.environ.get(name)
    capability = 10 * device.capability[0] + device.capability[1]
    os.environ[name] = f"{device.multiprocessors},{device.shared_optin},{capability}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def can_trace(benchmark: Benchmark, mode: Mode) -> bool:
    """Whether the row's time is in kernels of the project."""
    return benchmark.name in CUTS and mode.name not in LEFT_OUT.get(benchmark.name, ())


def trace(benchmark: Benchmark, case: Case, mode: Mode, dtype: torch.dtype, device: Device) -> Trace:
    """The launches of one row on this device.

    Raises:
        ValueError: the launches differ between the two cuts.
    """
    size, small, large = CUTS[benchmark.name]
    whole = case.sizes[size]
    if whole <= large:
        return _observe(benchmark, case, mode, dtype, device)
    cuts = [replace(case, sizes={**case.sizes, size: cut}) for cut in (small, large)]
    first, second = (_observe(benchmark, cut, mode, dtype, device) for cut in cuts)
    if [each.kernel for each in first.launches] != [each.kernel for each in second.launches]:
        raise ValueError(
            f"{benchmark.name} {case.name}: the launches differ between {small} and {large} of {size}"
        )
    share = (whole - small) / (large - small)
    launches = map(functools.partial(carry_on, share=share), first.launches, second.launches)
    calls = [
        TorchCall(one.name, _line(one.bytes, two.bytes, share))
        for one, two in zip(first.torch_calls, second.torch_calls, strict=True)
    ]
    return Trace(tuple(launches), tuple(calls))


def _observe(benchmark: Benchmark, case: Case, mode: Mode, dtype: torch.dtype, device: Device) -> Trace:
    path = library()
    inputs = benchmark.make_inputs(case, dtype, torch.device("cpu"), 0)
    if mode.backward:
        inputs = inputs.map(lambda tensor: tensor.detach().requires_grad_())
    calls = _TorchCalls()
    with emulated_device(device), _dispatch.use_library(EMULATED), Observation(path, profile=True) as seen:
        with calls:
            output = inputs.call(benchmark.ours, mode)
        if mode.backward:
            gradient = torch.ones_like(output)
            with calls:
                torch.autograd.backward(output, gradient)
    return Trace(tuple(seen.launches), tuple(calls.calls))


def _line(first: float, second: float, share: float) -> float:
    return max(0.0, first + (second - first) * share)


def carry_on(first: Launch, second: Launch, share: float) -> Launch:
    """The launch at the whole size."""
    blocks = round(_line(first.blocks, second.blocks, share))
    ones = {_identity(site): site for site in first.sites}
    twos = {_identity(site): site for site in second.sites}
    sites = []
    for key in sorted(ones.keys() | twos.keys()):
        one, two = (by_key.get(key) for by_key in (ones, twos))
        counts: dict[str, Any] = {
            name: round(_line(getattr(one, name, 0), getattr(two, name, 0), share))
            for name in ("requests", "lanes", "units", "ideal_units")
        }
        sites.append(Site(*key, **counts))
    tensors = []
    pairs: dict[int, list[SeenTensor | None]] = {tensor.argument: [tensor, None] for tensor in first.tensors}
    for tensor in second.tensors:
        pairs.setdefault(tensor.argument, [None, None])[1] = tensor
    for argument, (one_tensor, two_tensor) in pairs.items():
        known = one_tensor or two_tensor
        assert known is not None
        counts = {
            name: round(_line(getattr(one_tensor, name, 0), getattr(two_tensor, name, 0), share))
            for name in ("read", "written", "sectors_read", "sectors_written")
        }
        tensors.append(replace(known, argument=argument, **counts))
    return replace(second, grid=(max(1, blocks), 1, 1), sites=tuple(sites), tensors=tuple(tensors))


def _identity(site: Site) -> tuple[Any, ...]:
    return site.chain, site.space, site.kind, site.size
