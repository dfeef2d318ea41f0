"""Reconstruction of the input in the small (HENet, Eq. 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTIONS = ("mean", "sum")


class ReconstructionLoss(nn.Module):
    r"""Squared differences of a small reconstruction and the input brought to its size.

    .. math:: L_{rec} = \sum_i (\hat y_i - y_i)^2

    Printed as a sum, called a mean square error in words: the mean is the default.

    Args:
        reduction: ``"mean"``, or ``"sum"`` over all values of the batch.

    Shape:
        reconstruction (N, C, h, w), images (N, C, H, W) (a term's target ``image``: as the network saw them,
        augmented and normalised), floating; they are resized bilinearly with antialiasing. A scalar, float32
        or float64; half types are taken as float32.

    Raises:
        TypeError, ValueError: an option or an input is not as described.

    Example:
        >>> ReconstructionLoss()(torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 384, 128))
        tensor(1.)
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'ReconstructionLoss: reduction must be "mean" or "sum", got {reduction!r}')
        self.reduction = reduction

    def forward(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        for value, argument in ((reconstruction, "reconstruction"), (images, "images")):
            if not isinstance(value, Tensor):
                got = type(value).__name__
                raise TypeError(f"ReconstructionLoss: {argument} must be a torch.Tensor, got {got}")
            if not value.is_floating_point():
                dtype = str(value.dtype).removeprefix("torch.")
                raise TypeError(f"ReconstructionLoss: {argument} must be floating, got {dtype}")
            if value.dim() != 4:
                raise ValueError(
                    f"ReconstructionLoss: {argument} must have four dimensions, got {tuple(value.shape)}"
                )
        if reconstruction.shape[:2] != images.shape[:2]:
            raise ValueError(
                f"ReconstructionLoss: reconstruction must have as many images and channels as images, "
                f"{tuple(images.shape[:2])}, got {tuple(reconstruction.shape[:2])}"
            )
        given = reconstruction if reconstruction.dtype == torch.float64 else reconstruction.float()
        size = list(given.shape[2:])
        wanted = F.interpolate(images.to(given.dtype), size, mode="bilinear", antialias=True)
        return F.mse_loss(given, wanted, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
