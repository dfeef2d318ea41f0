"""The benchmark harness: timing, the watch over a busy machine, and peak memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.harness import memory
from benchmarks.harness.machine import BUSY_SHARE, LoadWatch
from benchmarks.harness.timing import Samples, calibrate, interleave
from benchmarks.part_correlation import BENCHMARK, work


def test_timing_interleaves() -> None:
    order: list[str] = []

    def contender(name: str, seconds: float) -> Any:
        def run(repetitions: int) -> float:
            order.append(name)
            return seconds * repetitions

        return run

    runs = {name: contender(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 0.5))}
    samples = interleave(runs, dict.fromkeys(runs, 1), rounds=7)
    assert order == ["a", "b", "c"] * 7
    assert samples["b"].median_round_ratio(samples["a"]) == 2.0
    order.clear()
    samples = interleave(runs, {"a": 1, "b": 1, "c": 4}, rounds=2)
    assert order == ["a", "b", "c", "c"] * 2  # the first "c" of a round is not counted
    assert samples["c"].seconds == (0.5, 0.5)


def test_statistics() -> None:
    samples = Samples((4.0, 1.0, 2.0, 3.0, 100.0), 1)
    assert (samples.median, samples.minimum, samples.interquartile_range) == (3.0, 1.0, 2.0)


def test_calibration_reaches_the_wanted_length() -> None:
    repetitions, seconds = calibrate(lambda count: 1e-3 * count, 0.02)
    assert repetitions >= 20 and seconds == pytest.approx(1e-3)
    assert calibrate(lambda count: 0.5 * count, 0.02)[0] == 1


def _watch(tmp_path: Path, other_ticks: int) -> LoadWatch:
    """A watch over ten seconds in which we use five and others ``other_ticks`` hundredths."""
    stat = tmp_path / "stat"
    own = itertools.cycle([0.0, 5.0])
    clock = itertools.cycle([0.0, 10.0])

    def own_seconds() -> float:
        return next(own)

    def now() -> float:
        value = next(clock)
        ticks = 700 + (500 + other_ticks if value else 0)
        stat.write_text(f"cpu  {ticks} 0 10 5000 30 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
        return value

    return LoadWatch(stat, own_seconds, now)


@pytest.mark.parametrize(("other_ticks", "busy"), [(0, False), (60, False), (150, True), (1000, True)])
def test_busy_machine_is_noticed(tmp_path: Path, other_ticks: int, busy: bool) -> None:
    watch = _watch(tmp_path, other_ticks)
    with watch.window() as window:
        pass
    assert window.others == pytest.approx(other_ticks / 1000)
    assert window.busy is watch.busy is busy
    assert busy is (other_ticks / 1000 > BUSY_SHARE)
    assert watch.worst == pytest.approx(other_ticks / 1000)


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    watch = LoadWatch(tmp_path / "none")
    with watch.window() as window:
        pass
    assert window.others is None and watch.worst is None and not watch.busy


def test_peak_memory_of_a_process_of_its_own() -> None:
    case, mode = BENCHMARK.case("L2 N=16"), BENCHMARK.mode("forward")
    peak = memory.cpu_peak(BENCHMARK, case, mode, torch.float32, "grouped")
    assert peak is not None
    output = work(case, mode, 4).bytes_written
    assert output <= peak < 20 * output
