"""What the tests of the benchmark harness share: a machine that need not be measured."""

from __future__ import annotations

import pytest

from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch


def skip_measuring_the_machine(patch: pytest.MonkeyPatch) -> None:
    """Round figures in place of measured rates."""
    patch.setattr(Floors, "bandwidth", lambda self: 2e10)
    patch.setattr(Floors, "matmul", lambda self, dtype: 5e10)
    patch.setattr(Floors, "convolution", lambda self, dtype: 1e11)
    patch.setattr(LoadWatch, "settle", lambda self: None)
