"""From windows to what is trained and compared: the heads of MPFE (section III-D)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embedded(NamedTuple):
    """What a head makes of its window: (N, windows, width) before and after the last batch norm."""

    pre_bn: Tensor
    post_bn: Tensor


class WindowLinear(nn.Module):
    """A linear layer without bias for every window, in one matrix product; or one that all windows share.

    Args:
        windows: W; 1 with an input of several windows: they share it.
        inputs, outputs: lengths.
        deviation: of the normal random weights.

    Shape:
        (N, W, inputs) -> (N, W, outputs). The weight is (windows, outputs, inputs).
    """

    def __init__(self, windows: int, inputs: int, outputs: int, deviation: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(windows, outputs, inputs))
        nn.init.normal_(self.weight, std=deviation)

    def forward(self, values: Tensor) -> Tensor:
        """Each window by its own weight."""
        if len(self.weight) == 1:
            return F.linear(values, self.weight[0])
        return torch.bmm(values.transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1)

    def extra_repr(self) -> str:
        windows, outputs, inputs = self.weight.shape
        return f"windows={windows}, inputs={inputs}, outputs={outputs}"


class WindowNorm(nn.BatchNorm1d):
    """Batch norm of every window's numbers by themselves; or, shared, of all windows together.

    Args:
        windows: W, or 1 where windows share it, which then count as W times as many images.
        length: numbers of a window.
    """

    def __init__(self, windows: int, length: int) -> None:
        super().__init__(windows * length)
        self.length = length

    def forward(self, values: Tensor) -> Tensor:
        """(N, W, length) normalised."""
        shape = values.shape
        # Windows of their own side by side as channels; shared ones one below the other as images.
        rows = values.reshape(-1, self.num_features)
        normalised: Tensor = super().forward(rows)
        return normalised.view(shape)


class WindowHeads(nn.Module):
    """A head for each window: 1x1 convolution, BN, ReLU, linear, BN, classifier (section III-D).

    The widths and the last batch norm are those of the authors' code; the text does not give them.

    Args:
        windows: W.
        inputs: numbers of a window: maxima and means of all channels, or means alone.
        num_classes: K.
        shared: one convolution, linear layer and their norms for all windows in place of W; classifiers
            are W in either case.
        reduced: width behind the convolution.
        width: of the feature.
        negative_slope: of a leaky ReLU; 0 in the text, 0.1 in the authors' code.

    Shape:
        (N, W, inputs) -> :class:`Embedded`, (N, W, width) each; :attr:`classifier` makes (N, W, K) of the
        second.
    """

    def __init__(
        self, windows: int, inputs: int, num_classes: int, *, shared: bool, reduced: int, width: int,
        negative_slope: float,
    ) -> None:  # fmt: skip
        super().__init__()
        own = 1 if shared else windows
        self.negative_slope = negative_slope
        # Kaiming's deviation by the outputs, as for each head by itself.
        self.reduce = WindowLinear(own, inputs, reduced, (2 / reduced) ** 0.5)
        self.reduce_norm = WindowNorm(own, reduced)
        self.embed = WindowLinear(own, reduced, width, (2 / width) ** 0.5)
        self.embed_norm = WindowNorm(own, width)
        self.classifier = WindowLinear(windows, width, num_classes, 0.001)

    def forward(self, windows: Tensor) -> Embedded:
        """The features of every window."""
        reduced = F.leaky_relu(self.reduce_norm(self.reduce(windows)), self.negative_slope)
        embedded = self.embed(reduced)
        return Embedded(embedded, self.embed_norm(embedded))
