"""From launches and SASS to a predicted time, and the bound that rules it."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.model import Benchmark, Case, Mode
from tests.emulation.observation import Launch
from tools import build_config, cubins, cuda_resources, sass
from tools.gpu_model import instructions, trace
from tools.gpu_model.devices import LAUNCH_US, Device, resident_blocks

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: its SASS and what it takes."""

    code: sass.Kernel
    resources: cuda_resources.Resources


@dataclass(frozen=True)
class LaunchTime:
    """A launch's bounds in microseconds; its time is the largest."""

    kernel: str
    blocks: int
    warps_resident: int
    bounds: dict[str, float]
    instructions: float
    matched: float
    unseen_loops: int

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def microseconds(self) -> float:
        """The predicted time."""
        return self.bounds[self.bound]


@dataclass(frozen=True)
class Row:
    """A benchmark's row."""

    op: str
    size: str
    mode: str
    dtype: str
    predicted_us: float
    floor_us: float
    bound: str
    launches: tuple[LaunchTime, ...]

    @property
    def ratio(self) -> float:
        """Predicted over floor."""
        return self.predicted_us / self.floor_us

    def to_json(self) -> dict[str, object]:
        """The row as data."""
        found: dict[str, object] = {name: getattr(self, name) for name in ("op", "size", "mode", "dtype")}
        for name in ("predicted_us", "floor_us", "ratio"):
            found[name] = round(getattr(self, name), 2)
        return found | {"bound": self.bound}


@functools.cache
def kernels_of(operator: str, architecture: str) -> dict[str, Kernel]:
    """An operator's kernels by their plain names.

    Raises:
        BuildError: there is no nvcc or no nvdisasm.
    """
    toolkit, problem = build_config.find_toolkit(os.environ)
    if toolkit is None:
        raise build_config.BuildError(f"the model needs nvcc: {problem}")
    nvdisasm = sass.find_nvdisasm(toolkit.home)
    if nvdisasm is None:
        raise build_config.BuildError(
            "the model needs nvdisasm: the toolkit's, on PATH or in Triton's package"
        )
    source = ROOT / "csrc" / operator / "cuda.cu"
    cubin, said = cubins.compile_cubin(toolkit.nvcc, source, architecture)
    resources = {each.kernel: each for each in cuda_resources.parse(said)}
    codes = sass.disassemble(nvdisasm, cubin)
    names = cuda_resources.demangle([code.name for code in codes])
    return {
        cuda_resources.plain(name): Kernel(code, resources[code.name])
        for name, code in zip(names, codes, strict=True)
    }


def predict(benchmark: Benchmark, case: Case, mode: Mode, dtype: torch.dtype, device: Device) -> Row:
    """One row's prediction."""
    seen = trace.trace(benchmark, case, mode, dtype, device)
    kernels = kernels_of(benchmark.name, device.architecture)
    times = [
        launch_time(kernels[cuda_resources.plain(launch.kernel)], launch, device) for launch in seen.launches
    ]
    times += [
        LaunchTime(
            f"torch {call.name}", 0, 0, _simple(call.bytes, device), instructions=0, matched=1, unseen_loops=0
        )
        for call in seen.torch_calls
    ]
    by_bound: dict[str, float] = defaultdict(float)
    for each in times:
        by_bound[each.bound] += each.microseconds
    work = benchmark.work(case, mode, dtype.itemsize)
    memory = (work.bytes_read + work.bytes_written) / device.reachable_bandwidth
    compute = work.flops_in_bounds / device.fp32_peak
    return Row(
        op=benchmark.name,
        size=case.name,
        mode=mode.name,
        dtype=str(dtype).removeprefix("torch."),
        predicted_us=sum(by_bound.values()),
        floor_us=max(memory, compute) * 1e6,
        bound=max(by_bound, key=lambda name: by_bound[name]),
        launches=tuple(times),
    )


def _simple(size: float, device: Device) -> dict[str, float]:
    return {"launches": LAUNCH_US, "bytes": size / device.reachable_bandwidth * 1e6}


def launch_time(kernel: Kernel, launch: Launch, device: Device) -> LaunchTime:
    """The bounds of one launch."""
    warps_a_block = -(-launch.threads // 32)
    resident = resident_blocks(
        device,
        launch.threads,
        kernel.resources.registers,
        kernel.resources.shared + launch.dynamic_shared,
    )
    if resident == 0:
        raise ValueError(f"{launch.kernel}: a block does not fit on {device.name}")
    warps = launch.blocks * warps_a_block
    read = sum(tensor.sectors_read for tensor in launch.tensors)
    written = sum(tensor.sectors_written for tensor in launch.tensors)
    requested = sum(site.units for site in launch.sites if (site.space, site.kind) == ("global", "read"))
    fresh = min(1.0, read / requested) if requested else 1.0
    memory_clocks = fresh * device.memory_latency + (1 - fresh) * device.l2_latency
    counted = instructions.count(kernel.code, launch, warps, device, memory_clocks)

    # The multiprocessor with the most blocks ends last.
    busiest = -(-launch.blocks // device.multiprocessors) / launch.blocks
    passes = sum(
        site.units if site.space == "shared" else max(site.requests, site.units / 4)
        for site in launch.sites
        if site.space != "wait"
    ) + counted.by_kind.get("warp", 0.0)
    pipes = [
        counted.by_kind.get(kind, 0.0) * 32 / rate for kind, rate in device.rates.items() if kind != "convert"
    ]
    pipes.append(counted.by_kind.get("convert", 0.0) * 32 / device.rates["convert"])
    # Blocks come and go, so turns of resident blocks need not be whole, but there is one at least.
    turns = max(1.0, launch.blocks / (resident * device.multiprocessors))
    per_clock = 1e6 / device.clock
    return LaunchTime(
        kernel=cuda_resources.plain(launch.kernel),
        blocks=launch.blocks,
        warps_resident=min(resident, -(-launch.blocks // device.multiprocessors)) * warps_a_block,
        bounds={
            "launches": LAUNCH_US,
            "bytes": 32 * (read + written) / device.reachable_bandwidth * 1e6,
            "issue": max(counted.instructions / device.schedulers, *pipes) * busiest * per_clock,
            "shared": passes * busiest * per_clock,
            "latency": turns * counted.warp_clocks * per_clock,
        },
        instructions=counted.instructions,
        matched=counted.matched,
        unseen_loops=counted.unseen_loops,
    )
