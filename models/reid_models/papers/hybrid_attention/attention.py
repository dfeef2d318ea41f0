"""Where and what to look at: spatial and channel attention (sections III-A and III-B, Eqs. 1 and 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORMS = ("cbam", "printed")


class SpatialAttention(nn.Module):
    r"""A factor for every pixel (SAM, Eq. 1): :math:`\sigma(f^{k \times k}([\mathrm{mean}_c F; \max_c F]))`.

    Args:
        kernel: k, odd; 7 in the paper. The convolution has no bias.

    Shape:
        (N, C, H, W) -> (N, 1, H, W), in (0, 1).
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """The factor of every pixel."""
        if torch.is_grad_enabled() and features.requires_grad:
            # Slower forward, but its gradient is one scatter; that of amax takes several passes over the map.
            maximum = features.max(1, keepdim=True).values
        else:
            maximum = features.amax(1, keepdim=True)
        described = torch.cat([features.mean(1, keepdim=True), maximum], 1)
        mask: Tensor = self.convolution(described).sigmoid()
        return mask


class ChannelAttention(nn.Module):
    r"""A factor for every channel (CAM, Eq. 2), from the map's maximum and mean.

    A multilayer perceptron f of two layers, C to C/ratio to C, with ReLU and without biases, sees both.

    Args:
        channels: C.
        ratio: 16 in the authors' code; the hidden layer has C // ratio units, at least 1.
        form: ``"cbam"``: :math:`\sigma(f(\mathrm{mean} F) + f(\max F))`, as the text and the cited CBAM have
            it; ``"printed"``: :math:`\sigma(f(\mathrm{mean} F + \max F))`, as Eq. 2 stands.

    Shape:
        maximum (N, C), mean (N, C) -> (N, C), in (0, 1). It sees no map: both may come from a pooling that
        serves others as well.
    """

    def __init__(self, channels: int, ratio: int = 16, form: str = "cbam") -> None:
        super().__init__()
        self.form = form
        hidden = max(1, channels // ratio)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, maximum: Tensor, mean: Tensor) -> Tensor:
        """The factor of every channel."""
        if self.form == "printed":
            return self._perceptron(mean + maximum).sigmoid()
        return (self._perceptron(mean) + self._perceptron(maximum)).sigmoid()

    def _perceptron(self, described: Tensor) -> Tensor:
        result: Tensor = self.expand(self.reduce(described).relu())
        return result

    def extra_repr(self) -> str:
        return f"form={self.form!r}"
