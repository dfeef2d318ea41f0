"""Random Polygon Erasing (HENet) and random erasing of rectangles: one launch of one kernel a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _dispatch
from .rule import (
    FILLS,
    Rule,
    check_first_index,
    check_images,
    checked_seed,
    checked_value_range,
    occluding_rules,
)

__all__ = ["occlude", "polygon_erase", "random_erase"]

Erased = Tensor | tuple[Tensor, ...]

_CONSTANT = FILLS["mean"]
_FILL_POSITION = 8  # in Rule.encode()

_implementations: list[torch.library.Library] = []  # a Library's registrations go when it does


def polygon_erase(
    images: Tensor,
    *,
    p: float = 0.5,
    area: Sequence[float] = (0.02, 0.45),
    aspect: float | Sequence[float] = 0.35,
    points: int = 20,
    fill: str = "random",
    shape: str = "hull",
    mean: float | Sequence[float] | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    return_mask: bool = False,
    first_index: int = 0,
    sampling: str = "continuous",
    value_range: Sequence[float] | None = None,
    max_attempts: int = 100,
    return_attempts: bool = False,
) -> Erased:
    r"""Erases a random polygon from each image of a batch (Random Polygon Erasing, HENet, Algorithm 1).

    With probability ``p`` an image gets a box of area :math:`S_e = U(s_l, s_h) W H` and aspect
    :math:`r_e = U(r, 1/r)`, so :math:`W_e = \sqrt{S_e / r_e}` and :math:`H_e = \sqrt{S_e r_e}`, drawn
    again until it fits, then placed uniformly inside the image; ``points`` points are drawn uniformly in
    the box, and a pixel is erased when its centre lies in or on their polygon. (Algorithm 1 prints the
    number of points as the probability, a misprint.)

    Everything random is a function of (seed, number of the image): the same pixels and fills, bit for
    bit, on CPU and CUDA, in any batch, in any layout.

    Args:
        images: ``(N, C, H, W)``, uint8, float32, float64, float16 or bfloat16, contiguous or
            channels-last (any strides work). Sides up to 131,072.
        p: probability of erasing an image, in [0, 1].
        area: least and greatest share of the image that the box takes, in [0, 1].
        aspect: least height / width of the box; the greatest is its inverse. In [1/256, 1]. Or a pair
            (least, greatest).
        points: points drawn, 3 to 256. The hull of 10 / 20 / 40 covers .437 / .625 / .766 of its box.
        fill: ``"random"``: one of 256 values an image; ``"channel"``: one a channel; ``"pixel"``: one
            an element; ``"mean"``: the constants ``mean``.
        shape: ``"hull"``, the points' convex hull, or ``"star"``, the points joined by angle around
            their mean.
        mean: for ``fill="mean"``, a share of the value range, or one a channel. None: what the authors'
            code fills with, (.4914, .4822, .4465), for images of three channels.
        seed: an int, or an int64 tensor on the images' device, which the kernel reads when it runs: one
            element, or two, the second of which is added to ``first_index``. None: drawn from ``generator``.
        generator: of a seed that is not given. None: torch's own of the images' device.
        inplace: change ``images`` itself and return it. Only erased pixels are written.
        return_mask: also return which pixels were erased.
        first_index: the number of the batch's first image. Image i of a batch equals a batch of that
            image alone with ``first_index=i``.
        sampling: ``"continuous"``, Algorithm 1, or ``"published_code"``, as the authors' code has it:
            box and points in whole pixels, the box's centre as first point.
        value_range: least and greatest fill. None: 0 to 255 for uint8, 0 to 1 for floats.
        max_attempts: boxes tried before an image is left as it is.
        return_attempts: also return how many boxes each image took.

    Returns:
        The images, of the same shape, dtype and layout (dense). With ``return_mask`` then a bool mask
        ``(N, H, W)``; with ``return_attempts`` then int32 ``(N,)``: 0 where ``p`` decided against
        erasing, the number of boxes tried where an image was erased, and -1 where none of
        ``max_attempts`` fitted and the image is unchanged, so ``(attempts == -1).sum()`` counts these.

        Out of place, floating images are differentiable: erased pixels pass no gradient, the others
        pass it unchanged. Nothing is kept for that but the seed.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range or of the wrong shape.
        RuntimeError: ``inplace`` on images that require a gradient.
        NotImplementedError: under forward-mode differentiation.

    CUDA graphs: with ``seed=None`` the seed is drawn by a kernel from torch's CUDA generator, which
    advances at every replay, so each replay erases anew. With a seed tensor, change its value between
    replays. An int is fixed at capture.

    Example:
        >>> images = torch.rand(64, 3, 384, 128)
        >>> erased, mask = reid_ops.polygon_erase(images, points=20, seed=1, return_mask=True)
        >>> mask.shape
        torch.Size([64, 384, 128])
    """
    op = "polygon_erase"
    rule = Rule.polygon(
        op, p=p, area=area, aspect=aspect, points=points, shape=shape, sampling=sampling, fill=fill,
        mean=mean, max_attempts=max_attempts,
    )  # fmt: skip
    return erase_by_rule(
        op, images, rule, value_range, seed, generator, inplace, return_mask, first_index, return_attempts
    )


def random_erase(
    images: Tensor,
    *,
    p: float = 0.5,
    area: Sequence[float] = (0.02, 0.4),
    aspect: float | Sequence[float] = 0.3,
    fill: str = "random",
    anchor: str = "corner",
    mean: float | Sequence[float] | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    return_mask: bool = False,
    first_index: int = 0,
    value_range: Sequence[float] | None = None,
    max_attempts: int = 100,
    return_attempts: bool = False,
) -> Erased:
    """Erases a random rectangle from each image of a batch, by the kernel of :func:`polygon_erase`.

    The rectangle has whole pixels, rounded from the box of :func:`polygon_erase`, and must be smaller
    than the image in both directions.

    Args:
        anchor: ``"corner"``: the top-left corner is uniform where the rectangle fits, as in common
            code; ``"center"``: the rectangle lies around a uniform pixel and is cut off at the image's
            edges.
        images: as in :func:`polygon_erase`, and so for all that follows.
        p: probability.
        area: least and greatest share of the image.
        aspect: least height / width, or least and greatest.
        fill: ``"random"``, ``"channel"``, ``"pixel"`` or ``"mean"``.
        mean: for ``fill="mean"``.
        seed: one seed serves both ops: rectangles and polygons are drawn independently.
        generator: of a seed that is not given.
        inplace: change ``images`` itself.
        return_mask: also return which pixels were erased.
        first_index: number of the first image.
        value_range: least and greatest fill.
        max_attempts: boxes tried.
        return_attempts: also return how many boxes each image took.

    Returns, Raises:
        As :func:`polygon_erase`.

    Example:
        >>> images = torch.rand(64, 3, 384, 128)
        >>> both = reid_ops.polygon_erase(reid_ops.random_erase(images, seed=1), seed=1)  # RE + RPE
    """
    op = "random_erase"
    rule = Rule.rectangle(
        op, p=p, area=area, aspect=aspect, anchor=anchor, fill=fill, mean=mean, max_attempts=max_attempts
    )
    return erase_by_rule(
        op, images, rule, value_range, seed, generator, inplace, return_mask, first_index, return_attempts
    )


def occlude(
    images: Tensor,
    level: float,
    kind: str = "polygon",
    *,
    points: int = 20,
    aspect: float = 0.35,
    fill: str = "random",
    mean: float | Sequence[float] | None = None,
    seed: int = 0,
    first_index: int = 0,
    value_range: Sequence[float] | None = None,
) -> Tensor:
    """An occluded test set: every image loses a region whose box has the share ``level`` (HENet, Fig. 5).

    Args:
        images: as in :func:`polygon_erase`; not changed.
        level: share of the image that the box takes, in [0, 1]; 0 changes nothing, 1 takes all of it. The
            polygon covers only its part of the box (.625 of it with 20 points).
        kind: ``"rectangle"`` (RE), ``"polygon"`` (RPE) or ``"both"``, one after the other.
        aspect: least height / width of the box, as far as a box of this level fits at all; beyond
            that, the shapes that fit.
        points: as in :func:`polygon_erase`, and so for all that follows.
        fill: ``"random"``, ``"channel"``, ``"pixel"`` or ``"mean"``.
        mean: for ``fill="mean"``.
        first_index: number of the first image; count on from batch to batch.
        value_range: least and greatest fill.
        seed: the test set's own; the same seed gives the same test set everywhere.

    Returns:
        The occluded images, of the same shape and dtype.

    Raises:
        TypeError, ValueError: as :func:`polygon_erase`; ``level`` too large for images so long that the
            box would need an aspect beyond 1/256 or 256.

    Example:
        >>> gallery = torch.rand(8, 3, 384, 128)
        >>> curve = [reid_ops.occlude(gallery, level, "both") for level in (0.1, 0.2, 0.3, 0.4)]
    """
    op = "occlude"
    check_images(images, op)
    rules = occluding_rules(
        op, level, kind, *images.shape[2:], points=points, aspect=aspect, fill=fill, mean=mean
    )
    if not rules:
        return images.clone()
    for rule in rules:
        images, _, _ = _run(op, images, rule, value_range, seed, None, first_index, False)
    return images


def _run(
    op: str,
    images: Tensor,
    rule: Rule,
    value_range: Sequence[float] | None,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    first_index: int,
    return_mask: bool,
    inplace: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Checks what a rule does not hold, then calls the operator: (images, mask or empty, attempts)."""
    check_images(images, op)
    check_first_index(first_index, op)
    value_range = checked_value_range(value_range, images.dtype, op)
    values = rule.values(images.shape[1], images.dtype, value_range, op)
    value, tensor = checked_seed(seed, generator, images.device, op)
    arguments = (tensor, value, first_index, rule.encode(), values, return_mask)
    if not inplace:
        return _dispatch.call("polygon_erase", images, *arguments)
    if images.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(f"{op}: inplace=True needs images that require no gradient; use inplace=False")
    if _overlaps_itself(images):
        raise ValueError(
            f"{op}: images must not overlap itself with inplace=True, got strides {images.stride()} "
            f"for shape {tuple(images.shape)}"
        )
    if not torch.compiler.is_compiling() and images.is_neg():  # a view whose sign is not in memory
        erased, mask, attempts = _dispatch.operators().polygon_erase(images, *arguments)
        return images.copy_(erased), mask, attempts
    mask, attempts = _dispatch.operators().polygon_erase_(images, *arguments)
    return images, mask, attempts


def erase_by_rule(
    op: str,
    images: Tensor,
    rule: Rule,
    value_range: Sequence[float] | None,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    inplace: bool,
    return_mask: bool,
    first_index: int,
    return_attempts: bool,
) -> Erased:
    erased, mask, attempts = _run(
        op, images, rule, value_range, seed, generator, first_index, return_mask, inplace
    )
    extra = [mask] * return_mask + [attempts] * return_attempts
    return (erased, *extra) if extra else erased


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two indices may mean one element: a stride does not reach beyond all smaller ones."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


@_dispatch.registers
def _register(library: str) -> None:
    """Fake kernels and the gradient: the same erasing of the gradient, filled with zero."""
    ops = getattr(torch.ops, library)

    def extras(images: Tensor, with_mask: bool) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        mask = images.new_empty((count, height, width) if with_mask else (0,), dtype=torch.bool)
        return mask, images.new_empty(count, dtype=torch.int32)

    @torch.library.register_fake(f"{library}::polygon_erase")
    def _(
        images: Tensor, seed_tensor: Any, seed: Any, first_index: Any, rule: Any, values: Any, with_mask: bool
    ) -> tuple[Tensor, ...]:
        return torch.empty_like(images), *extras(images, with_mask)

    @torch.library.register_fake(f"{library}::polygon_erase_")
    def _(
        images: Tensor, seed_tensor: Any, seed: Any, first_index: Any, rule: Any, values: Any, with_mask: bool
    ) -> tuple[Tensor, Tensor]:
        return extras(images, with_mask)

    def erase_in_place(keyset: Any, images: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(images, Tensor):  # torch hands on None
            raise TypeError(f"polygon_erase: images must be a torch.Tensor, got {type(images).__name__}")
        # Operators outside torch do this themselves: else autograd does not notice that a saved tensor
        # has changed, and gradients are silently wrong.
        if images.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("polygon_erase: images must require no gradient to be erased in place")
        torch.autograd.graph.increment_version(images)
        with torch._C._AutoDispatchBelowADInplaceOrView():
            return ops.polygon_erase_.default.redispatch(
                keyset & torch._C._after_ADInplaceOrView_keyset, images, *arguments
            )

    implementation = torch.library.Library(library, "IMPL")
    implementation.impl("polygon_erase_", erase_in_place, "ADInplaceOrView", with_keyset=True)
    _implementations.append(implementation)

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, seed_tensor, ctx.seed, ctx.first_index, rule, _, _ = inputs
        ctx.save_for_backward(seed_tensor)
        ctx.rule = [*rule[:_FILL_POSITION], _CONSTANT, *rule[_FILL_POSITION + 1 :]]
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is not None:
            (seed_tensor,) = ctx.saved_tensors
            arguments = (seed_tensor, ctx.seed, ctx.first_index, ctx.rule, [0.0], False)
            grad = _dispatch.call_in(library, "polygon_erase", grad, *arguments)[0]
        return grad, *(None,) * 6

    _dispatch.register_gradient(library, "polygon_erase", backward, save)
