"""Runs a benchmark: check, then time all contenders of each case, mode and number of threads in turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import memory
from benchmarks.harness.check import Outcome, check_ours, evaluate, ours_outcome, refusal
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch
from benchmarks.harness.model import Benchmark, Case, Formulation, Function, Inputs, Mode
from benchmarks.harness.timing import Run, Samples, calibrate, cuda_run, host_run, interleave

OURS = "ours"
COMPILED_AT_MOST = 2  # formulations compiled a row
_MOST_INPUT_SETS = 32


@dataclass(frozen=True)
class Settings:
    """How to run.

    ``prune``: contenders slower than so many times the quickest are timed once only. ``slow``: so are those
    that take more seconds a call, by the call that checks them, whichever they are of their kind.
    """

    device: str = "cpu"
    threads: tuple[int, ...] = (1,)
    rounds: int = 9
    minimum_seconds: float = 0.02
    compile: bool = True
    memory: bool = True
    prune: float = 4.0
    slow: float = 8.0


@dataclass
class _Contender:
    kind: str  # "ours", "eager", "handwritten" or "compiled"
    function: Function
    run: Run | None = None
    repetitions: int = 0
    calibrated: float = 0.0
    slow: bool = False  # timed once


@dataclass
class Cell:
    """One row of the table: one case, mode, dtype and number of threads."""

    case: Case
    mode: Mode
    dtype: torch.dtype
    threads: int
    contenders: dict[str, _Contender] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def run_benchmark(
    benchmark: Benchmark,
    cases: tuple[Case, ...],
    modes: tuple[Mode, ...],
    dtypes: tuple[torch.dtype, ...],
    settings: Settings,
    floors: Floors,
    watch: LoadWatch,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Yields one record a cell. All checks of all cases come first; CheckFailed if ours is wrong in one.

    Leaves torch's number of threads as it was.
    """
    device = torch.device(settings.device)
    before = torch.get_num_threads()
    try:
        for case in cases:
            for dtype in dtypes:
                for mode in modes:
                    progress(f"check {case.name}, {mode.name}")
                    check_ours(benchmark, case, mode, benchmark.make_inputs(case, dtype, device, 0))
        progress("copy bandwidth and matmul rate")
        with watch.window():
            for threads in settings.threads:
                torch.set_num_threads(threads)
                for dtype in dtypes:
                    floors.bandwidth()
                    floors.peak(dtype)
        for case in cases:
            for dtype in dtypes:
                inputs = benchmark.make_inputs(case, dtype, device, 0)
                for mode in modes:
                    torch.set_num_threads(before)
                    expected, gradient = ours_outcome(benchmark, mode, inputs)
                    peaks: dict[str, int | None] = {}
                    torch.compiler.reset()
                    compiled: dict[str, Function] = {}
                    for threads in settings.threads:
                        progress(f"{case.name}, {mode.name}, {threads} thread{'s' * (threads > 1)}")
                        torch.set_num_threads(threads)
                        cell = Cell(case, mode, dtype, threads)
                        with watch.window() as window:
                            gather(benchmark, cell, inputs, expected, gradient, settings)
                        record = _time(
                            benchmark,
                            cell,
                            inputs,
                            gradient,
                            settings,
                            floors,
                            watch,
                            peaks,
                            expected,
                            compiled,
                        )
                        if window.busy and any(each.slow for each in cell.contenders.values()):
                            record |= {
                                "busy": True,
                                "others": max(window.others or 0.0, record["others"] or 0.0),
                            }
                        yield record
    finally:
        torch.set_num_threads(before)


def gather(
    benchmark: Benchmark,
    cell: Cell,
    inputs: Inputs,
    expected: Outcome,
    gradient: Tensor | None,
    settings: Settings,
) -> None:
    """Fills the cell with the contenders that give the same result as ours."""
    cell.contenders[OURS] = _Contender(OURS, benchmark.ours)
    for entry in benchmark.formulations:
        if not entry.applies(cell.case, cell.mode, cell.dtype):
            continue
        kind = "handwritten" if entry.handwritten_backward else "eager"
        contender = _Contender(kind, entry.function)
        start = time.perf_counter()
        _add(benchmark, cell, entry.name, contender, inputs, expected, gradient)
        seconds = time.perf_counter() - start
        contender.slow = settings.device == "cpu" and seconds > settings.slow
        contender.calibrated = seconds


def _add(
    benchmark: Benchmark,
    cell: Cell,
    name: str,
    contender: _Contender,
    inputs: Inputs,
    expected: Outcome,
    gradient: Tensor | None,
) -> None:
    """Admits a contender that gives the same result as ours, or notes why not."""
    reason = refusal(benchmark, contender.function, cell.mode, inputs, expected, gradient)
    if reason is None:
        cell.contenders[name] = contender
    else:
        cell.refused[name] = reason


def _to_compile(benchmark: Benchmark, cell: Cell) -> list[Formulation]:
    """The formulations worth compiling: the quickest eager ones. Each costs half a minute or more."""
    able = [entry for entry in benchmark.formulations if entry.compilable and not entry.handwritten_backward]
    able = [entry for entry in able if entry.name in cell.contenders]
    return sorted(able, key=lambda entry: cell.contenders[entry.name].calibrated)[:COMPILED_AT_MOST]


def _time(
    benchmark: Benchmark,
    cell: Cell,
    inputs: Inputs,
    gradient: Tensor | None,
    settings: Settings,
    floors: Floors,
    watch: LoadWatch,
    peaks: dict[str, int | None],
    expected: Outcome,
    compiled: dict[str, Function],
) -> dict[str, Any]:
    """Times the cell's contenders and makes its record. ``compiled``: what other threads' rows compiled."""
    sets = _input_sets(benchmark, cell, inputs, settings)
    start = cuda_run if settings.device == "cuda" else host_run

    def prepare(contender: _Contender) -> None:
        contender.run = start([timed_call(contender.function, each, cell.mode, gradient) for each in sets])
        contender.repetitions, contender.calibrated = calibrate(contender.run, settings.minimum_seconds)

    for contender in cell.contenders.values():
        if not contender.slow:
            prepare(contender)
    if settings.compile and benchmark.compiles(cell.case, cell.mode, settings.device):
        for formulation in _to_compile(benchmark, cell):
            key = f"compiled {formulation.name}"
            if key not in compiled:
                compiled[key] = _compiled(benchmark, formulation, cell, inputs, gradient, settings)
            _add(benchmark, cell, key, _Contender("compiled", compiled[key]), inputs, expected, gradient)
            if key in cell.contenders:
                prepare(cell.contenders[key])

    kept = _worth_timing(cell, settings.prune)
    runs = {name: contender.run for name, contender in kept.items() if contender.run is not None}
    with watch.window() as window:
        samples = interleave(runs, {name: kept[name].repetitions for name in runs}, settings.rounds)
    samples |= {name: Samples((each.calibrated,), 1) for name, each in kept.items() if each.slow}

    fastest = {kind: _fastest(kept, samples, kind) for kind in ("eager", "handwritten", "compiled")}
    if settings.memory:
        for name in (OURS, fastest["eager"]):
            if name is not None and name not in peaks:
                peaks[name] = _peak_memory(benchmark, cell, name, inputs, gradient, settings)

    work = benchmark.work(cell.case, cell.mode, cell.dtype.itemsize)
    floor, rate, peak = floors.floor(work, cell.dtype), floors.matmul(cell.dtype), floors.peak(cell.dtype)
    ours = samples[OURS]
    contenders: dict[str, Any] = {}
    for name, contender in cell.contenders.items():
        entry: dict[str, Any] = {"kind": contender.kind, "calibrated": contender.calibrated}
        if name in samples:
            mine = samples[name]
            entry |= {
                "median": mine.median,
                "minimum": mine.minimum,
                "interquartile_range": mine.interquartile_range,
                "repetitions": mine.repetitions,
                "rounds": list(mine.seconds),
                "ratio_of_medians": mine.median / ours.median,
                "median_of_round_ratios": (
                    mine.median / ours.median if contender.slow else mine.median_round_ratio(ours)
                ),
                "flops_per_second": work.flops / mine.median,
                "share_of_matmul": work.flops / mine.median / rate,
                "share_of_peak": work.flops_in_bounds / mine.median / peak,
                "ratio_to_floor": mine.median / floor.seconds,
                "peak_memory": peaks.get(name),
            }
        contenders[name] = entry
    return {
        "case": cell.case.name,
        "sizes": dict(cell.case.sizes),
        "mode": cell.mode.name,
        "backward": cell.mode.backward,
        "dtype": str(cell.dtype).removeprefix("torch."),
        "threads": cell.threads,
        "work": vars(work),
        "floor": vars(floor),
        "contenders": contenders,
        "fastest": fastest,
        "refused": cell.refused,
        "busy": window.busy,
        "others": window.others,
        "seconds": window.seconds,
    }


def _compiled(
    benchmark: Benchmark,
    formulation: Formulation,
    cell: Cell,
    inputs: Inputs,
    gradient: Tensor | None,
    settings: Settings,
) -> Function:
    """The formulation under ``torch.compile``.

    Inductor's C++ is made for one number of threads, and a row with another compiles again; except with
    ``cpp.dynamic_threads``, when code made for the most threads serves all: so that is compiled first.
    """
    options = dict(benchmark.compile_options)
    function: Function = torch.compile(formulation.function, dynamic=False, options=options or None)
    if options.get("cpp.dynamic_threads"):
        torch.set_num_threads(max(settings.threads))
        with contextlib.suppress(Exception):  # what it raises is asked for, and noted, by the caller
            evaluate(function, inputs, cell.mode, gradient)
        torch.set_num_threads(cell.threads)
    return function


def timed_call(
    function: Function, inputs: Inputs, mode: Mode, gradient: Tensor | None
) -> Callable[[], object]:
    """The timed call, without arguments."""
    if not mode.backward:
        return lambda: inputs.call(function, mode)
    leaves = inputs.map(lambda tensor: tensor.detach().requires_grad_())

    def forward_and_backward() -> object:
        return torch.autograd.grad(leaves.call(function, mode), leaves.differentiable, gradient)

    return forward_and_backward


def _input_sets(benchmark: Benchmark, cell: Cell, inputs: Inputs, settings: Settings) -> list[Inputs]:
    """The inputs; on CUDA so many sets that one has left the L2 cache before its turn comes again."""
    if settings.device != "cuda":
        return [inputs]
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    count = min(_MOST_INPUT_SETS, 1 + -(-2 * cache // max(1, inputs.bytes())))
    device = torch.device(settings.device)
    return [inputs, *(benchmark.make_inputs(cell.case, cell.dtype, device, seed) for seed in range(1, count))]


def _worth_timing(cell: Cell, prune: float) -> dict[str, _Contender]:
    """Ours, and of each other kind those within ``prune`` times the quickest of its kind."""
    kept = {}
    for name, contender in cell.contenders.items():
        rivals = [each.calibrated for each in cell.contenders.values() if each.kind == contender.kind]
        if contender.calibrated <= prune * min(rivals):
            kept[name] = contender
    return kept


def _fastest(kept: dict[str, _Contender], samples: dict[str, Samples], kind: str) -> str | None:
    names = [name for name, contender in kept.items() if contender.kind == kind]
    return min(names, key=lambda name: samples[name].median, default=None)


def _peak_memory(
    benchmark: Benchmark, cell: Cell, name: str, inputs: Inputs, gradient: Tensor | None, settings: Settings
) -> int | None:
    if settings.device == "cuda":
        return memory.cuda_peak(cell.contenders[name].function, inputs, cell.mode, gradient)
    return memory.cpu_peak(benchmark, cell.case, cell.mode, cell.dtype, name)
