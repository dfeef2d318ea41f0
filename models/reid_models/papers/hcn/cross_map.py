"""HCN's cross maps: a top map brought to four times its size, plus a bottom map's 1x1 convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MERGES = ("deconvolution", "interpolation", "learned")
IMPLEMENTATIONS = ("fused", "literal")
SCALE, KERNEL, PADDING = 4, 8, 2
SHIFTS = (-1, 0, 1)  # of a 3x3 smoothing's rows, and columns


class CrossMap(nn.Module):
    r"""The average over :math:`C = up_4(top) + W\,bottom` (HCN, section 3.2), with the map or without it.

    ``"literal"`` makes the map C and averages it. Nothing between the two maps and the average is non-linear:
    the average of C is a weighted sum over ``top``, whose weights are column sums of the up-sampling, plus
    ``W`` times the average of ``bottom``. ``"fused"`` takes these sums, so that C is never made; results and
    gradients agree to rounding. With smoothing, a 3x3 convolution behind the merge, there are nine such sums,
    one for each of its taps, that differ in the map's border.

    Args:
        top: channels of the upper map, and of C.
        bottom: channels of the lower map.
        merge: how the top map is brought to the bottom map's size. ``"deconvolution"``: bilinear weights
            that stay (kernel 8, stride 4, padding 2), as in the authors' network; the border is weaker, for
            outside are zeros. ``"interpolation"``: bilinear, the border repeated. ``"learned"``: a
            deconvolution for each channel that begins as the first and learns.
        smoothing: a 3x3 convolution of C, without bias, zeros around it.
        zero_lateral: W begins at 0, as in the authors' network; else by Kaiming's rule.
        impl: ``"fused"`` or ``"literal"``.

    Shape:
        top (N, C, h, w), bottom (N, B, 4h, 4w) -> (N, C).
    """

    def __init__(
        self,
        top: int,
        bottom: int,
        *,
        merge: str = "deconvolution",
        smoothing: bool = False,
        zero_lateral: bool = True,
        impl: str = "fused",
    ) -> None:
        super().__init__()
        self.merge, self.impl = merge, impl
        self.lateral = nn.Conv2d(bottom, top, 1, bias=False)
        if zero_lateral:
            nn.init.zeros_(self.lateral.weight)
        else:
            nn.init.kaiming_normal_(self.lateral.weight)
        kernel = bilinear_kernel()
        if merge == "learned":
            self.kernel = nn.Parameter(torch.outer(kernel, kernel).expand(top, 1, -1, -1).clone())
        else:
            self.register_buffer("kernel", torch.outer(kernel, kernel)[None, None], persistent=False)
        self.smoothing = nn.Conv2d(top, top, 3, padding=1, bias=False) if smoothing else None
        if self.smoothing is not None:
            nn.init.dirac_(self.smoothing.weight)  # begins as C itself

    def forward(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The averages (N, C).

        Raises:
            ValueError: the bottom map is not four times as high and wide as the top one.
        """
        expected = tuple(SCALE * length for length in top.shape[2:])
        if tuple(bottom.shape[2:]) != expected:
            raise ValueError(
                f"hcn: a map {tuple(top.shape[2:])} is merged with one of {expected}, got "
                f"{tuple(bottom.shape[2:])}: images must have a height and width that are multiples of 32"
            )
        if self.impl == "literal":
            return self.map(top, bottom).mean((2, 3))
        return self._sums(top, bottom)

    def map(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The cross map C itself, (N, C, 4h, 4w)."""
        merged = self._enlarged(top) + self.lateral(bottom)
        return merged if self.smoothing is None else self.smoothing(merged)

    def _enlarged(self, top: Tensor) -> Tensor:
        if self.merge == "interpolation":
            return F.interpolate(top, scale_factor=SCALE, mode="bilinear", align_corners=False)
        channels = top.shape[1]
        kernel = self.kernel.to(top.dtype).expand(channels, -1, -1, -1)
        return F.conv_transpose2d(top, kernel, stride=SCALE, padding=PADDING, groups=channels)

    def _sums(self, top: Tensor, bottom: Tensor) -> Tensor:
        lateral = self.lateral.weight.flatten(1)
        if self.smoothing is None:
            windows = top.new_full((1, 1, *bottom.shape[2:]), 1.0 / bottom[0, 0].numel())
            return self._weighted(top, windows)[0] + F.linear(average(bottom), lateral)
        windows = _tap_windows(bottom)
        means = torch.einsum("nbhw,thw->tnb", bottom, windows[:, 0])
        taps = self._weighted(top, windows) + F.linear(
            means, lateral
        )  # (9, N, C): the mean that each tap sees
        return torch.einsum("tnc,dct->nd", taps, self.smoothing.weight.flatten(2))

    def _weighted(self, top: Tensor, windows: Tensor) -> Tensor:
        """Sums of the enlarged map over weighted windows (T, 1, 4h, 4w): (T, N, C)."""
        if self.merge == "learned":
            weights = F.conv2d(windows, self.kernel.to(windows.dtype), stride=SCALE, padding=PADDING)
            return torch.einsum("nchw,tchw->tnc", top, weights)
        if self.merge == "deconvolution":
            weights = F.conv2d(windows, self.kernel.to(windows.dtype), stride=SCALE, padding=PADDING)[:, 0]
        else:
            rows, columns = (_interpolation(length).to(windows) for length in top.shape[2:])
            weights = rows.T @ windows[:, 0] @ columns
        return torch.einsum("nchw,thw->tnc", top, weights)


def average(maps: Tensor) -> Tensor:
    """Averages (N, C) of maps (N, C, H, W).

    As a sum, whose gradient is one value a channel seen H x W times; that of a mean is written out.
    """
    wide = torch.promote_types(maps.dtype, torch.float32)  # a sum of halves can overflow
    averages: Tensor = maps.sum((2, 3), dtype=wide) / (maps.shape[2] * maps.shape[3])
    return averages.to(maps.dtype)


def bilinear_kernel() -> Tensor:
    """Caffe's bilinear weights of a deconvolution, (8,): 1/8, 3/8, 5/8, 7/8 and back."""
    places = torch.arange(KERNEL, dtype=torch.float32)
    return 1 - (places - (KERNEL - 1) / 2).abs() / SCALE


def _interpolation(length: int) -> Tensor:
    """The bilinear enlargement of a row as a matrix (4 length, length)."""
    unit = torch.eye(length)[:, None, :]
    return F.interpolate(unit, scale_factor=SCALE, mode="linear", align_corners=False)[:, 0].T


def _tap_windows(bottom: Tensor) -> Tensor:
    """For each tap of a 3x3 convolution the pixels it meets on its way over the map, / H W: (9, 1, H, W)."""
    height, width = bottom.shape[2:]
    rows, columns = (_shifted(length).to(bottom) for length in (height, width))
    windows = rows[:, None, :, None] * columns[None, :, None, :] / (height * width)
    return windows.reshape(len(SHIFTS) ** 2, 1, height, width)


def _shifted(length: int) -> Tensor:
    """Which places of a row an output place shifted by -1, 0, 1 can be, (3, length)."""
    places = torch.arange(length)
    seen = [(places - shift >= 0) & (places - shift < length) for shift in SHIFTS]
    return torch.stack(seen).float()
