"""Image records as small pictures for figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torchvision.transforms.v2 import functional

from ..data import ImageRecord, decode_image

LONGEST = 224  # pixels of a picture's longer side; more would not be seen


def load_picture(record: ImageRecord, size: Sequence[int] | None = None) -> np.ndarray:
    """An image as uint8 (H, W, 3): of ``size`` (height, width), or at most 224 pixels long.

    Raises:
        FileNotFoundError, ValueError: as :func:`reid_models.data.decode_image`.
    """
    image = decode_image(record)
    height, width = image.shape[1:]
    scale = min(1.0, LONGEST / max(height, width))
    wanted = [max(1, round(height * scale)), max(1, round(width * scale))] if size is None else list(size)
    if list(image.shape[1:]) != wanted:
        image = functional.resize(image, wanted, antialias=True)
    return image.permute(1, 2, 0).numpy()


def usual_shape(pictures: Sequence[np.ndarray]) -> float:
    """Height over width that most pictures are close to."""
    return float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))


def draw_records(records: Sequence[ImageRecord], count: int, *, seed: int = 0) -> list[ImageRecord]:
    """Some of the records, drawn at random, in their order.

    Raises:
        ValueError: ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"draw_records: count must be at least 1, got {count}")
    rows = np.random.default_rng(seed).permutation(len(records))[:count]
    return [records[int(row)] for row in sorted(rows)]
