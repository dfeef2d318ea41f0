"""Online instance matching: a loss that remembers every identity (HENet, Eqs. 7 and 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._numbers import check_integer, check_number

UNLABELLED = -1


class OIMLoss(nn.Module):
    r"""Features against a table of all identities and a queue of unlabelled images.

    With features :math:`x`, table rows :math:`v` and queue entries :math:`u`, all of length 1, the mean over
    the labelled images of

    .. math::
        -\log p_i, \quad
        p_i = \frac{\exp(v_i^T x / \tau)}{\sum_j \exp(v_j^T x / \tau) + \sum_k \exp(u_k^T x / \tau)}

    (the paper lost the minus sign). In training, after the loss and in the batch's order, a labelled image
    moves its row, :math:`v \leftarrow \gamma v + (1 - \gamma) x`, which then gets length 1, and an
    unlabelled one takes the oldest place in the queue. Table and queue start at zero; an entry that is still
    zero counts as one at right angles.

    Table and queue are buffers: they are in checkpoints. With several processes every one must see the joint
    batch, as :class:`WeightedLoss` does in training; then all have the same.

    Args:
        num_classes: identities, rows of the table.
        feature_length: D.
        temperature: :math:`\tau`, above 0.
        momentum: :math:`\gamma`, in [0, 1).
        queue: places for unlabelled images; 0: there are none.

    Shape:
        features (N, D) floating, of any length; identities (N,) int64 in [0, num_classes), -1 for unlabelled
        images. A scalar, float32 or float64; half types are taken as float32. No labelled image gives 0.

    Raises:
        TypeError, ValueError: an option or an input is not as described, or the queue is shorter than a
            batch's unlabelled images. Nothing has changed then.

    Example:
        >>> loss = OIMLoss(751, 256, queue=0)
        >>> loss(torch.rand(16, 256), torch.arange(16) // 4).item()  # log 751: the table is still zero
        6.621...
    """

    table: Tensor
    waiting: Tensor
    oldest: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_length: int,
        *,
        temperature: float = 0.1,
        momentum: float = 0.5,
        queue: int = 0,
    ) -> None:
        super().__init__()
        for count, argument, least in (
            (num_classes, "num_classes", 1),
            (feature_length, "feature_length", 1),
            (queue, "queue", 0),
        ):
            check_integer(count, argument, "OIMLoss", least)
        for value, argument in ((temperature, "temperature"), (momentum, "momentum")):
            check_number(value, argument, "OIMLoss")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"OIMLoss: temperature must be finite and above 0, got {temperature}")
        if not 0 <= momentum < 1:
            raise ValueError(f"OIMLoss: momentum must be in [0, 1), got {momentum}")
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("table", torch.zeros(num_classes, feature_length))
        self.register_buffer("waiting", torch.zeros(queue, feature_length))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        """The loss of a batch, a scalar; in training it updates table and queue."""
        owners = self._check(features, identities)
        features = features if features.dtype == torch.float64 else features.float()
        unit = F.normalize(features, dim=1)
        known = torch.cat([self.table, self.waiting]).to(unit.dtype)  # a copy: the update must not reach it
        labelled = identities != UNLABELLED
        targets = identities.clamp(min=0)
        values = F.cross_entropy(unit @ known.T / self.temperature, targets, reduction="none")
        if self.training:
            self._update(unit.detach(), owners)
        return torch.where(labelled, values, 0).sum() / labelled.sum().clamp(min=1)

    @torch.no_grad()
    def _update(self, unit: Tensor, owners: list[int]) -> None:
        """In the batch's order. Different identities don't meet: one image of each is taken at a time."""
        rounds: list[list[int]] = []
        seen: dict[int, int] = {}
        for place, owner in enumerate(owners):
            if owner == UNLABELLED:
                continue
            turn = seen.get(owner, 0)
            seen[owner] = turn + 1
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(place)
        for places in rounds:
            rows = torch.tensor([owners[place] for place in places], device=unit.device)
            images = torch.tensor(places, device=unit.device)
            moved = self.momentum * self.table[rows].to(unit.dtype) + (1 - self.momentum) * unit[images]
            self.table[rows] = F.normalize(moved, dim=1).to(self.table.dtype)
        unlabelled = [place for place, owner in enumerate(owners) if owner == UNLABELLED]
        if unlabelled:
            images = torch.tensor(unlabelled, device=unit.device)
            length = len(self.waiting)
            taken = (self.oldest + torch.arange(len(unlabelled), device=unit.device)) % length
            self.waiting[taken] = unit[images].to(self.waiting.dtype)
            self.oldest.add_(len(unlabelled)).remainder_(length)

    def _check(self, features: Tensor, identities: Tensor) -> list[int]:
        """The identities on the host."""
        for value, argument in ((features, "features"), (identities, "identities")):
            if not isinstance(value, Tensor):
                raise TypeError(f"OIMLoss: {argument} must be a torch.Tensor, got {type(value).__name__}")
        if not features.is_floating_point():
            dtype = str(features.dtype).removeprefix("torch.")
            raise TypeError(f"OIMLoss: features must be floating, got {dtype}")
        classes, length = self.table.shape
        if features.dim() != 2 or features.shape[1] != length:
            raise ValueError(f"OIMLoss: features must have shape (N, {length}), got {tuple(features.shape)}")
        if identities.dtype != torch.int64:
            dtype = str(identities.dtype).removeprefix("torch.")
            raise TypeError(f"OIMLoss: identities must be int64, got {dtype}")
        if identities.shape != features.shape[:1]:
            raise ValueError(
                f"OIMLoss: identities must have shape ({len(features)},), got {tuple(identities.shape)}"
            )
        owners: list[int] = identities.tolist()
        for owner in owners:
            if not UNLABELLED <= owner < classes:
                raise ValueError(
                    f"OIMLoss: identities must be in [0, {classes}), or -1 for unlabelled images, got {owner}"
                )
        unlabelled = owners.count(UNLABELLED)
        if unlabelled > len(self.waiting):
            raise ValueError(
                f"OIMLoss: queue must hold a batch's unlabelled images ({unlabelled}), got "
                f"{len(self.waiting)}"
            )
        return owners

    def extra_repr(self) -> str:
        classes, length = self.table.shape
        return (
            f"{classes}, {length}, temperature={self.temperature}, momentum={self.momentum}, "
            f"queue={len(self.waiting)}"
        )
