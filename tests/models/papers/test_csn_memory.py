"""Memory of scoring all pairs: bounded by an option, the same whatever the gallery's size."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.models.papers.test_csn import SMALL, small

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import torch
from benchmarks.harness.memory import growth
from tests.models.papers.test_csn import SMALL, small

torch.set_num_threads(1)
count = int(sys.argv[1])
model = small()
with torch.no_grad():
    codes = model.encode(torch.randn(8, 3, *SMALL["image_size"])).repeat(count // 8, 1)
score = lambda: model.match(codes[:4], codes, megabytes=4.0)
score()  # loads code and libraries, and grows the heap to what it needs
print(growth(score))
"""


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside had together at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given | self._known:
                    self._add(storage)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        self._known.add(name)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, name, size)

    def _remove(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


@pytest.mark.parametrize("megabytes", [1.0, 4.0])
def test_live_tensors_are_bounded(megabytes: float) -> None:
    """At two gallery sizes the same but for the scores; within the option."""
    model, peaks = small(), []
    with torch.no_grad():
        codes = model.encode(torch.randn(80, 3, *SMALL["image_size"]))
        for count in (40, 80):
            with LiveBytes() as live:
                scores = model.match(codes[:10], codes[:count], megabytes=megabytes)
            peaks.append(live.peak - scores.untyped_storage().nbytes())
    assert peaks[0] == peaks[1]
    assert 0.3e6 * megabytes < peaks[1] < 1.0e6 * megabytes


def test_a_process_does_not_grow_with_the_gallery() -> None:
    """By the operating system's own count, in a process for each size."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'models'}", "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    grown = []
    for count in (64, 256):
        command = [sys.executable, "-c", PROGRAM, str(count)]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        grown.append(int(ran.stdout))
    # 192 codes more are 8.7 MB, pairs' own copies of them would be 35 MB.
    assert grown[1] < grown[0] + 2e6, grown
    assert max(grown) < 8e6, grown
