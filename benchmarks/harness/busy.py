"""How much an operator, and the PyTorch it is compared with, slow down when other processes compute, too.

Researchers share servers. An operator that cuts its work into many parallel regions waits, in each, for the
thread that has lost its core. So ours and the quickest formulation are timed idle, under busy loops, and idle
again, each time in turn; what counts is how much more ours slows down than the other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome
from benchmarks.harness.machine import LoadWatch
from benchmarks.harness.model import Benchmark, Case, Mode
from benchmarks.harness.report import milliseconds
from benchmarks.harness.runner import OURS, Cell, Settings, gather, timed_call
from benchmarks.harness.timing import Run, Samples, calibrate, host_run, interleave

ALLOWED = 1.2  # times the slow-down of the formulation
# Longer than the time a system lets a process keep a core, so that each figure has its share of waits.
MINIMUM_SECONDS = 0.25
# Ends by itself when its parent has gone, however that happened.
_LOOP = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that compute without end, for as long as the block lasts and no longer."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-S", "-c", _LOOP, str(os.getpid())]
            loops.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        yield loops
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


@dataclass(frozen=True)
class Slowdown:
    """One contender's seconds a call, idle (before and after) and under busy loops."""

    idle: Samples
    busy: Samples

    @property
    def factor(self) -> float:
        """Median under busy loops over median idle."""
        return self.busy.median / self.idle.median


def run_busy(
    benchmark: Benchmark,
    cases: tuple[Case, ...],
    modes: tuple[Mode, ...],
    dtype: torch.dtype,
    loops: int,
    settings: Settings,
    watch: LoadWatch,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Yields one record a case, mode and number of threads.

    Raises:
        CheckFailed: ours disagrees with the reference, or no formulation agrees with ours.
    """
    before = torch.get_num_threads()
    try:
        for case in cases:
            for mode in modes:
                for threads in settings.threads:
                    torch.set_num_threads(threads)
                    cell = Cell(case, mode, dtype, threads)
                    progress(f"{case.name}, {mode.name}")
                    yield _measure(benchmark, cell, loops, settings, watch)
    finally:
        torch.set_num_threads(before)


def _measure(
    benchmark: Benchmark, cell: Cell, loops: int, settings: Settings, watch: LoadWatch
) -> dict[str, Any]:
    runs, fastest = _opponents(benchmark, cell, settings)
    repetitions = {name: calibrate(run, settings.minimum_seconds)[0] for name, run in runs.items()}
    half = (settings.rounds + 1) // 2
    with watch.window() as first:
        before = interleave(runs, repetitions, half)
    with busy_loops(loops):
        busy = interleave(runs, repetitions, settings.rounds)
    with watch.window() as second:
        after = interleave(runs, repetitions, half)
    found = {
        name: Slowdown(Samples(before[name].seconds + after[name].seconds, repetitions[name]), busy[name])
        for name in runs
    }
    known = [window.others for window in (first, second) if window.others is not None]
    return {
        "case": cell.case.name,
        "sizes": dict(cell.case.sizes),
        "mode": cell.mode.name,
        "dtype": str(cell.dtype).removeprefix("torch."),
        "threads": cell.threads,
        "loops": loops,
        "ours": _entry(found[OURS]),
        "formulation": {"name": fastest, **_entry(found[fastest])},
        "ratio": found[OURS].factor / found[fastest].factor,
        "busy": first.busy or second.busy,
        "others": max(known, default=None),
    }


def _opponents(benchmark: Benchmark, cell: Cell, settings: Settings) -> tuple[Mapping[str, Run], str]:
    """Ours, and the benchmark's ``busy_with`` or this row's quickest eager formulation; the latter's name."""
    device = torch.device(settings.device)
    inputs = benchmark.make_inputs(cell.case, cell.dtype, device, 0)
    check_ours(benchmark, cell.case, cell.mode, inputs)
    expected, gradient = ours_outcome(benchmark, cell.mode, inputs)
    named = [each for each in benchmark.formulations if each.name == benchmark.busy_with]
    if named:
        functions = {OURS: benchmark.ours, named[0].name: named[0].function}
        timed = {name: timed_call(each, inputs, cell.mode, gradient) for name, each in functions.items()}
        return {name: host_run([call]) for name, call in timed.items()}, named[0].name
    gather(benchmark, cell, inputs, expected, gradient, settings)
    runs = {
        name: host_run([timed_call(contender.function, inputs, cell.mode, gradient)])
        for name, contender in cell.contenders.items()
        if contender.kind in (OURS, "eager")
    }
    eager = {name: cell.contenders[name].calibrated for name in runs if name != OURS}
    if not eager:
        raise CheckFailed(f"{benchmark.name}, {cell.case.name}, {cell.mode.name}: nothing to compare with")
    # The call that checked was a first call: those near the quickest are timed once more.
    near = [name for name, seconds in eager.items() if seconds <= settings.prune * min(eager.values())]
    fastest = min(near, key=lambda name: calibrate(runs[name], settings.minimum_seconds / 10)[1])
    return {OURS: runs[OURS], fastest: runs[fastest]}, fastest


def _entry(found: Slowdown) -> dict[str, Any]:
    return {
        "idle": found.idle.median,
        "busy": found.busy.median,
        "slow_down": found.factor,
        "idle_rounds": list(found.idle.seconds),
        "busy_rounds": list(found.busy.seconds),
        "repetitions": found.idle.repetitions,
    }


def print_busy(found: dict[str, Any], to: Console) -> None:
    """The rows of a document as a table."""
    loops = found["arguments"]["busy"]
    title = f"{found['operator']} under {loops} busy loop{'s' * (loops > 1)}"
    table = Table(title=title, box=Table().box if to.is_terminal else None, title_justify="left")
    headings = ("case", "mode", "thr", "ours ms", "busy", "slower", "eager ms", "busy", "slower", "ratio")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("case", "mode") else "right", no_wrap=True)
    for record in found["records"]:
        table.add_row(record["case"], record["mode"], str(record["threads"]), *busy_fields(record))
    to.print(table)
    for record in found["records"]:
        where = f"{record['case']}, {record['mode']}, against {record['formulation']['name']}"
        if record["ratio"] > ALLOWED:
            to.print(f"above {ALLOWED}: {record['ratio']:.2f} ({where})")
        if record["busy"]:
            to.print(f"WARNING: others used {record['others']:.2f} cores while this was to be idle ({where})")


def busy_fields(record: dict[str, Any]) -> list[str]:
    """Idle, busy and slow-down of ours and of the formulation, and the ratio of the slow-downs."""
    fields = []
    for side in (record["ours"], record["formulation"]):
        fields += [milliseconds(side["idle"]), milliseconds(side["busy"]), f"{side['slow_down']:.2f}×"]
    return [*fields, f"{record['ratio']:.2f}"]
