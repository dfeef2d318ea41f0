"""The erasing ops as modules and torchvision ``transforms.v2`` transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _erasing_rule
from ._erasing_rule import PUBLISHED_MEAN, Rule
from ._image_transform import ImageTransform
from .polygon_erasing import check_anchor, check_polygon, check_sampling, erase_by_rule

__all__ = ["RandomErasing", "RandomPolygonErasing"]


class _Erasing(ImageTransform):
    """What the two modules share: a checked rule, a value range, and where seeds come from."""

    def __init__(
        self,
        rule: Rule,
        value_range: Sequence[float] | None,
        seed: int | None,
        generator: torch.Generator | None,
        inplace: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _erasing_rule.checked_value_range(value_range, torch.float32, name)
        if seed is not None:
            _erasing_rule.checked_seed(seed, generator, torch.device("cpu"), name)
        self.rule = rule
        self.value_range = value_range
        self.seed = seed
        self.generator = generator
        self.inplace = inplace
        self.first_index = 0

    def begin(self, image: Any) -> tuple[int | Tensor, int]:
        """The sample's seed and its first image's number."""
        is_tensor = isinstance(image, Tensor)
        device = image.device if is_tensor else torch.device("cpu")
        value, tensor = _erasing_rule.checked_seed(self.seed, self.generator, device, type(self).__name__)
        first_index = self.first_index
        if self.seed is not None:
            self.first_index += image.shape[:-3].numel() if is_tensor else 1
        return (value if tensor is None else tensor), first_index

    def transform(self, images: Tensor, draw: tuple[int | Tensor, int]) -> Tensor:
        """One batch ``(N, C, H, W)``, erased."""
        seed, first_index = draw
        return erase_by_rule(
            type(self).__name__, images, self.rule, self.value_range, seed, None, self.inplace, False,
            first_index, False,
        )  # type: ignore[return-value]  # fmt: skip

    def extra_repr(self) -> str:
        rule = self.rule
        polygon = rule.shape != "rectangle"
        kind = f"points={rule.points}, shape={rule.shape!r}" if polygon else f"anchor={rule.placement!r}"
        return f"p={rule.p}, area={rule.area}, aspect={rule.aspect}, fill={rule.fill!r}, {kind}"


class RandomPolygonErasing(_Erasing):
    """:func:`polygon_erase` as a module and as a torchvision ``transforms.v2`` transform.

    Takes a batch on any device, a single image ``(C, H, W)`` in a DataLoader worker, tv_tensors and PIL
    images (these two need torchvision), alone or inside a sample; labels, boxes and masks pass through.

    Arguments as in :func:`polygon_erase`. ``seed=None`` draws a new seed at every call from ``generator``
    or torch's own (which differs between DataLoader workers). An int numbers the images that the module
    sees from 0 on, in ``first_index``; setting that back to 0 starts over. (Each DataLoader worker has a
    module of its own, which counts for itself: give workers no seed, or different ones.)

    Example:
        >>> transform = reid_ops.RandomPolygonErasing(p=0.5, points=20)
        >>> image, label = transform(torch.rand(3, 384, 128), 7)
    """

    def __init__(
        self,
        p: float = 0.5,
        area: Sequence[float] = (0.02, 0.45),
        aspect: float | Sequence[float] = 0.35,
        points: int = 20,
        fill: str = "random",
        shape: str = "hull",
        mean: float | Sequence[float] | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        inplace: bool = False,
        sampling: str = "continuous",
        value_range: Sequence[float] | None = None,
        max_attempts: int = 100,
    ) -> None:
        name = "RandomPolygonErasing"
        rule = Rule.checked(
            name, p=p, area=area, aspect=aspect, points=points, shape=check_polygon(shape, name),
            placement=check_sampling(sampling, name), fill=fill, mean=mean, max_attempts=max_attempts,
        )  # fmt: skip
        super().__init__(rule, value_range, seed, generator, inplace)

    @classmethod
    def published_code(cls, **changes: Any) -> RandomPolygonErasing:
        """What the authors' published code does, where it differs from the paper.

        Box and points in whole pixels, the box's centre as first point, and a constant fill
        (.4914, .4822, .4465). The code fills the union of triangles over the points, which is their
        hull; its outlines reach up to a pixel further.
        """
        return cls(**{"fill": "mean", "mean": PUBLISHED_MEAN, "sampling": "published_code", **changes})


class RandomErasing(_Erasing):
    """:func:`random_erase` as a module and ``transforms.v2`` transform; see :class:`RandomPolygonErasing`."""

    def __init__(
        self,
        p: float = 0.5,
        area: Sequence[float] = (0.02, 0.4),
        aspect: float | Sequence[float] = 0.3,
        fill: str = "random",
        anchor: str = "corner",
        mean: float | Sequence[float] | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        inplace: bool = False,
        value_range: Sequence[float] | None = None,
        max_attempts: int = 100,
    ) -> None:
        name = "RandomErasing"
        check_anchor(anchor, name)
        rule = Rule.checked(
            name, p=p, area=area, aspect=aspect, points=_erasing_rule.MIN_POINTS, shape="rectangle",
            placement=anchor, fill=fill, mean=mean, max_attempts=max_attempts,
        )  # fmt: skip
        super().__init__(rule, value_range, seed, generator, inplace)
