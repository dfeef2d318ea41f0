"""Reference of :func:`reid_ops.augment`: the single steps, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..polygon_erasing.rule import Rule
from .philox import scale_word
from .polygon_erasing import GEOMETRY, Words, erase

__all__ = ["Geometry", "augment", "draw_geometry", "normalize"]


class Geometry(NamedTuple):
    """What is drawn for one image: whether it is flipped, and the crop's corner in the padded image."""

    flip: bool
    top: int
    left: int


def draw_geometry(
    seed: int, image: int, height: int, width: int, size: Sequence[int], pad: int, flip: float
) -> Geometry:
    """Flip with probability ``flip``; a corner uniform where the crop fits the padded image."""
    words = Words(seed, image)(GEOMETRY, 0)
    down, across = height + 2 * pad - size[0], width + 2 * pad - size[1]
    flipped = bool(words[0] < math.ceil(flip * 2**32))
    return Geometry(flipped, int(scale_word(words[2], down + 1)), int(scale_word(words[1], across + 1)))


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes (N, C, H, W) as float32 ``(v / 255 - mean) / std``, rounded after every step like torchvision."""
    means, deviations = (
        torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None] for v in (mean, std)
    )
    return images.float().mul(1.0 / 255.0).sub(means).div(deviations)


def augment(
    images: Tensor,
    *,
    size: Sequence[int],
    seed: int,
    pad: int = 10,
    flip: float = 0.5,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    rules: Sequence[Rule] = (),
    dtype: torch.dtype = torch.float32,
    first_index: int = 0,
    sizes: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """As :func:`reid_ops.augment` for bytes ``(N, C, H, W)``; ``rules``: the erasings, in their order."""
    crops = []
    for n, image in enumerate(images):
        height, width = image.shape[1:] if sizes is None else sizes[n]
        geometry = draw_geometry(seed, first_index + n, height, width, size, pad, flip)
        image = image[:, :height, :width]
        image = F.pad(image.flip(-1) if geometry.flip else image, (pad, pad, pad, pad))
        crops.append(image[:, geometry.top : geometry.top + size[0], geometry.left : geometry.left + size[1]])
    bytes_ = torch.stack(crops) if crops else images.new_zeros(0, images.shape[1], *size)
    output = normalize(bytes_, mean, std)
    for rule in rules:
        # Erase the bytes, so that fills go through the same normalisation; constants have no byte.
        constant = rule.fill == "mean"
        values = [0.0] if constant else [0.0, 255.0]
        erased, mask, _ = erase(bytes_, rule, seed, first_index, values)
        fills = normalize(erased, mean, std)
        if constant:
            share = torch.tensor(rule.constants(images.shape[1], "augment"), device=images.device)
            means, deviations = (
                torch.tensor(v, dtype=torch.float32, device=images.device) for v in (mean, std)
            )
            fills = ((share.expand_as(means) - means) / deviations)[:, None, None]
        output = torch.where(mask[:, None], fills, output)
    return output.to(dtype)
