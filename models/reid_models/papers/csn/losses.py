"""What CSN's transformers are held to (section 4.1): loss terms with the target ``none``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn


class TransformPriors(nn.Module):
    r"""Crops that are upright, not mirrored and inside the image.

    The paper names three priors, without formula or weight: positive scales, staying inside the image, and L1
    on the rotation. Here, for a transform of Eq. 1 and :math:`i \in \{w, h\}`,

    .. math::
        a \sum_i \max(0, \beta - s_i)^2 + b \sum_{i,\pm} \max(0, |s_i \pm t_i| - 1)^2 + c \sum_i |r_i|

    and the mean over transforms.

    Args:
        positive: a, at least 0; 0 leaves a prior out.
        inside: b.
        upright: c.
        least: :math:`\beta`, the scale below which a crop counts as too small.

    Shape:
        transforms (..., 2, 3) floating; a scalar, float32 or float64. None give 0.

    Raises:
        TypeError, ValueError: a weight is below 0, or the input is not as described.

    Example:
        >>> TransformPriors()(torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]))
        tensor(0.)
    """

    def __init__(
        self, positive: float = 1.0, inside: float = 1.0, upright: float = 1.0, *, least: float = 0.1
    ) -> None:
        super().__init__()
        for argument, value in (("positive", positive), ("inside", inside), ("upright", upright)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"TransformPriors: {argument} must be finite and at least 0, got {value}")
        self.positive, self.inside, self.upright, self.least = positive, inside, upright, least

    def forward(self, transforms: Tensor) -> Tensor:
        """The priors' weighted sum, the mean over transforms."""
        if not isinstance(transforms, Tensor) or not transforms.is_floating_point():
            raise TypeError("TransformPriors: transforms must be a floating tensor")
        if transforms.dim() < 2 or tuple(transforms.shape[-2:]) != (2, 3):
            raise ValueError(
                f"TransformPriors: transforms must have shape (..., 2, 3), got {tuple(transforms.shape)}"
            )
        rows = transforms if transforms.dtype.itemsize > 2 else transforms.float()
        (s_w, r_w, t_w), (r_h, s_h, t_h) = (row.unbind(-1) for row in rows.flatten(0, -3).unbind(-2))
        total = s_w.new_zeros(s_w.shape)
        for scale, shift in ((s_w, t_w), (s_h, t_h)):
            total = total + self.positive * F.relu(self.least - scale).square()
            for edge in (scale + shift, scale - shift):
                total = total + self.inside * F.relu(edge.abs() - 1).square()
        total = total + self.upright * (r_w.abs() + r_h.abs())
        return total.sum() / max(1, total.numel())

    def extra_repr(self) -> str:
        return f"positive={self.positive}, inside={self.inside}, upright={self.upright}, least={self.least}"


LOSSES: Mapping[str, type[nn.Module]] = MappingProxyType({"transform_priors": TransformPriors})
