"""Peak memory of one call. On CPU each contender gets a process of its own; on CUDA the allocator counts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.harness.check import evaluate
from benchmarks.harness.machine import return_freed_memory
from benchmarks.harness.model import Benchmark, Case, Function, Inputs, Mode

_SLOW = 8.0  # seconds
# Freed blocks go back to the system at once, so that the first call leaves nothing for the second.
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
_ROOT = Path(__file__).resolve().parents[2]


def contender(benchmark: Benchmark, name: str) -> Function:
    """The function of that name: "ours" or a formulation's."""
    if name == "ours":
        return benchmark.ours
    return next(entry.function for entry in benchmark.formulations if entry.name == name)


def cpu_peak(benchmark: Benchmark, case: Case, mode: Mode, dtype: torch.dtype, name: str) -> int | None:
    """Growth in bytes of a fresh process's peak resident memory by one call; None if that process failed.

    The process imports the benchmark by its operator's name, so a changed copy of it is not what is measured.
    """
    arguments = [benchmark.name, case.name, mode.name, str(dtype).removeprefix("torch."), name]
    command = [sys.executable, "-m", "benchmarks.harness.memory", *arguments]
    return_freed_memory()  # a contender that takes half of what there is has just left as much here
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    if result.returncode != 0:
        return None
    return int(json.loads(result.stdout.splitlines()[-1])["bytes"])


def cuda_peak(function: Function, inputs: Inputs, mode: Mode, gradient: torch.Tensor | None) -> int:
    """Growth in bytes of the allocator's peak by one call."""
    evaluate(function, inputs, mode, gradient)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    evaluate(function, inputs, mode, gradient)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure_here(function: Function, inputs: Inputs, mode: Mode) -> int:
    """Growth in bytes of this process's peak by one call, after one that loads code and libraries.

    A call of many seconds is not repeated: what it loads is little beside what it needs.
    """
    _reset_peak()
    start, before = time.perf_counter(), _peak()
    output = evaluate(function, inputs, Mode(mode.name, mode.options), None).output
    if time.perf_counter() - start > _SLOW and not mode.backward:
        return _peak() - before
    gradient = torch.ones_like(output) if mode.backward else None
    evaluate(function, inputs, mode, gradient)
    del output
    return growth(lambda: evaluate(function, inputs, mode, gradient))


def growth(call: Callable[[], object]) -> int:
    """Growth in bytes of this process's peak by one call, its result included."""
    _reset_peak()
    before = _peak()
    outcome = call()
    grown = _peak() - before
    del outcome
    return grown


def _reset_peak() -> None:
    """Sets the kernel's high-water mark back to the present size, where it lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """High-water mark of resident memory in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _main() -> None:
    from benchmarks.harness.registry import discover

    parser = argparse.ArgumentParser()
    for name in ("operator", "case", "mode", "dtype", "contender"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    benchmark = discover()[arguments.operator]
    case, mode = benchmark.case(arguments.case), benchmark.mode(arguments.mode)
    inputs = benchmark.make_inputs(case, getattr(torch, arguments.dtype), torch.device("cpu"), 0)
    function = contender(benchmark, arguments.contender)
    print(json.dumps({"bytes": measure_here(function, inputs, mode)}))


if __name__ == "__main__":
    _main()
