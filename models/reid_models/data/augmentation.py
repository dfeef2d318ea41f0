"""What training and evaluation do to a batch of images: :class:`Augmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reid_ops import augment

from .._suggest import unknown

if TYPE_CHECKING:
    from torchvision.transforms import v2

AFFINE = ("degrees", "translate", "scale", "shear", "fill")
CHANNELS = ("rgb", "bgr")


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training batch, and how images are normalised; checked when it is made.

    Attributes:
        flip: probability of flipping left to right.
        pad: black pixels on each side before a random crop back to the image's size.
        erase: random erasing: a probability, or arguments of :class:`reid_ops.RandomErasing`; None: off.
        polygon: Random Polygon Erasing likewise, by :class:`reid_ops.RandomPolygonErasing`.
        affine: arguments of torchvision's ``v2.RandomAffine``: ``degrees``, ``translate``, ``scale``,
            ``shear``, ``fill`` (0 to 255); bilinear. Done by :func:`make_train_loader` on each image.
        mean, std: of each channel, for images scaled to [0, 1]. Default: ImageNet's.
        channels: ``"rgb"``, or ``"bgr"`` for networks that take blue first; mean and std are in that order.

    Raises:
        TypeError, ValueError: a value has the wrong type or is out of range.

    Example:
        >>> augmentation = Augmentation(pad=10, erase={"p": 0.5, "fill": "mean"})
        >>> batch = next(iter(make_train_loader(images, sampler)))
        >>> inputs = augmentation.train(batch.image, seed=batch.seed, first_index=batch.first_index)
    """

    flip: float = 0.5
    pad: int = 0
    erase: float | Mapping[str, Any] | None = 0.5
    polygon: float | Mapping[str, Any] | None = None
    affine: Mapping[str, Any] | None = None
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise ValueError(f'augmentation: channels must be "rgb" or "bgr", got {self.channels!r}')
        random_affine(self.affine)
        self.train(torch.empty(0, 3, 1, 1, dtype=torch.uint8), seed=0)  # every other check is the operator's

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Augmentation:
        """From the fields as a recipe has them.

        Raises:
            TypeError, ValueError: an unknown field (the nearest is suggested), or as the class.
        """
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise unknown("field of augmentation", key, known)
        return cls(**given)

    def train(
        self, images: Tensor, *, seed: int, first_index: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """A training batch, augmented and normalised, on the images' device.

        Args:
            images: uint8 (N, 3, H, W).
            seed: of the epoch, :attr:`TrainBatch.seed`.
            first_index: the first image's number in the epoch, :attr:`TrainBatch.first_index`.
            dtype: of the result: float32, float16 or bfloat16.

        Returns:
            (N, 3, H, W), contiguous.
        """
        return augment(
            self._ordered(images), size=tuple(images.shape[2:]), pad=self.pad, flip=self.flip,
            mean=tuple(self.mean), std=tuple(self.std),
            erase=_arguments(self.erase), polygon=_arguments(self.polygon),
            dtype=dtype, seed=seed, first_index=first_index, layout="NCHW",
        )  # fmt: skip

    def evaluation(self, images: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """A batch normalised and otherwise as it is; arguments as in :meth:`train`."""
        return augment(
            self._ordered(images), size=tuple(images.shape[2:]), pad=0, flip=0.0,
            mean=tuple(self.mean), std=tuple(self.std), dtype=dtype, seed=0, layout="NCHW",
        )  # fmt: skip

    def _ordered(self, images: Tensor) -> Tensor:
        return images if self.channels == "rgb" else images.flip(1)


def _arguments(erasing: float | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Erasing as :func:`reid_ops.augment` takes it: a bare number is its probability."""
    return {"p": erasing} if isinstance(erasing, (int, float)) else erasing


def random_affine(given: Mapping[str, Any] | None) -> v2.RandomAffine | None:
    """Torchvision's transform of :attr:`Augmentation.affine`; None without one."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"augmentation: affine must be a mapping or None, got {type(given).__name__}")
    for key in given:
        if key not in AFFINE:
            raise unknown("field of affine", key, AFFINE)
    # Here, not above: torchvision takes as long to import as torch, and `reid search` can do without.
    from torchvision.transforms import InterpolationMode, v2

    try:
        return v2.RandomAffine(**{"degrees": 0, **given}, interpolation=InterpolationMode.BILINEAR)
    except (TypeError, ValueError) as error:
        raise type(error)(f"augmentation: affine is refused by torchvision: {error}") from None
