"""The benchmark of the input pipeline: everyone's batches are right before anyone is timed."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from benchmarks import input_pipeline
from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome, refusal
from benchmarks.harness.machine import _workers_seconds
from benchmarks.harness.model import Case, Mode
from benchmarks.input_pipeline import BENCHMARK, MODES
from reid_models import data

CASE = Case("tiny", input_pipeline._sizes(16, 8, (30, 60), (64, 48)))
CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_all_contenders_agree(mode: Mode) -> None:
    inputs = BENCHMARK.make_inputs(CASE, torch.float32, CPU, 0)
    check_ours(BENCHMARK, CASE, mode, inputs)
    expected, gradient = ours_outcome(BENCHMARK, mode, inputs)
    assert expected.output.shape == ((16,) if mode.options["training"] else (16, 3, 8, 6))
    for entry in BENCHMARK.formulations:
        assert refusal(BENCHMARK, entry.function, mode, inputs, expected, gradient) is None, entry.name
    # Loaders keep their workers, whose time is ours. The system counts whole hundredths of a second of each.
    deadline = time.monotonic() + 60
    while not _workers_seconds() and time.monotonic() < deadline:
        inputs.call(BENCHMARK.ours, mode)
    assert _workers_seconds() > 0


BLACK = {"p": 0.5, "fill": "mean", "mean": 0.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "ours does not leave black images as they are"),
        ({"pad": 10, "erase": {"p": 1.0}}, "ours does not leave black images as they are"),
        ({"flip": 0.0, "pad": 10, "erase": BLACK}, "ours has 0.00 of the images flipped, expected 0.50"),
        ({"pad": 0, "erase": BLACK}, "ours has 0.00 of the images moved, expected 0.95"),
        ({"pad": 10, "erase": None}, "ours has 0.00 of the images erased, expected 0.50"),
    ],
)
def test_a_wrong_pipeline_is_noticed(
    wrong: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "Augmentation", lambda **_: augmentation)
    augmentation = data.augmentation.Augmentation(**wrong)
    input_pipeline._check_training.cache_clear()
    input_pipeline._our_batches.cache_clear()
    with pytest.raises(CheckFailed, match=message):
        BENCHMARK.make_inputs(CASE, torch.float32, CPU, 0)
    input_pipeline._our_batches.cache_clear()
