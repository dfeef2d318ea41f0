"""Interleaved timing: contenders take turns, so that whatever happens to the machine happens to all of them.

``torch.utils.benchmark`` times one statement to the end before the next; a drift between two of them would
then look like a difference. Here a round times every contender once, and rounds are repeated.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[int], float]  # repetitions -> seconds for all of them together


@dataclass(frozen=True)
class Samples:
    """Seconds a call, one figure per round."""

    seconds: tuple[float, ...]
    repetitions: int

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """Quickest round."""
        return min(self.seconds)

    @property
    def interquartile_range(self) -> float:
        """Upper less lower quartile."""
        if len(self.seconds) < 2:
            return 0.0
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower

    def median_round_ratio(self, ours: Samples) -> float:
        """Median of "this over ours", round by round."""
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.seconds, ours.seconds, strict=True)
        )


def host_run(calls: Sequence[Callable[[], object]]) -> Run:
    """Times calls by the host's clock, rotating over them."""
    turns = itertools.cycle(calls)

    def run(repetitions: int) -> float:
        start = time.perf_counter()
        for _ in range(repetitions):
            next(turns)()
        return time.perf_counter() - start

    return run


def cuda_run(calls: Sequence[Callable[[], object]]) -> Run:
    """Times calls by CUDA events on the current stream, rotating over them."""
    turns = itertools.cycle(calls)

    def run(repetitions: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repetitions):
            next(turns)()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    return run


def calibrate(run: Run, minimum_seconds: float) -> tuple[int, float]:
    """(repetitions that last ``minimum_seconds``, seconds a call), after a warm-up."""
    once = run(1)
    if once < minimum_seconds:  # first calls build primitives and fill caches: don't believe them
        once = run(1)
    repetitions = 1
    while once * repetitions < minimum_seconds:
        repetitions = max(repetitions + 1, math.ceil(minimum_seconds / max(once, 1e-9)))
        repetitions = min(repetitions, 1_000_000)
        once = run(repetitions) / repetitions
        if repetitions == 1_000_000:
            break
    return repetitions, once


def interleave(runs: Mapping[str, Run], repetitions: Mapping[str, int], rounds: int) -> dict[str, Samples]:
    """Times contenders in turn, A B C A B C ...; ``rounds`` figures each.

    A contender that is called more than once a round first gets an untimed call, to bring its own data back
    into the caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                if repetitions[name] > 1:
                    run(1)
                seconds[name].append(run(repetitions[name]) / repetitions[name])
    finally:
        if enabled:
            gc.enable()
    return {name: Samples(tuple(values), repetitions[name]) for name, values in seconds.items()}
