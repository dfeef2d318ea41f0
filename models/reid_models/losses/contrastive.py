"""Contrastive loss of pairs (CSN, Eqs. 4 and 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._numbers import check_number


class ContrastiveLoss(nn.Module):
    r"""Pairs of one identity pulled together, others pushed apart up to a margin.

    .. math:: \frac{1}{2m} \sum_{i=1}^{m} y_i d_i^2 + (1 - y_i) \max(0, \alpha - d_i)^2

    with :math:`d_i` the Euclidean distance of a pair's two representations.

    Args:
        alpha: the margin, above 0; 1 in the paper.

    Shape:
        pairs: distances (B,), or representations (B, 2, D) whose distances are taken; floating. same: (B,)
        integers or booleans, 1 where the pair shows one identity (a term's target ``pair``). A scalar,
        float32 or float64; half types are taken as float32. No pairs give 0.

    Where two representations are equal their distance has gradient 0.

    Raises:
        TypeError, ValueError: an option or an input is not as described.

    Example:
        >>> ContrastiveLoss(1.0)(torch.tensor([0.5, 0.5]), torch.tensor([1, 0]))
        tensor(0.1250)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        check_number(alpha, "alpha", "ContrastiveLoss")
        if not 0 < alpha < float("inf"):
            raise ValueError(f"ContrastiveLoss: alpha must be finite and above 0, got {alpha}")
        self.alpha = alpha

    def forward(self, pairs: Tensor, same: Tensor) -> Tensor:
        """The loss of a batch's pairs, a scalar."""
        _check(pairs, same)
        pairs = pairs if pairs.dtype == torch.float64 else pairs.float()
        distances = pairs if pairs.dim() == 1 else torch.linalg.vector_norm(pairs[:, 0] - pairs[:, 1], dim=1)
        apart = F.relu(self.alpha - distances)
        values = torch.where(same.bool(), distances, apart).square()
        return values.sum() / (2 * max(1, len(values)))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def _check(pairs: Tensor, same: Tensor) -> None:
    for value, argument in ((pairs, "pairs"), (same, "same")):
        if not isinstance(value, Tensor):
            raise TypeError(f"ContrastiveLoss: {argument} must be a torch.Tensor, got {type(value).__name__}")
    if not pairs.is_floating_point():
        dtype = str(pairs.dtype).removeprefix("torch.")
        raise TypeError(f"ContrastiveLoss: pairs must be floating, got {dtype}")
    if pairs.dim() != 1 and (pairs.dim() != 3 or pairs.shape[1] != 2):
        raise ValueError(
            f"ContrastiveLoss: pairs must have shape (B,) or (B, 2, D), got {tuple(pairs.shape)}"
        )
    if same.shape != pairs.shape[:1]:
        raise ValueError(
            f"ContrastiveLoss: same must have shape ({pairs.shape[0]},), got {tuple(same.shape)}"
        )
