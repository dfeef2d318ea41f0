"""The benchmark of whole HSGNet, with a small trunk: both implementations do the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import hsgnet_training
from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome, refusal
from benchmarks.harness.model import Case, Mode
from benchmarks.hsgnet_training import BENCHMARK, MODES
from reid_models import networks

CASE = Case("tiny", hsgnet_training._sizes(8, 64, 32))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    original = networks.create_model

    def create(name: str, num_classes: int, **options: Any) -> networks.Network:
        return original(name, num_classes, backbone="resnet10t", **options)

    monkeypatch.setattr(networks, "create_model", create)
    for cached in (hsgnet_training._network, hsgnet_training._macs):
        cached.cache_clear()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fused_and_reference_agree(mode: Mode, dtype: torch.dtype) -> None:
    inputs = BENCHMARK.make_inputs(CASE, dtype, CPU, 0)
    check_ours(BENCHMARK, CASE, mode, inputs)
    expected, gradient = ours_outcome(BENCHMARK, mode, inputs)
    again, _ = ours_outcome(BENCHMARK, mode, inputs)
    assert torch.equal(again.output, expected.output)  # steps leave the network as it is
    assert expected.output.shape == ((3,) if mode.options["training"] else (8, 512))
    (entry,) = BENCHMARK.formulations
    assert refusal(BENCHMARK, entry.function, mode, inputs, expected, gradient) is None


def test_steps_compute_every_gradient() -> None:
    inputs = BENCHMARK.make_inputs(CASE, torch.float32, CPU, 0)
    inputs.call(BENCHMARK.ours, MODES[0])
    model, _, optimizer = hsgnet_training._network("fused", (64, 32), True, False, torch.float32, "cpu")
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert all(gradient.abs().sum() > 0 for key, gradient in gradients.items() if "hsgm" in key)
    assert len(optimizer.state) == len(list(model.parameters()))


def test_a_wrong_network_is_noticed() -> None:
    inputs = BENCHMARK.make_inputs(CASE, torch.float32, CPU, 0)
    model, _, _ = hsgnet_training._network("fused", (64, 32), True, False, torch.float32, "cpu")
    with torch.no_grad():
        model.get_submodule(model.classifiers()[0]).weight.mul_(2.0)
        model.backbone.body.conv1[0].weight.mul_(-1.0)
    with pytest.raises(CheckFailed, match="ours disagrees with the reference"):
        check_ours(BENCHMARK, CASE, MODES[0], inputs)


def test_work_is_three_forward_passes_in_training() -> None:
    training, inference = (BENCHMARK.work(CASE, MODES[index], 4).flops for index in (0, 2))
    assert training == 3 * inference > 0
