"""A training batch's augmentation in one read and one write: flip, pad, crop, normalise, erase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import _checks, _dispatch
from .polygon_erasing.rule import Rule, check_first_index, check_number, checked_seed
from .polygon_erasing.transforms import RandomErasing, RandomPolygonErasing

__all__ = ["augment"]

MAX_SIDE = 2**17  # csrc/polygon_erasing/rule.h: kMaxSide
MAX_CHANNELS = 16  # csrc/augmentation/kernels.h: kMaxChannels
OUTPUT_TYPES = (torch.float32, torch.float16, torch.bfloat16)

_OP = "augment"


def augment(
    images: Tensor,
    *,
    size: Sequence[int],
    pad: int = 10,
    flip: float = 0.5,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    erase: RandomErasing | Mapping[str, Any] | None = None,
    polygon: RandomPolygonErasing | Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    first_index: int = 0,
    sizes: Tensor | Sequence[Sequence[int]] | None = None,
    layout: str = "auto",
) -> Tensor:
    r"""Re-identification's usual training augmentation, fused: decoded bytes in, the network's input out.

    For each image, by its own random numbers: flipped left to right with probability ``flip``; padded on
    all sides with ``pad`` black pixels; cropped to ``size`` at a uniform place; made
    :math:`(v / 255 - \mathrm{mean}_c) / \mathrm{std}_c`; a rectangle erased, then a polygon.

    Equal, bit for bit, to torchvision's v2 ``horizontal_flip``, ``pad``, ``crop``, ``to_dtype(scale=True)``
    and ``normalize`` with the same random numbers, and to :func:`random_erase` and :func:`polygon_erase`
    of the cropped bytes under the same seed. The same values on CPU and CUDA.

    Args:
        images: uint8 ``(N, H, W, C)`` or ``(N, C, H, W)``, any strides, up to 16 channels.
        size: rows and columns of the output.
        pad: black pixels on each side before the crop, >= 0.
        flip: probability of flipping, in [0, 1].
        mean: of each channel, for images scaled to [0, 1]. Default: ImageNet's.
        std: likewise, > 0.
        erase: random erasing of rectangles: a :class:`RandomErasing`, or its arguments, such as
            ``{"p": 0.5}`` or ``{}``. None: off. Fills are drawn in [0, 255] and normalised like the
            image; ``fill="mean"`` without a mean fills with ``mean``, that is with 0.
        polygon: Random Polygon Erasing likewise: a :class:`RandomPolygonErasing`, or its arguments.
        dtype: of the output: float32, float16 or bfloat16 (rounded from float32).
        seed: as in :func:`polygon_erase`, also for CUDA graphs.
        generator: of a seed that is not given.
        first_index: number of the batch's first image.
        sizes: for images of different sizes in one padded batch: height and width of each image, int64
            ``(N, 2)`` or nested lists; an image is the top-left part of its row. On a CUDA device values
            are not checked but cut to the batch's size.
        layout: ``"NHWC"``, ``"NCHW"``, or ``"auto"``, which takes the one of the two dimensions that is
            1 or 3 as channels.

    Returns:
        ``(N, C, *size)``, contiguous.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or an image with its padding is smaller than ``size``.

    Example:
        >>> images = torch.randint(0, 256, (64, 384, 128, 3), dtype=torch.uint8)
        >>> batch = reid_ops.augment(images, size=(384, 128), erase={"p": 0.5}, polygon={"points": 20})
        >>> batch.shape
        torch.Size([64, 3, 384, 128])
    """
    images = _planes_first(images, layout)
    channels = images.shape[1]
    height, width = _check_size(size)
    _checks.check_integer(pad, "pad", 0, MAX_SIDE, _OP)
    check_number(flip, "flip", 0.0, 1.0, _OP)
    means, deviations = _check_statistics(mean, std, channels)
    if dtype not in OUTPUT_TYPES:
        raise TypeError(f"{_OP}: dtype must be float32, float16 or bfloat16, got {dtype!r}")
    rectangle = checked_erasing(erase, "erase", RandomErasing, means)
    polygons = checked_erasing(polygon, "polygon", RandomPolygonErasing, means)
    sizes = _check_sizes(sizes, images, height - 2 * pad, width - 2 * pad)
    check_first_index(first_index, _OP)
    value, tensor = checked_seed(seed, generator, images.device, _OP)
    return _dispatch.operators().augment(
        images, sizes, tensor, value, first_index, height, width, pad, math.ceil(flip * 2**32),
        means, deviations, *encoded(rectangle, channels), *encoded(polygons, channels), dtype,
    )  # fmt: skip


def checked_erasing(
    given: Any, argument: str, kind: type[RandomErasing] | type[RandomPolygonErasing], mean: list[float]
) -> Rule | None:
    """The rule of a module, or of a module's arguments; ``mean`` where it fills with an unnamed mean."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        given = kind(**given)
    if not isinstance(given, kind):
        raise TypeError(
            f"{_OP}: {argument} must be a {kind.__name__}, a mapping of its arguments or None, "
            f"got {type(given).__name__}"
        )
    if given.value_range is not None or given.seed is not None or given.generator is not None:
        raise ValueError(
            f"{_OP}: {argument} must have no value_range, seed or generator of its own, got {given}"
        )
    return given.rule if given.rule.mean is not None else replace(given.rule, mean=tuple(mean))


def encoded(rule: Rule | None, channels: int) -> tuple[list[int], list[float]]:
    """A rule's integers and constants for the operator; two empty lists when it is off."""
    if rule is None:
        return [], []
    return rule.encode(), list(rule.constants(channels, _OP)) if rule.fill == "mean" else [0.0, 255.0]


def _planes_first(images: Tensor, layout: str) -> Tensor:
    """``images`` seen as (N, C, H, W)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{_OP}: images must be a torch.Tensor, got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"{_OP}: images must be uint8, got {_checks.dtype_name(images.dtype)}")
    if images.dim() != 4:
        raise ValueError(
            f"{_OP}: images must have shape (N, H, W, C) or (N, C, H, W), got {tuple(images.shape)}"
        )
    if layout not in ("auto", "NHWC", "NCHW"):
        raise ValueError(f'{_OP}: layout must be "auto", "NHWC" or "NCHW", got {layout!r}')
    if layout == "auto":
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first == last:
            raise ValueError(
                f'{_OP}: layout must be given ("NHWC" or "NCHW") for images of shape {tuple(images.shape)}, '
                'got "auto"'
            )
        layout = "NCHW" if first else "NHWC"
    if layout == "NHWC":
        images = images.permute(0, 3, 1, 2)
    if min(images.shape[1:]) < 1 or images.shape[1] > MAX_CHANNELS:
        raise ValueError(
            f"{_OP}: images must have 1 to {MAX_CHANNELS} channels and H, W >= 1, "
            f"got (N, C, H, W) = {tuple(images.shape)}"
        )
    return images


def _check_size(size: Sequence[int]) -> tuple[int, int]:
    if not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(f"{_OP}: size must be a pair (rows, columns), got {size!r}")
    for value in size:
        _checks.check_integer(value, "size", 1, MAX_SIDE, _OP)
    return size[0], size[1]


def _check_statistics(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[list[float], list[float]]:
    for values, argument, least in ((mean, "mean", -1e30), (std, "std", 1e-30)):
        if not isinstance(values, Sequence) or len(values) != channels:
            raise ValueError(
                f"{_OP}: {argument} must hold a value for each of {channels} channels, got {values!r}"
            )
        for value in values:
            check_number(value, argument, least, 1e30, _OP)
    return [float(value) for value in mean], [float(value) for value in std]


def _check_sizes(
    sizes: Tensor | Sequence[Sequence[int]] | None, images: Tensor, least_height: int, least_width: int
) -> Tensor | None:
    """``sizes`` on the images' device; checks what can be checked without waiting for a device."""
    count, _, height, width = images.shape
    if sizes is None:
        if height < least_height or width < least_width:
            raise ValueError(
                f"{_OP}: images with their padding must be at least as large as size, got {height}x{width} "
                f"where {least_height}x{least_width} is needed"
            )
        return None
    sizes = sizes if isinstance(sizes, Tensor) else torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
    if sizes.dtype != torch.int64:
        raise TypeError(f"{_OP}: sizes must be int64, got {_checks.dtype_name(sizes.dtype)}")
    if sizes.shape != (count, 2):
        raise ValueError(f"{_OP}: sizes must have shape ({count}, 2), got {tuple(sizes.shape)}")
    if sizes.device.type not in ("cpu", images.device.type):
        raise ValueError(f"{_OP}: sizes must be on the CPU or on {images.device}, got {sizes.device}")
    if sizes.device.type == "cpu" and not torch.compiler.is_compiling():
        least = torch.tensor([max(1, least_height), max(1, least_width)])
        bad = (sizes < least) | (sizes > torch.tensor([height, width]))
        if bad.any():
            row, side = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{_OP}: sizes[{row}, {side}] must be in [{least[side]}, {(height, width)[side]}], "
                f"got {sizes[row, side].item()}"
            )
    return sizes.to(images.device, non_blocking=True).contiguous()


@_dispatch.registers
def _register(library: str) -> None:
    """The fake kernel; bytes have no gradient."""

    @torch.library.register_fake(f"{library}::augment")
    def _(
        images: Tensor, sizes: Any, seed_tensor: Any, seed: Any, first_index: Any, height: int, width: int,
        pad: Any, flip: Any, mean: Any, std: Any, rectangle: Any, rectangle_values: Any, polygon: Any,
        polygon_values: Any, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        return images.new_empty(images.shape[0], images.shape[1], height, width, dtype=dtype)
