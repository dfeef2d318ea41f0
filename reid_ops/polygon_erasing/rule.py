"""What random erasing is to do, as checked arguments and as the integers that the kernels work with.

A :class:`Rule` is encoded once, here, for the kernels and for the reference alike
(csrc/polygon_erasing/rule.h): probabilities and areas in units of 2**-32, aspects in units of 2**-24.
From there on everything is decided in integers, so every device erases the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import _checks

MIN_POINTS, MAX_POINTS = 3, 256
MAX_ATTEMPTS = 1_000_000
ASPECTS = (1 / 256, 256.0)  # height over width, least and greatest
MAX_CONSTANTS = 16  # csrc/polygon_erasing/rule.h: kMaxConstants

SHAPES = {"hull": 0, "star": 1, "rectangle": 2}
PLACEMENTS = {"continuous": 0, "published_code": 1, "corner": 2, "center": 3}
FILLS = {"random": 0, "channel": 1, "pixel": 2, "mean": 3}

# Mean colour of CIFAR-10's images, which the code of HENet's authors fills with.
PUBLISHED_MEAN = (0.4914, 0.4822, 0.4465)

Range = tuple[float, float]


@dataclass(frozen=True)
class Rule:
    """The arguments of one kind of erasing, in the user's terms and checked.

    ``aspect``: height over width, least and greatest. ``points``: of polygons only. ``mean``: what
    ``fill="mean"`` fills with, as shares of the value range. ``max_attempts``: boxes that are tried
    before an image is left as it is.
    """

    p: float
    area: Range
    aspect: Range
    points: int
    shape: str
    placement: str
    fill: str
    mean: tuple[float, ...] | None = None
    max_attempts: int = 100

    @classmethod
    def checked(
        cls,
        op: str,
        *,
        shape: str,
        placement: str,
        area: Sequence[float],
        aspect: float | Sequence[float],
        p: float = 0.5,
        points: int = MIN_POINTS,
        fill: str = "random",
        mean: float | Sequence[float] | None = None,
        max_attempts: int = 100,
    ) -> Rule:
        """A rule from raw arguments; TypeError or ValueError if one is wrong."""
        check_number(p, "p", 0.0, 1.0, op)
        area = _checked_range(area, "area", 0.0, 1.0, op)
        if not isinstance(aspect, Sequence):
            check_number(aspect, "aspect", ASPECTS[0], 1.0, op)
            aspect = (float(aspect), 1.0 / aspect)
        aspect = _checked_range(aspect, "aspect", *ASPECTS, op)
        _checks.check_integer(points, "points", MIN_POINTS, MAX_POINTS, op)
        _checks.check_integer(max_attempts, "max_attempts", 1, MAX_ATTEMPTS, op)
        for value, argument, known in (
            (shape, "shape", SHAPES),
            (placement, "placement", PLACEMENTS),
            (fill, "fill", FILLS),
        ):
            if value not in known:
                names = ", ".join(f'"{name}"' for name in known)
                raise ValueError(f"{op}: {argument} must be one of {names}, got {value!r}")
        return cls(
            float(p), area, aspect, points, shape, placement, fill, _checked_mean(mean, op), max_attempts
        )

    @classmethod
    def polygon(
        cls,
        op: str,
        *,
        area: Sequence[float] = (0.02, 0.45),
        aspect: float | Sequence[float] = 0.35,
        points: int = 20,
        shape: str = "hull",
        sampling: str = "continuous",
        **others: Any,
    ) -> Rule:
        """The rule of :func:`reid_ops.polygon_erase`'s arguments; the others are those of :meth:`checked`."""
        _check_either(shape, "shape", "hull", "star", op)
        _check_either(sampling, "sampling", "continuous", "published_code", op)
        return cls.checked(
            op, area=area, aspect=aspect, points=points, shape=shape, placement=sampling, **others
        )

    @classmethod
    def rectangle(
        cls,
        op: str,
        *,
        area: Sequence[float] = (0.02, 0.4),
        aspect: float | Sequence[float] = 0.3,
        anchor: str = "corner",
        **others: Any,
    ) -> Rule:
        """The rule of :func:`reid_ops.random_erase`'s arguments; the others are those of :meth:`checked`."""
        _check_either(anchor, "anchor", "corner", "center", op)
        return cls.checked(op, area=area, aspect=aspect, shape="rectangle", placement=anchor, **others)

    def encode(self) -> list[int]:
        """The ten integers of ``struct Rule`` in csrc/polygon_erasing/rule.h, in its order."""
        area_low, area_high = (int(share * 2**32) for share in self.area)
        aspect_low, aspect_high = (int(ratio * 2**24) for ratio in self.aspect)
        return [
            math.ceil(self.p * 2**32),
            area_low, area_high - area_low,
            aspect_low, aspect_high - aspect_low,
            self.points,
            SHAPES[self.shape], PLACEMENTS[self.placement], FILLS[self.fill],
            self.max_attempts,
        ]  # fmt: skip

    def constants(self, channels: int, op: str) -> tuple[float, ...]:
        """What ``fill="mean"`` fills with, as shares of the value range: one, or one a channel."""
        mean = self.mean
        if mean is None:
            if channels != len(PUBLISHED_MEAN):
                raise ValueError(
                    f'{op}: mean must be given for fill="mean" on images of {channels} channels, got None'
                )
            mean = PUBLISHED_MEAN
        if len(mean) not in (1, channels):
            raise ValueError(f"{op}: mean must hold 1 or {channels} values (one a channel), got {len(mean)}")
        if len(mean) > MAX_CONSTANTS:
            raise ValueError(f"{op}: mean may differ for up to {MAX_CONSTANTS} channels, got {len(mean)}")
        return mean

    def values(self, channels: int, dtype: torch.dtype, value_range: Range, op: str) -> list[float]:
        """The ``values`` argument of the operators: the constants, or the least value and the span."""
        low, high = value_range
        if self.fill != "mean":
            return [low, high - low]
        values = [low + share * (high - low) for share in self.constants(channels, op)]
        if dtype == torch.uint8:
            for value in values:
                check_number(value, "mean times 255", 0.0, 255.0, op)
        return values


def occluding_rules(
    op: str,
    level: float,
    kind: str,
    height: int,
    width: int,
    *,
    points: int = 20,
    aspect: float = 0.35,
    fill: str = "random",
    mean: float | Sequence[float] | None = None,
) -> list[Rule]:
    """What :func:`reid_ops.occlude` erases, one after the other: boxes of one share, all of which fit."""
    kinds = {"rectangle": ("rectangle",), "polygon": ("hull",), "both": ("rectangle", "hull")}
    if kind not in kinds:
        raise ValueError(f'{op}: kind must be "rectangle", "polygon" or "both", got {kind!r}')
    check_number(level, "level", 0.0, 1.0, op)
    rule = Rule.polygon(
        op, p=1.0, area=(level, level), aspect=aspect, points=points, fill=fill, mean=mean, max_attempts=1
    )
    if level == 0:
        return []
    most = ASPECTS[1] * min(height / width, width / height)
    if level > most:
        raise ValueError(
            f"{op}: level must be at most {most:g} for images of {height}x{width} (a box is up to "
            f"{ASPECTS[1]:g} times as long as wide), got {level:g}"
        )
    share, least, greatest = _fitting_box(max(1, int(level * 2**32)), height, width)
    low, high = (int(ratio * 2**24) for ratio in rule.aspect)
    if max(low, least) <= min(high, greatest):
        least, greatest = max(low, least), min(high, greatest)
    fitting = replace(
        rule, area=(share / 2**32, share / 2**32), aspect=(least / 2**24, greatest / 2**24)
    )  # exact, so that encode() gives these integers back
    return [replace(fitting, shape=shape) for shape in kinds[kind]]


def _fitting_box(share: int, height: int, width: int) -> tuple[int, int, int]:
    """``(share, least, greatest aspect)`` in a rule's integers such that every such box fits the image.

    W_e = sqrt(share H W / aspect) <= W and H_e = sqrt(share H W aspect) <= H, solved for the aspect. Near
    share 1 only H / W would do, which need not be an integer in units of 2**-24: then one of its
    neighbours is taken, and the share becomes the greatest that fits with it, smaller by 2**-16 at most.
    """
    bounds = [int(ratio * 2**24) for ratio in ASPECTS]
    least = -(-share * height // (width * 2**8))
    greatest = height * 2**56 // (share * width)
    least, greatest = max(least, bounds[0]), min(greatest, bounds[1])
    if least <= greatest:
        return share, least, greatest
    below = min(max(height * 2**24 // width, bounds[0]), bounds[1])

    def largest(aspect: int) -> int:
        return min(aspect * width * 2**8 // height, height * 2**56 // (aspect * width), share)

    aspect = max(below, min(below + 1, bounds[1]), key=largest)
    return largest(aspect), aspect, aspect


def checked_value_range(value_range: Sequence[float] | None, dtype: torch.dtype, op: str) -> Range:
    """The range of fills: by default what an image of this dtype holds."""
    if value_range is None:
        return (0.0, 255.0) if dtype == torch.uint8 else (0.0, 1.0)
    limit = math.inf if dtype != torch.uint8 else 255.0
    return _checked_range(value_range, "value_range", -limit if dtype != torch.uint8 else 0.0, limit, op)


def checked_seed(
    seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device, op: str
) -> tuple[int, Tensor | None]:
    """``(seed, None)`` for an int, ``(0, tensor on the device)`` for a tensor or a drawn seed."""
    if seed is None:
        # Drawn where the generator lives: with none, on the images' own device, so that nothing waits
        # and a CUDA graph that captured this call draws anew at every replay.
        where = device if generator is None else generator.device
        drawn = torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=where, generator=generator)
        return 0, drawn.to(device, non_blocking=True)
    if generator is not None:
        raise ValueError(f"{op}: generator must be None when seed is given, got both")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(
                f"{op}: seed must be an int or an int64 tensor, got {_checks.dtype_name(seed.dtype)}"
            )
        if seed.numel() not in (1, 2):
            raise ValueError(f"{op}: seed must have one or two elements, got shape {tuple(seed.shape)}")
        if seed.device != device and seed.device.type != "cpu":
            raise ValueError(f"{op}: seed must be on the CPU or on {device}, got {seed.device}")
        return 0, seed.to(device, non_blocking=True).contiguous()
    _checks.check_integer(seed, "seed", -(2**63), 2**64 - 1, op)
    return (seed if seed < 2**63 else seed - 2**64), None


def check_first_index(first_index: int, op: str) -> None:
    """The number of a batch's first image."""
    _checks.check_integer(first_index, "first_index", 0, 2**62, op)


def check_images(images: Tensor, op: str) -> None:
    """A batch ``(N, C, H, W)`` of uint8 or floating images with at least one pixel each."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{op}: images must be a torch.Tensor, got {type(images).__name__}")
    if images.dim() != 4:
        raise ValueError(f"{op}: images must have shape (N, C, H, W), got {tuple(images.shape)}")
    if images.dtype != torch.uint8 and images.dtype not in _checks.FLOATING_TYPES:
        raise TypeError(
            f"{op}: images must be uint8, float32, float64, float16 or bfloat16, "
            f"got {_checks.dtype_name(images.dtype)}"
        )
    if min(images.shape[1:]) < 1:
        raise ValueError(f"{op}: images must have C, H, W >= 1, got {tuple(images.shape)}")


def check_number(value: float, argument: str, least: float, most: float, op: str) -> None:
    """A number (no bool) in ``[least, most]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {argument} must be a number, got {type(value).__name__}")
    if not least <= value <= most:  # also false for NaN
        raise ValueError(f"{op}: {argument} must be in [{least:g}, {most:g}], got {value:g}")


def _check_either(value: str, argument: str, first: str, second: str, op: str) -> None:
    if value not in (first, second):
        raise ValueError(f'{op}: {argument} must be "{first}" or "{second}", got {value!r}')


def _checked_range(values: Sequence[float], argument: str, least: float, most: float, op: str) -> Range:
    if not isinstance(values, Sequence) or len(values) != 2:
        raise TypeError(f"{op}: {argument} must be a pair (least, greatest), got {values!r}")
    for value in values:
        check_number(value, argument, least, most, op)
        if not math.isfinite(value):
            raise ValueError(f"{op}: {argument} must be finite, got {value}")
    if values[0] > values[1]:
        raise ValueError(f"{op}: {argument} must not decrease, got {tuple(values)}")
    return float(values[0]), float(values[1])


def _checked_mean(mean: float | Sequence[float] | None, op: str) -> tuple[float, ...] | None:
    if mean is None:
        return None
    values = tuple(mean) if isinstance(mean, Sequence) else (mean,)
    if not values:
        raise ValueError(f"{op}: mean must hold at least one value, got {mean!r}")
    for value in values:
        check_number(value, "mean", -1e30, 1e30, op)
    return tuple(float(value) for value in values)
