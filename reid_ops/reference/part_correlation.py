"""Reference of :func:`reid_ops.part_correlation`: the specification in code, pure PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["csn_similarity", "part_correlation"]


def part_correlation(signal: Tensor, parts: Tensor, *, pool: int = 1, pairs: Tensor | None = None) -> Tensor:
    """Part-as-filter depthwise cross-correlation, one tap at a time (CSN, Eq. 2).

    ``output[b, p*C + c, i, j] = sum_{u, v} signal[n, c, i+u-top, j+v-left] * parts[m, p, c, u, v]``
    for pair ``b = (n, m)``, with zero "same" padding: ``top = (kh-1)//2`` rows before and the rest
    after, likewise for columns. No kernel flip. ``pool`` is a ceil-mode max-pool of the result.

    Shapes and ranges are those of :func:`reid_ops.part_correlation`; this one works on any device and
    dtype, and autograd differentiates it. It is the formula alone and checks nothing.
    """
    if pairs is not None:
        signal, parts = signal[pairs[:, 0]], parts[pairs[:, 1]]
    batch, channels, height, width = signal.shape
    parts_per_image, (kernel_height, kernel_width) = parts.shape[1], parts.shape[-2:]
    top, left = (kernel_height - 1) // 2, (kernel_width - 1) // 2
    padded = F.pad(signal, (left, kernel_width - 1 - left, top, kernel_height - 1 - top))

    output = signal.new_zeros(batch, parts_per_image, channels, height, width)
    for u in range(kernel_height):
        for v in range(kernel_width):
            shifted = padded[:, None, :, u : u + height, v : v + width]
            output = output + shifted * parts[..., u, v, None, None]
    output = output.flatten(1, 2)
    if pool == 1 or batch == 0:
        return output[..., ::pool, ::pool]
    return F.max_pool2d(output, pool, ceil_mode=True)


def csn_similarity(x1: Tensor, x2: Tensor, parts1: Tensor, parts2: Tensor, *, pool: int = 1) -> Tensor:
    """Both directions of a Siamese pair: signal 1 with parts 2, then signal 2 with parts 1."""
    return torch.cat(
        [part_correlation(x1, parts2, pool=pool), part_correlation(x2, parts1, pool=pool)], dim=1
    )
