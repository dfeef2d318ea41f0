"""The paper's learning rate: Eq. 6 as printed, and its warm-up read otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ..._numbers import check_integer
from ..._suggest import unknown

WARMUPS = ("printed", "linear", "from_zero")


def hybrid_attention(
    optimizer: Optimizer,
    count_steps: Callable[[], int],
    *,
    warmup: str = "printed",
    warmup_epochs: int = 10,
    warmup_share: float = 0.03,
    milestones: Sequence[int] = (60, 90, 120),
    factor: float = 0.5,
) -> LRScheduler:
    """Eq. 6; epochs count from 1. The optimizer's ``lr`` is the highest rate, 0.01 in the paper.

    As printed, in epoch e: 3e-4 e/10 through epoch 10, then at once 0.01 through 60, 0.005 through 90, 0.0025
    through 120, 0.00125 after.

    Args:
        optimizer: whose rate is set.
        count_steps: not used: the schedule goes by epochs.
        warmup: ``"printed"``: ``warmup_share`` e / ``warmup_epochs`` of the rate; ``"linear"``, as in the
            authors' code: from ``warmup_share`` in epoch 1 in equal steps to the full rate in the epoch after
            ``warmup_epochs``; ``"from_zero"``: e / ``warmup_epochs``.
        warmup_epochs: at least 0; 0 leaves the warm-up out.
        warmup_share: of the rate, in (0, 1]; 3e-4 of 0.01.
        milestones: the last epochs of each rate, rising, at least ``warmup_epochs``.
        factor: from one rate to the next, in (0, 1].

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    if warmup not in WARMUPS:
        raise unknown("warmup of the schedule hybrid_attention", warmup, WARMUPS)
    for value, argument in ((warmup_epochs, "warmup_epochs"), *((m, "milestones") for m in milestones)):
        check_integer(value, argument, "schedule")
    ends = list(milestones)
    if ends != sorted(set(ends)) or any(end < max(1, warmup_epochs) for end in ends):
        raise ValueError(f"schedule: milestones must rise from warmup_epochs ({warmup_epochs}), got {ends}")
    for share, argument in ((warmup_share, "warmup_share"), (factor, "factor")):
        if not 0 < share <= 1:
            raise ValueError(f"schedule: {argument} must be in (0, 1], got {share}")

    def rate(done: int) -> float:
        """The share of the highest rate after so many epochs."""
        epoch = done + 1
        if epoch > warmup_epochs:
            return float(factor ** sum(epoch > end for end in ends))
        if warmup == "linear":
            return warmup_share + (1 - warmup_share) * done / warmup_epochs
        return (warmup_share if warmup == "printed" else 1.0) * epoch / warmup_epochs

    return LambdaLR(optimizer, rate)


SCHEDULES = {"hybrid_attention": (hybrid_attention, "epoch")}
