"""Made-up identities, for trying things without a dataset."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..records import ImageRecord, ReidDataset
from .options import check_integers
from .splitting import SplitRule, check_fraction, split_at_random

PATTERN = 4  # an identity is a smooth pattern from 4 x 4 random colours
CLUTTER = 0.35  # the share in an image of a pattern that is of that image alone
CAMERA_GAIN = 0.3
NOISE = 0.05


def make_synthetic(
    *,
    identities: int = 32,
    cameras: int = 3,
    images_per_camera: int = 2,
    size: Sequence[int] = (64, 64),
    train_fraction: float = 0.5,
    seed: int = 0,
) -> ReidDataset:
    """A dataset of random colour patterns that can be learned, in memory, the same for the same arguments.

    An identity is a smooth pattern; a camera changes the strength of each colour; every image has clutter of
    its own over it, and noise. Split as :func:`read_folder` does, with its protocol.

    Args:
        identities: at least 2.
        cameras: at least 2.
        images_per_camera: of each identity, at least 1.
        size: height and width of the images, at least 8.
        train_fraction: share of identities for training, in (0, 1).
        seed: at least 0.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> dataset = make_synthetic(identities=8, cameras=2)
        >>> dataset.num_classes, len(dataset.train)
        (4, 16)
    """
    name = "synthetic"
    check_fraction(train_fraction, name)
    if len(size) != 2:
        raise ValueError(f"{name}: size must be (height, width), got {tuple(size)}")
    check_integers(
        name,
        (identities, "identities", 2),
        (cameras, "cameras", 2),
        (images_per_camera, "images_per_camera", 1),
        (size[0], "size", 8),
        (size[1], "size", 8),
        (seed, "seed", 0),
    )
    random = np.random.default_rng(seed)
    patterns = _smooth(random, identities, size)
    gains = 1 + CAMERA_GAIN * random.uniform(-1, 1, (cameras, 3, 1, 1)).astype(np.float32)
    records = []
    for identity in range(identities):
        for camera in range(cameras):
            for number, clutter in enumerate(_smooth(random, images_per_camera, size)):
                image = gains[camera] * ((1 - CLUTTER) * patterns[identity] + CLUTTER * clutter)
                image += NOISE * random.standard_normal(image.shape, np.float32)
                path = f"synthetic/{identity:04}/{camera:02}/{number:03}.png"
                records.append(ImageRecord(path, identity, camera, _encode(image)))
    return split_at_random(records, SplitRule(train_fraction, seed), name, "in memory")


def _smooth(random: np.random.Generator, count: int, size: Sequence[int]) -> np.ndarray:
    """Smooth colour patterns (count, 3, H, W) in [0, 1]."""
    coarse = torch.from_numpy(random.random((count, 3, PATTERN, PATTERN), np.float32))
    patterns: np.ndarray = F.interpolate(coarse, tuple(size), mode="bicubic").clamp(0, 1).numpy()
    return patterns


def _encode(image: np.ndarray) -> bytes:
    """An image (3, H, W), in [0, 1] or cut off there, as PNG."""
    stream = io.BytesIO()
    Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()
