"""Finds the benchmark modules: every module of this package, not sub-package, that has a ``BENCHMARK``."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks
from benchmarks.harness.model import Benchmark


def discover() -> dict[str, Benchmark]:
    """All benchmarks by operator name, in alphabetical order."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.ispkg or module.name.startswith("_"):
            continue
        benchmark = getattr(importlib.import_module(f"benchmarks.{module.name}"), "BENCHMARK", None)
        if isinstance(benchmark, Benchmark):
            found[benchmark.name] = benchmark
    return dict(sorted(found.items()))
