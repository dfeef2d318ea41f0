"""The benchmark of HCN's heads: both ways do the same, and a wrong one is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks import hcn_heads
from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome, refusal
from benchmarks.harness.model import Mode
from benchmarks.hcn_heads import BENCHMARK, MODES

CASE = hcn_heads._case(2, 64, ("cpu",))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_both_ways_agree(mode: Mode) -> None:
    inputs = BENCHMARK.make_inputs(CASE, torch.float32, torch.device("cpu"), 0)
    check_ours(BENCHMARK, CASE, mode, inputs)
    expected, gradient = ours_outcome(BENCHMARK, mode, inputs)
    assert expected.output.shape == (3,) and len(expected.gradients) == (9 if mode.backward else 0)
    (entry,) = BENCHMARK.formulations
    assert refusal(BENCHMARK, entry.function, mode, inputs, expected, gradient) is None


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from reid_models.papers.hcn import cross_map

    original = cross_map.CrossMap._sums

    def wrong(self: cross_map.CrossMap, top: Tensor, bottom: Tensor) -> Tensor:
        return 1.01 * original(self, top, bottom)

    monkeypatch.setattr(cross_map.CrossMap, "_sums", wrong)
    inputs = BENCHMARK.make_inputs(CASE, torch.float32, torch.device("cpu"), 0)
    with pytest.raises(CheckFailed, match="ours disagrees with the reference"):
        check_ours(BENCHMARK, CASE, MODES[0], inputs)
