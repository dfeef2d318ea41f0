"""Optimizers by name with groups of parameters, and how the learning rate goes, by epochs or by iterations.

Everything is composed of ``torch.optim``; only names and numbers are ours.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

from .._numbers import check_integer
from .._registry import Registry, table
from .._suggest import unknown

OPTIMIZERS: Mapping[str, type[Optimizer]] = MappingProxyType(
    {optimizer.__name__: optimizer for optimizer in (SGD, Adam, AdamW, RMSprop)}
)

DECAYS = 100  # more than any run lives through, so that raising max_epochs on resuming changes no decay


def make_optimizer(network: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    r"""An optimizer from a recipe's ``optimizer``: a name in :data:`OPTIMIZERS`, ``lr``, and its arguments.

    Args:
        network: its parameters are the optimizer's.
        options: also ``groups``: a list of parameters with arguments of their own, each with ``match``, a
            regular expression that is looked for in the parameters' names; ``lr_factor``, times ``lr``; and
            arguments of the optimizer but ``lr``. A parameter belongs to the first group that it matches.

    Raises:
        TypeError, ValueError: no name or ``lr``, an unknown name or argument, or one that it refuses; a group
            without parameters or with a factor below 0.

    Example:
        >>> bias = {"match": r"classifier.*\.bias$", "lr_factor": 2.0, "weight_decay": 0.0}
        >>> make_optimizer(model, {"name": "SGD", "lr": 1e-3, "weight_decay": 5e-4, "groups": [bias]})
    """
    name, arguments = _named("optimizer", options)
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    if "lr" not in arguments:
        raise ValueError(f"optimizer: lr must be given, got {dict(options)}")
    groups = arguments.pop("groups", None) or []
    _check_known(f"argument of {name}", arguments, OPTIMIZERS[name], skipped=("params",))
    if not groups:
        return OPTIMIZERS[name](network.parameters(), **arguments)
    given = [_read_group(group, name, arguments["lr"]) for group in groups]
    return OPTIMIZERS[name](_grouped(network, given), **arguments)


def _read_group(group: Mapping[str, Any], name: str, lr: float) -> tuple[re.Pattern[str], dict[str, Any]]:
    """A group's pattern, and its arguments of the optimizer."""
    arguments = dict(group)
    try:
        pattern = re.compile(arguments.pop("match"))
    except (KeyError, TypeError, re.error) as error:
        reason = "" if isinstance(error, KeyError) else f" ({error})"
        raise ValueError(
            f"optimizer: match of a group must be a regular expression{reason}, got {group}"
        ) from None
    factor = arguments.pop("lr_factor", 1.0)
    _check_known(f"argument of a group of {name}", arguments, OPTIMIZERS[name], skipped=("params", "lr"))
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor >= 0:
        raise ValueError(f"optimizer: lr_factor must be a number of at least 0, got {factor!r}")
    return pattern, {**arguments, "lr": lr * factor}


def _grouped(
    network: nn.Module, groups: Sequence[tuple[re.Pattern[str], Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Parameters that no group matches, then those of each group."""
    rest: list[nn.Parameter] = []
    found: list[list[nn.Parameter]] = [[] for _ in groups]
    for name, parameter in network.named_parameters():
        place = (own for (pattern, _), own in zip(groups, found, strict=True) if pattern.search(name))
        next(place, rest).append(parameter)
    for (pattern, _), own in zip(groups, found, strict=True):
        if not own:
            first = ", ".join(name for name, _ in list(network.named_parameters())[:3])
            raise ValueError(
                f"optimizer: match {pattern.pattern!r} must be in the name of a parameter of no group before "
                f"it; names are {first}, ..."
            )
    with_arguments = [{"params": own, **more} for (_, more), own in zip(groups, found, strict=True)]
    return [{"params": rest}, *with_arguments] if rest else with_arguments


def make_schedule(
    optimizer: Optimizer, options: Mapping[str, Any], *, count_steps: Callable[[], int]
) -> tuple[LRScheduler, str]:
    """A schedule from a recipe's ``schedule``: its name and its arguments.

    The name is one in :data:`SCHEDULES`, or ``package.module:NAME`` for such a pair as is in there.

    Args:
        optimizer: its ``lr`` is the highest of the run.
        options: ``{"name": "step", "factor": 0.9}``, for example.
        count_steps: gives the run's optimizer steps, for a schedule that has to know its end.

    Returns:
        The scheduler, and ``"epoch"`` or ``"step"``: after each of which it is stepped.

    Raises:
        TypeError, ValueError: an unknown name or argument, or one out of range.

    Example:
        >>> scheduler, interval = make_schedule(optimizer, {"name": "step"}, count_steps=lambda: 0)
    """
    name, arguments = _named("schedule", options)
    make, interval = SCHEDULES.find(name)
    _check_known(f"argument of schedule {name}", arguments, make, skipped=("optimizer", "count_steps"))
    return make(optimizer, count_steps, **arguments), interval


def _step(
    optimizer: Optimizer,
    count_steps: Callable[[], int],
    *,
    warmup_epochs: int = 10,
    warmup_start: float = 0.1,
    milestones: Sequence[int] | None = None,
    first_decay: int = 31,
    decay_every: int = 20,
    factor: float = 0.1,
) -> LRScheduler:
    """HSGNet's schedule (section IV-B); epochs count from 1, the rate changes at their start.

    With the optimizer's lr 0.01: 0.001 in epoch 1, linearly to 0.01 in epoch 10, 0.01 through epoch 30,
    then times ``factor`` at epochs 31, 51, 71, 91, 111, ... The paper's "decays by 10%" is read as 0.1;
    0.9 is the other reading.

    ``warmup_epochs`` is the epoch that reaches the full rate, 0 or 1 for no warm-up; ``warmup_start`` the
    rate of epoch 1 as a share of the full one, in (0, 1]; ``milestones`` the epochs of the decays, None for
    ``first_decay`` and every ``decay_every`` epochs from there.
    """
    if milestones is None:
        check_integer(first_decay, "first_decay", "schedule", 2)
        check_integer(decay_every, "decay_every", "schedule", 1)
        milestones = range(first_decay, first_decay + DECAYS * decay_every, decay_every)
    for epoch in milestones:
        check_integer(epoch, "milestones", "schedule", 2)
    check_integer(warmup_epochs, "warmup_epochs", "schedule", 0)
    _check_factor(factor, "factor")
    _check_factor(warmup_start, "warmup_start")
    decays = MultiStepLR(optimizer, [epoch - 1 for epoch in milestones], gamma=factor)
    if warmup_epochs < 2:
        return decays
    # Side by side, since both multiply; one after the other the decays would count from the warm-up's end.
    warmup = LinearLR(optimizer, start_factor=warmup_start, total_iters=warmup_epochs - 1)
    return ChainedScheduler([warmup, decays], optimizer)


def _one_cycle(
    optimizer: Optimizer,
    count_steps: Callable[[], int],
    *,
    warmup_share: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> LRScheduler:
    """``OneCycleLR`` over the whole run, for short ones; momentum stays as it is.

    The optimizer's lr is the peak, reached after ``warmup_share`` of the steps; it is ``start_divisor`` times
    the first rate, which is ``end_divisor`` times the last.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, max_lr=peaks, total_steps=count_steps(), pct_start=warmup_share,
        div_factor=start_divisor, final_div_factor=end_divisor, cycle_momentum=False,
    )  # fmt: skip


def _iterations(
    optimizer: Optimizer,
    count_steps: Callable[[], int],
    *,
    every: int | None = None,
    milestones: Sequence[int] | None = None,
    factor: float = 0.1,
) -> LRScheduler:
    """The optimizer's lr times ``factor`` after every ``every`` iterations (optimizer steps), as in Caffe.

    Or after each of ``milestones``. A run by iterations ends by the trainer's ``max_steps``.
    """
    if (every is None) == (milestones is None):
        raise ValueError(f"schedule: every or milestones must be given, got {every} and {milestones}")
    _check_factor(factor, "factor")
    if every is not None:
        check_integer(every, "every", "schedule", 1)
        return StepLR(optimizer, every, gamma=factor)
    for step in milestones or ():
        check_integer(step, "milestones", "schedule", 1)
    return MultiStepLR(optimizer, list(milestones or ()), gamma=factor)


def _constant(optimizer: Optimizer, count_steps: Callable[[], int]) -> LRScheduler:
    """The optimizer's lr throughout."""
    return ConstantLR(optimizer, factor=1.0)


def _check_schedule(thing: object) -> None:
    known = isinstance(thing, tuple) and len(thing) == 2 and callable(thing[0])
    if not (known and thing[1] in ("epoch", "step")):  # type: ignore[index]
        raise TypeError(f'must be a pair of a function and "epoch" or "step", got {thing!r}')


#: Schedules by name, with those of papers (``SCHEDULES`` in ``schedules.py``): what makes them from the
#: optimizer, ``count_steps`` and a recipe's arguments, and after what they are stepped.
SCHEDULES: Registry[tuple[Callable[..., LRScheduler], str]] = Registry(
    "schedule",
    {
        "constant": (_constant, "epoch"),
        "iterations": (_iterations, "step"),
        "one_cycle": (_one_cycle, "step"),
        "step": (_step, "epoch"),
    },
    "schedules",
    table("SCHEDULES"),
    _check_schedule,
)


def _named(what: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    arguments = dict(options)
    if "name" not in arguments:
        raise ValueError(f"{what}: name must be given, got {arguments}")
    return arguments.pop("name"), arguments


def _check_known(
    what: str, arguments: Iterable[str], function: Callable[..., Any], skipped: Sequence[str]
) -> None:
    known = [name for name in inspect.signature(function).parameters if name not in skipped]
    for argument in arguments:
        if argument not in known:
            raise unknown(what, argument, known)


def _check_factor(value: float, argument: str) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"schedule: {argument} must be in (0, 1], got {value}")
