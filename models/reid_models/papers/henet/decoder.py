"""HENet's decoder: a small image from the recovery feature, in training only (section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

GROUPS = 4  # "4 convolution-deconvolution groups"


class Decoder(nn.Sequential):
    """Four groups of a 3x3 convolution and a deconvolution that doubles the size, from a 1x1 code.

    The size is the seed's times 16: 16x16 from 1x1, 48x16 from 3x1. A size that only 8 divides, such as
    24x8, has the seed of three doublings, and its first group keeps the size.

    Args:
        code_length: of the recovery feature.
        size: height and width of the image.
        width: channels of the first group; every group halves them.

    Shape:
        (N, code_length) to (N, 3, height, width), in the range of normalised images.

    Raises:
        TypeError, ValueError: the size does not follow from a seed.

    Example:
        >>> Decoder(512, (48, 16))(torch.rand(2, 512)).shape
        torch.Size([2, 3, 48, 16])
    """

    def __init__(self, code_length: int, size: Sequence[int], *, width: int = 256) -> None:
        seed, doublings = seed_of(size)
        seeding: list[nn.Module] = [nn.Unflatten(1, (code_length, 1, 1))]
        if seed != (1, 1):
            seeding += [nn.ConvTranspose2d(code_length, code_length, seed, groups=code_length)]
        channels = [code_length, *(width >> group for group in range(GROUPS))]
        groups = [
            _group(channels[group], channels[group + 1], group >= GROUPS - doublings, group == GROUPS - 1)
            for group in range(GROUPS)
        ]
        super().__init__(*seeding, *groups)

    def forward(self, code: Tensor) -> Tensor:
        """Images (N, 3, height, width) of codes (N, code_length)."""
        image: Tensor = super().forward(code)
        return image


def seed_of(size: Sequence[int]) -> tuple[tuple[int, int], int]:
    """The first map's size, and how many of the groups double it.

    Raises:
        TypeError, ValueError: the size does not follow from a seed.
    """
    if len(size) != 2:
        raise ValueError(f"henet: recovery must be (height, width), got {tuple(size)}")
    for length in size:
        if isinstance(length, bool) or not isinstance(length, int):
            raise TypeError(f"henet: recovery must be (height, width) in int, got {type(length).__name__}")
        if length < 8 or length % 8:
            raise ValueError(
                "henet: recovery must be a seed of whole pixels times 16 (or 8), such as (16, 16), (48, 16) "
                f"or (24, 8), got {tuple(size)}"
            )
    doublings = GROUPS if all(length % 16 == 0 for length in size) else GROUPS - 1
    return (size[0] >> doublings, size[1] >> doublings), doublings


def _group(inputs: int, outputs: int, doubles: bool, last: bool) -> nn.Sequential:
    """Convolution, then deconvolution: of stride 2, or of stride 1 where the size stays."""
    image = 3 if last else outputs
    deconvolution = (
        nn.ConvTranspose2d(outputs, image, 4, stride=2, padding=1, bias=last)
        if doubles
        else nn.ConvTranspose2d(outputs, image, 3, padding=1, bias=last)
    )
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), deconvolution]
    if not last:
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
