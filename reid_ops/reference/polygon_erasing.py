"""Reference of :func:`reid_ops.polygon_erase` and :func:`reid_ops.random_erase`: the specification in code.

One image at a time, integers for everything that decides which pixels are erased. The random words, the
sampling and the raster rule are those of csrc/polygon_erasing/rule.h; the polygon is found and filled in
another way than there (half-planes instead of row intervals), so that the two check each other.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..polygon_erasing.rule import Rule, checked_seed, checked_value_range, occluding_rules
from .philox import philox4x32, scale_word

__all__ = [
    "Box",
    "Words",
    "draw_box",
    "draw_fill_levels",
    "draw_points",
    "erase",
    "polygon_erase",
    "polygon_mask",
]
__all__ += ["erase_by_rule", "occlude", "random_erase"]

Erased = Tensor | tuple[Tensor, ...]

PIXEL = 4096  # coordinates are integers in units of 1/4096 pixel, from the image's corner
HALF = PIXEL // 2
BOX, POINTS, FILL, GEOMETRY = 0, 1, 2, 8  # what words are for
RECTANGLES = 4  # added for rectangles: independent of polygons under one seed


class Box(NamedTuple):
    """A box in units of 1/4096 pixel; ``attempts`` 0: not drawn, -1: none fitted."""

    left: int = 0
    top: int = 0
    width: int = 0
    height: int = 0
    attempts: int = 0


class Words:
    """The random words of one image: four for every block number of every purpose."""

    def __init__(self, seed: int, image: int, family: int = 0) -> None:
        self.key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        self.image = (image & 0xFFFFFFFF, image >> 32 & 0xFFFFFFFF)
        self.family = family

    def __call__(self, purpose: int, block: int | Tensor) -> Tensor:
        return philox4x32(self.key, (block, purpose + self.family, *self.image))


def draw_box(rule: Rule, words: Words, height: int, width: int) -> Box:
    """HENet, Algorithm 1, lines 1-9, with at most ``rule.max_attempts`` repetitions.

    S_e = U(s_l, s_h) W H;  r_e = U(r, 1/r);  W_e = sqrt(S_e / r_e);  H_e = sqrt(S_e r_e);
    again until the box fits, then uniformly placed inside the image.
    """
    threshold, area_low, area_span, aspect_low, aspect_span, *_ = rule.encode()
    if words(BOX, 0)[0] >= threshold:
        return Box()
    for attempt in range(1, rule.max_attempts + 1):
        area_word, aspect_word, across, down = words(BOX, attempt)
        area = (area_low + scale_word(area_word, area_span)).item() * float(height * width)
        aspect = float((aspect_low + scale_word(aspect_word, aspect_span)).item())
        box_width = int(math.sqrt(area / aspect * 2.0**16))
        box_height = int(math.sqrt(area * aspect * 2.0**-32))
        if rule.placement == "continuous":
            if box_width > width * PIXEL or box_height > height * PIXEL:
                continue
            left = scale_word(across, width * PIXEL - box_width + 1)
            top = scale_word(down, height * PIXEL - box_height + 1)
            return Box(int(left), int(top), box_width, box_height, attempt)
        columns, rows = (box_width + HALF) // PIXEL, (box_height + HALF) // PIXEL
        if columns >= width or rows >= height:
            continue
        if rule.placement == "center":
            left, top = scale_word(across, width) - columns // 2, scale_word(down, height) - rows // 2
        else:
            if rule.placement == "published_code":
                columns, rows = columns // 2 * 2, rows // 2 * 2
            left, top = scale_word(across, width - columns + 1), scale_word(down, height - rows + 1)
        return Box(int(left) * PIXEL, int(top) * PIXEL, columns * PIXEL, rows * PIXEL, attempt)
    return Box(attempts=-1)


def draw_points(rule: Rule, words: Words, box: Box) -> Tensor:
    """Algorithm 1, lines 10-13: int64 ``(points, 2)``, x and y, uniform in the box, edges included."""
    drawn = words(POINTS, torch.arange((rule.points + 1) // 2)).view(-1, 2)[: rule.points]
    corner, size = torch.tensor([box.left, box.top]), torch.tensor([box.width, box.height])
    if rule.placement != "published_code":
        return corner + scale_word(drawn, size + 1)
    pixels = scale_word(drawn, size // PIXEL + 1)
    pixels[0] = size // PIXEL // 2
    return corner + pixels * PIXEL + HALF


def polygon_mask(points: Tensor, shape: str, height: int, width: int) -> Tensor:
    """The pixels whose centres lie in or on the polygon: bool ``(height, width)``."""
    x = torch.arange(width) * PIXEL + HALF
    y = (torch.arange(height) * PIXEL + HALF)[:, None]
    corners = [(int(px), int(py)) for px, py in points.tolist()]
    if shape == "hull":
        return _in_convex(convex_hull(corners), x, y)
    count = len(corners)
    center = tuple((sum(axis) + count // 2) // count for axis in zip(*corners, strict=True))
    star = by_angle(corners, center)
    mask = torch.zeros(height, width, dtype=torch.bool)
    for here, following in zip(star, star[1:] + star[:1], strict=True):
        triangle = [center, here, following]
        mask |= _in_convex(triangle, x, y) | _in_convex(triangle[::-1], x, y)
    return mask


Corner = tuple[int, ...]


def _cross(a: Corner, b: Corner, c: Corner) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def convex_hull(corners: Sequence[Corner]) -> list[Corner]:
    """The hull's corners in order (Andrew's monotone chain); one or two when the points are degenerate."""

    def chain(ordered: Sequence[Corner]) -> list[Corner]:
        result: list[Corner] = []
        for corner in ordered:
            while len(result) >= 2 and _cross(result[-2], result[-1], corner) <= 0:
                result.pop()
            result.append(corner)
        return result

    ordered = sorted(set(corners))
    return ordered if len(ordered) == 1 else chain(ordered)[:-1] + chain(ordered[::-1])[:-1]


def by_angle(corners: Sequence[Corner], center: Corner) -> list[Corner]:
    """The corners by angle around the centre, then outwards."""

    def half_turn(corner: Corner) -> int:
        x, y = corner[0] - center[0], corner[1] - center[1]
        return 0 if x == y == 0 else 1 if y > 0 or (y == 0 and x > 0) else 2

    def distance(corner: Corner) -> int:
        return (corner[0] - center[0]) ** 2 + (corner[1] - center[1]) ** 2

    def compare(a: Corner, b: Corner) -> int:
        return half_turn(a) - half_turn(b) or _cross(center, b, a) or distance(a) - distance(b)

    return sorted(corners, key=functools.cmp_to_key(compare))


def _in_convex(corners: Sequence[Corner], x: Tensor, y: Tensor) -> Tensor:
    """In the corners' bounding box and on no edge's wrong side (which decides a segment or a point too)."""
    xs, ys = zip(*corners, strict=True)
    inside = (x >= min(xs)) & (x <= max(xs)) & (y >= min(ys)) & (y <= max(ys))
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0
    return inside


def draw_fill_levels(fill: str, words: Words, channels: int, height: int, width: int) -> Tensor:
    """Levels 0..255 that broadcast over ``(channels, height, width)``."""
    count = {"random": 1, "channel": channels, "pixel": channels * height * width}[fill]
    levels = words(FILL, torch.arange((count + 3) // 4)).flatten()[:count] >> 24
    return levels.view(
        {"random": (1, 1, 1), "channel": (channels, 1, 1), "pixel": (channels, height, width)}[fill]
    )


def erase(
    images: Tensor, rule: Rule, seed: int, first_index: int, values: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator: ``(images erased, mask (N, H, W), attempts (N,))``; differentiable in ``images``."""
    count, channels, height, width = images.shape
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    attempts = torch.zeros(count, dtype=torch.int32)
    fills = torch.zeros(count, channels, height, width, dtype=torch.float64)
    for n in range(count):
        words = Words(seed, first_index + n, RECTANGLES if rule.shape == "rectangle" else 0)
        box = draw_box(rule, words, height, width)
        attempts[n] = box.attempts
        if box.attempts <= 0:
            continue
        if rule.shape == "rectangle":
            right, bottom = box.left + box.width, box.top + box.height
            corners = [(box.left, box.top), (right, box.top), (right, bottom), (box.left, bottom)]
            masks[n] = polygon_mask(torch.tensor(corners), "hull", height, width)
        else:
            masks[n] = polygon_mask(draw_points(rule, words, box), rule.shape, height, width)
        if rule.fill == "mean":
            fills[n] = torch.tensor(values, dtype=torch.float64)[:, None, None]
        else:
            low, span = values
            fills[n] = low + draw_fill_levels(rule.fill, words, channels, height, width).double() * span / 255
    if images.dtype == torch.uint8:
        fills = (fills + 0.5).floor()
    masks, fills = masks.to(images.device), fills.to(images.device, images.dtype)
    return torch.where(masks[:, None], fills, images), masks, attempts.to(images.device)


def erase_by_rule(
    op: str,
    images: Tensor,
    rule: Rule,
    value_range: Sequence[float] | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    return_mask: bool = False,
    first_index: int = 0,
    return_attempts: bool = False,
) -> Erased:
    """:func:`erase` for any seed, with the results that were asked for."""
    number, tensor = checked_seed(seed, generator, images.device, op)
    if tensor is not None:
        number, *further = tensor.flatten().tolist()
        first_index += sum(further)
    limits = checked_value_range(value_range, images.dtype, op)
    values = rule.values(images.shape[1], images.dtype, limits, op)
    erased, mask, attempts = erase(images, rule, number, first_index, values)
    if inplace:
        erased = images.copy_(erased)
    extra = [mask] * return_mask + [attempts] * return_attempts
    return (erased, *extra) if extra else erased


def polygon_erase(images: Tensor, **arguments: Any) -> Erased:
    """HENet, Algorithm 1; arguments and results as :func:`reid_ops.polygon_erase`."""
    return _erase_with("polygon_erase", Rule.polygon, images, arguments)


def random_erase(images: Tensor, **arguments: Any) -> Erased:
    """Random erasing of rectangles; arguments and results as :func:`reid_ops.random_erase`."""
    return _erase_with("random_erase", Rule.rectangle, images, arguments)


def _erase_with(op: str, rule_of: Callable[..., Rule], images: Tensor, arguments: dict[str, Any]) -> Erased:
    """What :func:`erase_by_rule` knows goes there; the other arguments are the rule's."""
    known = inspect.signature(erase_by_rule).parameters.keys() - {"op", "images", "rule"}
    ways = {name: arguments[name] for name in arguments if name in known}
    rule = rule_of(op, **{name: arguments[name] for name in arguments if name not in known})
    return erase_by_rule(op, images, rule, **ways)


def occlude(
    images: Tensor,
    level: float,
    kind: str = "polygon",
    *,
    seed: int = 0,
    first_index: int = 0,
    value_range: Sequence[float] | None = None,
    **shape: Any,
) -> Tensor:
    """An occluded test set (HENet, Fig. 5); arguments as in :func:`reid_ops.occlude`."""
    op = "occlude"
    rules = occluding_rules(op, level, kind, *images.shape[2:], **shape)
    limits = checked_value_range(value_range, images.dtype, op)
    erased = images.clone()
    for rule in rules:
        values = rule.values(images.shape[1], images.dtype, limits, op)
        erased, _, _ = erase(erased, rule, seed, first_index, values)
    return erased
