"""What CSN's networks are made of: convolutions with batch norm, pooling in two roundings, the extractor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CHANNELS = 96  # of the maps that are compared
VARIANTS = ("text", "table5")


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A "same" convolution, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def pooling(rounding: str) -> nn.MaxPool2d:
    """2x2 max-pooling; ``rounding`` is ``"ceil"`` or ``"floor"``."""
    return nn.MaxPool2d(2, ceil_mode=rounding == "ceil")


def halve(size: tuple[int, int], rounding: str, times: int = 1) -> tuple[int, int]:
    """Height and width after 2x2 pooling."""
    for _ in range(times):
        height, width = size
        size = (-(-height // 2), -(-width // 2)) if rounding == "ceil" else (height // 2, width // 2)
    return size


class Extractor(nn.Module):
    """conv1 to conv3, and what L4 needs more: maps of 96 channels at a quarter, an eighth, a sixteenth.

    Args:
        levels: which maps are wanted, of 2, 3, 4. Nothing behind the last is made.
        variant: convolutions of L4: ``"text"``, one more, or ``"table5"``, three more (one before the third
            pooling, two behind it), which is what fits Table 5.
        rounding: of pooling, ``"ceil"`` or ``"floor"``.

    Shape:
        images (N, 3, H, W) -> level -> (N, 96, h, w), each behind its pooling (section 4.2).
    """

    def __init__(self, levels: Sequence[int], *, variant: str = "text", rounding: str = "ceil") -> None:
        super().__init__()
        self.levels, last = tuple(levels), max(levels)
        stages = [[convolution(3, 32, 5)], [convolution(32, CHANNELS, 3)]]
        wide = last == 4 and variant == "table5"
        if last >= 3:
            stages.append([convolution(CHANNELS, CHANNELS, 3) for _ in range(2 if wide else 1)])
        if last >= 4:
            stages.append([convolution(CHANNELS, CHANNELS, 3) for _ in range(2 if wide else 1)])
        self.stages = nn.ModuleList(nn.Sequential(*stage, pooling(rounding)) for stage in stages)
        self.convolutions = sum(map(len, stages))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """The maps by level."""
        maps: dict[int, Tensor] = {}
        current = images
        for level, stage in enumerate(self.stages, start=1):
            current = stage(current)
            if level in self.levels:
                maps[level] = current
        return maps


class RankingNet(nn.Module):
    """The attended parts of an image as one vector of length 1 (section 3.2), shared by images and levels.

    Each part: 3x3 convolution and pooling; the parts one below the other; 3x3 convolution; global average;
    the levels beside one another; a linear embedding. These convolutions have no batch norm: so the whole
    network has the 0.4785 M parameters that fit Table 5.

    Args:
        levels: how many.
        length: of the embedding.
        rounding: of pooling.

    Shape:
        a tensor (N, P, 96, f, f) for each level -> (N, length).
    """

    def __init__(self, levels: int, length: int = 256, *, rounding: str = "ceil") -> None:
        super().__init__()
        self.part = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(inplace=True), pooling(rounding)
        )
        self.column = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(inplace=True))
        self.embedding = nn.Linear(CHANNELS * levels, length)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """The vectors."""
        columns = []
        for level in parts:
            images, count = level.shape[:2]
            reduced = self.part(level.flatten(0, 1)).unflatten(0, (images, count))
            stacked = reduced.transpose(1, 2).flatten(2, 3)  # (N, 96, P * h, w)
            columns.append(self.column(stacked).mean((2, 3)))
        found: Tensor = nn.functional.normalize(self.embedding(torch.cat(columns, dim=1)), dim=1)
        return found


class DecisionHead(nn.Module):
    """Similarity maps to the two logits, no match and match: conv4, conv5, conv6 (Table 1).

    Args:
        channels: of the similarity maps of all levels.
        rounding: of pooling.

    Shape:
        (B, channels, h, w) -> (B, 2).
    """

    def __init__(self, channels: int, *, rounding: str = "ceil") -> None:
        super().__init__()
        self.conv4, self.conv5, self.conv6 = (
            convolution(channels, 32, 1),
            convolution(32, 32, 3),
            convolution(32, 500, 1),
        )
        self.channels, self.pool = channels, pooling(rounding)
        self.classifier = nn.Linear(500, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """The logits."""
        reduced = self.conv6(self.pool(self.conv5(self.conv4(maps))))
        logits: Tensor = self.classifier(reduced.mean((2, 3)))
        return logits
