"""Triplet loss with mining inside the batch (HSGNet, Eq. 15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MINING = ("batch_hard", "batch_all")
FORMS = ("hinge", "printed")


class TripletLoss(nn.Module):
    r"""Distances of the same identity pulled below those of other identities.

    With Euclidean (not squared) distances of anchor and positive :math:`d_{ap}` and of anchor and negative
    :math:`d_{an}`, the mean over triplets of :math:`\max(d_{ap} - d_{an} + \delta, 0)`. That is Eq. 15 with
    its sign put right: as printed, triplets in the wrong order have no gradient.

    Args:
        margin: :math:`\delta`, at least 0 (1.2 in the paper), or ``"soft"`` for
            :math:`\log(1 + e^{d_{ap} - d_{an}})` in place of the hinge.
        mining: ``"batch_hard"``: for every image as anchor its farthest positive and its nearest negative;
            ``"batch_all"``: every triplet in the batch (memory N^3).
        form: ``"hinge"``, or, for study only, ``"printed"`` for Eq. 15 as it stands,
            :math:`-\max(d_{an} - d_{ap} - \delta, 0)`.

    Shape:
        features (N, D) floating, identities (N,) integers, on one device; a scalar, float32 or float64.
        Half types are taken as float32. A batch without any triplet (one identity, or one image of each)
        gives 0.

    Where two features are equal their distance has gradient 0, so that no NaN comes of copies.

    Raises:
        TypeError, ValueError: an option or an input is not as described.

    Example:
        >>> loss = TripletLoss(margin=1.2)
        >>> loss(torch.rand(8, 2048), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    """

    def __init__(self, margin: float | str = 1.2, *, mining: str = "batch_hard", form: str = "hinge") -> None:
        super().__init__()
        if isinstance(margin, str):
            if margin != "soft":
                raise ValueError(f'TripletLoss: margin must be a number or "soft", got {margin!r}')
        elif isinstance(margin, bool) or not isinstance(margin, (int, float)):
            raise TypeError(f'TripletLoss: margin must be a number or "soft", got {type(margin).__name__}')
        elif not 0 <= margin < float("inf"):
            raise ValueError(f"TripletLoss: margin must be finite and at least 0, got {margin}")
        if mining not in MINING:
            raise ValueError(f'TripletLoss: mining must be "batch_hard" or "batch_all", got {mining!r}')
        if form not in FORMS:
            raise ValueError(f'TripletLoss: form must be "hinge" or "printed", got {form!r}')
        if form == "printed" and margin == "soft":
            raise ValueError('TripletLoss: form must be "hinge" with margin "soft", got "printed"')
        self.margin, self.mining, self.form = margin, mining, form

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        _check(features, identities)
        features = features if features.dtype == torch.float64 else features.float()
        # Differences, not x^2 + y^2 - 2xy: no cancellation for near features, and gradient 0 at distance 0.
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        same = identities[:, None] == identities[None, :]
        positive = same & ~torch.eye(len(identities), dtype=torch.bool, device=same.device)
        if self.mining == "batch_hard":
            values, valid = self._batch_hard(distances, positive, ~same)
        else:
            values, valid = self._batch_all(distances, positive, ~same)
        return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)

    def _batch_hard(self, distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        valid = positive.any(dim=1) & negative.any(dim=1)
        if len(distances) == 0:
            return distances.sum(dim=1), valid
        farthest = distances.masked_fill(~positive, -1).amax(dim=1)
        nearest = distances.masked_fill(~negative, float("inf")).amin(dim=1)
        # An anchor without a negative has an infinite distance here: none of that may reach the gradient.
        farthest, nearest = farthest.where(valid, 0), nearest.where(valid, 0)
        return self._values(farthest, nearest), valid

    def _batch_all(self, distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        valid = positive[:, :, None] & negative[:, None, :]
        return self._values(distances[:, :, None], distances[:, None, :]), valid

    def _values(self, positive: Tensor, negative: Tensor) -> Tensor:
        if isinstance(self.margin, str):
            return F.softplus(positive - negative)
        if self.form == "printed":
            return -F.relu(negative - positive - self.margin)
        return F.relu(positive - negative + self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}, mining={self.mining!r}, form={self.form!r}"


def _check(features: Tensor, identities: Tensor) -> None:
    for value, argument in ((features, "features"), (identities, "identities")):
        if not isinstance(value, Tensor):
            raise TypeError(f"TripletLoss: {argument} must be a torch.Tensor, got {type(value).__name__}")
    if not features.is_floating_point():
        dtype = str(features.dtype).removeprefix("torch.")
        raise TypeError(f"TripletLoss: features must be floating, got {dtype}")
    if features.dim() != 2:
        raise ValueError(f"TripletLoss: features must have shape (N, D), got {tuple(features.shape)}")
    if identities.shape != features.shape[:1]:
        raise ValueError(
            f"TripletLoss: identities must have shape ({features.shape[0]},), got {tuple(identities.shape)}"
        )
