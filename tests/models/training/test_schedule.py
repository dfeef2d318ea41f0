"""The schedule against the paper's text, epoch by epoch, and optimizers by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from reid_models.papers.hsgnet.defaults import HSGNET_OPTIMIZER, HSGNET_SCHEDULE
from reid_models.training.schedule import make_optimizer, make_schedule


class One(nn.Module):
    """A network of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def rates(schedule: dict[str, Any], steps: int, lr: float = 0.01) -> list[float]:
    """The rate of each epoch (or step), the first one first."""
    optimizer = make_optimizer(One(), {"name": "SGD", "lr": lr})
    scheduler, _ = make_schedule(optimizer, schedule, count_steps=lambda: steps)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return found


def hsgnet(epoch: int, factor: float = 0.1, first_decay: int = 31) -> float:
    """Section IV-B: 0.001 linearly to 0.01 in epochs 1 to 10, 0.01 to epoch 30, a decay every 20 epochs."""
    if epoch <= 10:
        return 0.001 + (epoch - 1) * (0.01 - 0.001) / 9
    return 0.01 * factor ** len([e for e in range(first_decay, 200, 20) if e <= epoch])


def test_hsgnet_schedule_is_the_text_in_every_epoch() -> None:
    assert dict(HSGNET_OPTIMIZER) == {"name": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    found = rates(dict(HSGNET_SCHEDULE), 120)
    assert found == pytest.approx([hsgnet(epoch) for epoch in range(1, 121)], rel=1e-12)
    by_epoch = dict(enumerate(found, start=1))
    for epoch, rate in {
        1: 1e-3, 2: 2e-3, 9: 9e-3, 10: 1e-2, 11: 1e-2, 30: 1e-2, 31: 1e-3, 50: 1e-3, 51: 1e-4, 70: 1e-4,
        71: 1e-5, 90: 1e-5, 91: 1e-6, 110: 1e-6, 111: 1e-7, 120: 1e-7,
    }.items():  # fmt: skip
        assert by_epoch[epoch] == pytest.approx(rate, rel=1e-12), epoch


@pytest.mark.parametrize(
    "options", [{"factor": 0.9}, {"first_decay": 51}, {"factor": 0.9, "first_decay": 51}]
)
def test_hsgnet_schedule_has_its_other_readings(options: dict[str, Any]) -> None:
    expected = [hsgnet(epoch, **options) for epoch in range(1, 121)]
    assert rates({"name": "step", **options}, 120) == pytest.approx(expected, rel=1e-12)


def test_steps_of_others_without_warmup() -> None:
    found = rates({"name": "step", "warmup_epochs": 0, "milestones": [160, 200]}, 200, lr=2e-4)
    assert found == pytest.approx([2e-4] * 159 + [2e-5] * 40 + [2e-6], rel=1e-12)


def test_one_cycle_goes_up_and_down_once() -> None:
    found = rates({"name": "one_cycle", "warmup_share": 0.25}, 40, lr=0.1)
    top = found.index(max(found))
    assert found[0] == pytest.approx(0.1 / 25) and max(found) == pytest.approx(0.1) and top == 9
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True) and found[-1] == pytest.approx(0.1 / 25 / 1e4)


def test_iterations_are_caffes_steps() -> None:
    """The rate is lr * factor ** (iteration // every)."""
    found = rates({"name": "iterations", "every": 20, "factor": 0.1}, 50, lr=0.001)
    assert found == pytest.approx([0.001 * 0.1 ** (i // 20) for i in range(50)], rel=1e-12)
    assert rates({"name": "iterations", "milestones": [20, 40]}, 50, lr=0.001) == pytest.approx(
        found, rel=1e-12
    )
    scheduler = make_schedule(
        make_optimizer(One(), {"name": "SGD", "lr": 1.0}), {"name": "iterations", "every": 2}, count_steps=int
    )
    assert scheduler[1] == "step"


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.classifier = nn.Linear(3, 4)


def test_groups_of_parameters() -> None:
    network = Head()
    groups = [
        {"match": r"classifier.*\.bias$", "lr_factor": 2, "weight_decay": 0.0},
        {"match": "^classifier", "lr_factor": 0.5},
    ]
    options = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "groups": groups}
    rest, bias, weight = make_optimizer(network, options).param_groups
    assert rest["params"] == [*network.trunk.parameters()] and rest["lr"] == 0.1
    assert bias["params"] == [network.classifier.bias] and weight["params"] == [network.classifier.weight]
    assert (bias["lr"], bias["weight_decay"], weight["lr"], weight["weight_decay"]) == (0.2, 0.0, 0.05, 5e-4)
    everything = make_optimizer(network, {**options, "groups": [{"match": ".", "lr_factor": 3}]}).param_groups
    assert len(everything) == 1 and everything[0]["lr"] == pytest.approx(0.3)
    assert groups[0]["match"] == r"classifier.*\.bias$"  # what was given stays


@pytest.mark.parametrize(
    "schedule", [{"name": "one_cycle"}, {"name": "iterations", "every": 3}, {"name": "step"}]
)
def test_schedules_keep_the_groups_factors(schedule: dict[str, Any]) -> None:
    options = {"name": "SGD", "lr": 0.1, "groups": [{"match": "bias", "lr_factor": 2}]}
    optimizer = make_optimizer(Head(), options)
    scheduler, _ = make_schedule(optimizer, schedule, count_steps=lambda: 20)
    for _ in range(19):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(2 * first, rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"lr_factor": 2}, r"match of a group must be a regular expression, got {'lr_factor': 2}"),
        ({"match": "("}, r"must be a regular expression \(missing \)"),
        (
            {"match": "biases"},
            r"match 'biases' must be in the name of a parameter .* names are trunk\.0\.weight",
        ),
        ({"match": "bias", "lr": 0.2}, r"unknown argument of a group of SGD 'lr'"),
        ({"match": "bias", "lr_factor": -1}, r"lr_factor must be a number of at least 0, got -1"),
    ],
)
def test_bad_groups(group: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(Head(), {"name": "SGD", "lr": 0.1, "groups": [group]})


def test_constant_stays() -> None:
    assert rates({"name": "constant"}, 5) == [0.01] * 5


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_optimizers_by_name(name: str) -> None:
    optimizer = make_optimizer(One(), {"name": name, "lr": 2e-4, "weight_decay": 5e-4})
    assert type(optimizer).__name__ == name and optimizer.defaults["weight_decay"] == 5e-4


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({}, "schedule: name must be given"),
        ({"name": "steps"}, 'did you mean "step"'),
        ({"name": "step", "gamma": 0.1}, "unknown argument of schedule step 'gamma'"),
        ({"name": "step", "factor": 1.5}, r"factor must be in \(0, 1\], got 1.5"),
        ({"name": "step", "decay_every": 0}, "decay_every must be at least 1, got 0"),
        ({"name": "step", "milestones": [1]}, "milestones must be at least 2, got 1"),
        ({"name": "iterations"}, "every or milestones must be given, got None and None"),
        ({"name": "iterations", "every": 2, "milestones": [2]}, "every or milestones must be given"),
        ({"name": "iterations", "every": 0}, "every must be at least 1, got 0"),
        ({"name": "iterations", "milestones": [0]}, "milestones must be at least 1, got 0"),
        ({"name": "iterations", "every": 5, "factor": 0}, r"factor must be in \(0, 1\], got 0"),
        ({"name": "step", "warmup_epochs": 1.5}, "warmup_epochs must be an int, got float"),
    ],
)
def test_bad_schedules(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        rates(schedule, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.1}, "optimizer: name must be given"),
        ({"name": "SGD"}, "optimizer: lr must be given"),
        ({"name": "sgd", "lr": 0.1}, r"unknown optimizer 'sgd' \(known: Adam, AdamW, RMSprop, SGD\)"),
        ({"name": "Adam", "lr": 0.1, "momentum": 0.9}, "unknown argument of Adam 'momentum'"),
    ],
)
def test_bad_optimizers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(One(), options)
