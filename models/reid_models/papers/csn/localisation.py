"""Where an image's parts are: stripes, spatial transformers in them, samples of one size (section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import CHANNELS, convolution, pooling

MOST = 0.95  # scale of the first crop where a part is not larger than its sample: tanh ends at 1


def divide(height: int, *, inclusive: bool = False) -> tuple[slice, slice, slice]:
    """Rows of the upper, middle and lower part of a map, which overlap (section 4.2).

    The paper counts from 1: rows 1-20, 10-30, 20-40 of 40. Taken as half-open from 0 all parts have half the
    rows; ``inclusive`` takes both ends with them, 20, 21 and 21 rows.

    Example:
        >>> divide(40)
        (slice(0, 20, None), slice(10, 30, None), slice(20, 40, None))
    """
    half, quarter = height // 2, height // 4
    if not inclusive:
        return slice(0, half), slice(quarter, quarter + half), slice(height - half, height)
    return slice(0, half), slice(quarter - 1, quarter + half), slice(height - half - 1, height)


class Localiser(nn.Module):
    """The spatial transformer of one level: one network for all of its parts, of both images.

    Args:
        part: height and width of a part.
        size: f of the samples f x f, which the first crop fits exactly, in the middle.
        count: transforms for a map that is looked at whole; 1 for a part.
        rounding: of pooling.

    Shape:
        parts (N, 96, h, w) -> transforms (N, count, 2, 3) in [-1, 1], Eq. 1.
    """

    def __init__(self, part: tuple[int, int], size: int, *, count: int = 1, rounding: str = "ceil") -> None:
        super().__init__()
        height, width = part
        # A map of one row or column can't be halved by flooring.
        self.network = nn.Sequential(
            convolution(CHANNELS, 32, 3), pooling(rounding if min(part) > 1 else "ceil"),
            convolution(32, 32, 3), pooling(rounding if min(part) > 3 else "ceil"),
            convolution(32, 128, 1),
        )  # fmt: skip
        self.transform = nn.Linear(128, 6 * count)
        self.count, self.size = count, size
        with torch.no_grad():
            self.transform.weight.zero_()
            self.transform.bias.copy_(_first_crops(height, width, size, count).atanh().flatten())

    def forward(self, parts: Tensor) -> Tensor:
        """The transforms."""
        found: Tensor = torch.tanh(self.transform(self.network(parts).mean((2, 3))))
        return found.unflatten(1, (self.count, 2, 3))


def sample(maps: Tensor, transforms: Tensor, size: int) -> Tensor:
    """Bilinear samples (N, count, C, size, size) of maps (N, C, h, w) by transforms (N, count, 2, 3).

    Coordinates run from -1 to 1 over the pixels' outer edges; what is outside a map is zero.
    """
    count, (rows, channels) = transforms.shape[1], maps.shape[:2]
    # Transform by transform: a map is then never repeated for its transforms.
    shape = [rows, channels, size, size]
    return torch.stack(
        [
            F.grid_sample(
                maps, F.affine_grid(transforms[:, i].to(maps.dtype), shape, align_corners=False),
                mode="bilinear", align_corners=False,
            )
            for i in range(count)
        ],
        dim=1,
    )  # fmt: skip


def central_crop(maps: Tensor, size: int) -> Tensor:
    """The middle size x size of maps (N, C, h, w), zeros where they are smaller."""
    down, across = (max(0, size - length) for length in maps.shape[2:])
    padded = F.pad(maps, (across // 2, across - across // 2, down // 2, down - down // 2))
    top, left = ((length - size) // 2 for length in padded.shape[2:])
    return padded[:, :, top : top + size, left : left + size]


def _first_crops(height: int, width: int, size: int, count: int) -> Tensor:
    """Transforms (count, 2, 3): the middle of a part; several of a whole map stand one above the other."""
    across, down = min(MOST, size / width), min(MOST, size / height)
    crops = torch.tensor([[across, 0.0, 0.0], [0.0, down, 0.0]]).repeat(count, 1, 1)
    if count > 1:
        crops[:, 1, 2] = torch.linspace(-0.5, 0.5, count)
    return crops
