"""The erasing ops as modules and torchvision ``transforms.v2`` transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ..reference.polygon_erasing import erase_by_rule as reference_erase_by_rule
from .erase import erase_by_rule
from .image_transform import ImageTransform
from .rule import PUBLISHED_MEAN, Rule, check_first_index, checked_seed, checked_value_range

__all__ = ["RandomErasing", "RandomPolygonErasing"]


class _Erasing(ImageTransform):
    """What the two modules share: a checked rule, a value range, and where seeds come from."""

    _seen: Tensor

    def __init__(
        self,
        rule: Rule,
        value_range: Sequence[float] | None,
        seed: int | Tensor | None,
        generator: torch.Generator | None,
        inplace: bool,
        impl: str,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        checked_value_range(value_range, torch.float32, name)
        if seed is not None:
            device = seed.device if isinstance(seed, Tensor) else torch.device("cpu")
            checked_seed(seed, generator, device, name)
        if isinstance(seed, Tensor) and seed.numel() != 1:
            raise ValueError(f"{name}: seed must have one element, got shape {tuple(seed.shape)}")
        if impl not in ("fused", "reference"):
            raise ValueError(f'{name}: impl must be "fused" or "reference", got {impl!r}')
        self.rule = rule
        self.value_range = value_range
        self.seed = seed
        self.generator = generator
        self.inplace = inplace
        self.impl = impl
        # A tensor: compiled code would be compiled again for every value of an int.
        self.register_buffer("_seen", torch.zeros(1, dtype=torch.int64), persistent=False)

    @property
    def first_index(self) -> int:
        """The number of the next image, counted on while there is a seed."""
        return int(self._seen)

    @first_index.setter
    def first_index(self, value: int) -> None:
        check_first_index(value, type(self).__name__)
        self._seen.fill_(value)

    def __getstate__(self) -> dict[str, Any]:
        # The count as an int: processes that get a tensor share it.
        return {**self.__dict__, "_buffers": {**self._buffers, "_seen": self.first_index}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._buffers["_seen"] = torch.tensor([state["_buffers"]["_seen"]], dtype=torch.int64)

    def begin(self, image: Any) -> tuple[int | Tensor, int]:
        """The sample's seed and its first image's number."""
        device = image.device if isinstance(image, Tensor) else torch.device("cpu")
        worker = _seed_of_worker()
        if self.seed is None:
            _, drawn = checked_seed(None, self.generator, device, type(self).__name__)
            assert drawn is not None
            # Each worker, at each epoch, starts with a copy of the same generator.
            return (drawn if self.generator is None else drawn ^ worker), 0
        if isinstance(self.seed, Tensor) or self._seen.is_cuda or torch.compiler.is_compiling():
            # Nothing here may wait for a device or depend on a value.
            if isinstance(self.seed, Tensor):
                seed = self.seed.to(device, non_blocking=True).view(1)
            else:
                seed = torch.full((1,), _signed(self.seed), dtype=torch.int64, device=device)
            numbers = torch.cat([seed ^ worker, self._seen.to(device, non_blocking=True)])
            self._seen += self.count_images(image)
            return numbers, 0
        first_index = self.first_index
        self._seen += self.count_images(image)
        return _signed(self.seed) ^ worker, first_index

    def transform(self, images: Tensor, draw: tuple[int | Tensor, int]) -> Tensor:
        """One batch ``(N, C, H, W)``, erased."""
        seed, first_index = draw
        erase = erase_by_rule if self.impl == "fused" else reference_erase_by_rule
        return erase(
            type(self).__name__, images, self.rule, self.value_range, seed, None, self.inplace, False,
            first_index, False,
        )  # type: ignore[return-value]  # fmt: skip

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, and p."""
        default = type(self)()  # type: ignore[call-arg]
        shown: dict[str, Any] = {"p": self.rule.p}
        for field in fields(Rule):
            value = getattr(self.rule, field.name)
            if value != getattr(default.rule, field.name):
                polygon = self.rule.shape != "rectangle"
                names = {"placement": "sampling" if polygon else "anchor"}
                shown[names.get(field.name, field.name)] = value
        for name in ("value_range", "seed", "generator", "inplace", "impl"):
            value = getattr(self, name)
            if value is not getattr(default, name) and value != getattr(default, name):
                shown[name] = value
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def _signed(seed: int) -> int:
    """The 64 bits of a seed as the int64 that operators take."""
    return seed if seed < 2**63 else seed - 2**64


def _seed_of_worker() -> int:
    """Differs between the workers and epochs of a DataLoader; 0 outside of workers and in compiled code."""
    if torch.compiler.is_compiling():
        return 0
    worker = torch.utils.data.get_worker_info()
    # Multiplied by an odd number with many bits, lest seeds and workers that follow each other meet.
    return 0 if worker is None else _signed(worker.seed * 0x9E3779B97F4A7C15 % 2**64)


class RandomPolygonErasing(_Erasing):
    """:func:`polygon_erase` as a module and as a torchvision ``transforms.v2`` transform.

    Takes a batch on any device, a single image ``(C, H, W)`` in a DataLoader worker, tv_tensors and PIL
    images (these two need torchvision), alone or inside a sample; labels, boxes and masks pass through.
    All frames of a ``tv_tensors.Video`` lose the same region and get the same fill.

    Arguments as in :func:`polygon_erase`; ``impl="reference"`` runs the pure PyTorch reference. With
    ``inplace=True`` the tensors given are changed and returned; PIL images are always copied.

    ``seed=None`` draws a new seed at every call from ``generator`` or torch's own. A seed numbers the
    images that the module sees from 0 on, in ``first_index``; setting that back to 0 starts over. In a
    DataLoader worker, the worker's own seed enters ``seed`` and what ``generator`` gives, so that neither
    workers nor epochs repeat each other; the DataLoader's ``generator`` then makes a run repeatable.
    Under ``torch.compile(fullgraph=True)`` use a seed or none: torch can't trace a ``generator``.

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
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        inplace: bool = False,
        sampling: str = "continuous",
        value_range: Sequence[float] | None = None,
        max_attempts: int = 100,
        impl: str = "fused",
    ) -> None:
        rule = Rule.polygon(
            "RandomPolygonErasing", p=p, area=area, aspect=aspect, points=points, shape=shape,
            sampling=sampling, fill=fill, mean=mean, max_attempts=max_attempts,
        )  # fmt: skip
        super().__init__(rule, value_range, seed, generator, inplace, impl)

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
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        inplace: bool = False,
        value_range: Sequence[float] | None = None,
        max_attempts: int = 100,
        impl: str = "fused",
    ) -> None:
        rule = Rule.rectangle(
            "RandomErasing", p=p, area=area, aspect=aspect, anchor=anchor, fill=fill, mean=mean,
            max_attempts=max_attempts,
        )  # fmt: skip
        super().__init__(rule, value_range, seed, generator, inplace, impl)
