"""The benchmark of windows and heads: both contenders on a small map, alike; its count of work."""

from __future__ import annotations

import pytest
import torch

from benchmarks import window_heads
from benchmarks.harness.check import check_ours, ours_outcome, refusal
from benchmarks.harness.model import Case

CASE = Case("tiny", {"batch": 3})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few channels and narrow heads."""
    for name, value in (("CHANNELS", 20), ("REDUCED", 8), ("WIDTH", 6), ("IDENTITIES", 5)):
        monkeypatch.setattr(window_heads, name, value)
    window_heads._heads.cache_clear()


def test_contenders_agree(small: None) -> None:
    benchmark, (mode,) = window_heads.BENCHMARK, window_heads.MODES
    inputs = window_heads.make_inputs(CASE, torch.float32, torch.device("cpu"), 0)
    found, gradient = ours_outcome(benchmark, mode, inputs)
    check_ours(benchmark, CASE, mode, inputs)
    assert found.output.shape == (3, 21, 5) and len(found.gradients) == 4
    assert refusal(benchmark, window_heads.naive, mode, inputs, found, gradient) is None


def test_work_of_the_paper() -> None:
    """52 M weights; 16 images' map is 47 MB."""
    work = window_heads.work(Case("N=16", {"batch": 16}), window_heads.MODES[0], 4)
    weights = 21 * (256 * 7680 + 512 * 256 + 751 * 512)
    assert work.flops == 6 * 16 * weights + 3 * 16 * 3840 * 192
    assert work.bytes_written == (16 * 3840 * 192 + weights) * 4
