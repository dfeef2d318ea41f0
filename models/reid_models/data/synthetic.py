"""Made-up identities, for trying things without a dataset."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .folder import check_fraction, split_identities
from .records import ImageRecord, ReidDataset

PATTERN = 4  # an identity is a smooth pattern from 4 x 4 random colours
NOISE = 0.08
CAMERA_GAIN = 0.25
SHIFT = 0.08  # of the height and width


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

    An identity is a smooth pattern; a camera changes the strength of each colour; every image is shifted and
    noisy. Split as :func:`read_folder` does, with its protocol.

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
    for value, argument, least in (
        (identities, "identities", 2),
        (cameras, "cameras", 2),
        (images_per_camera, "images_per_camera", 1),
        (size[0], "size", 8),
        (size[1], "size", 8),
        (seed, "seed", 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: {argument} must be an int of at least {least}, got {value!r}")
    random = np.random.default_rng(seed)
    patterns = torch.from_numpy(random.random((identities, 3, PATTERN, PATTERN), np.float32))
    images = F.interpolate(patterns, tuple(size), mode="bicubic", align_corners=True).clamp(0, 1).numpy()
    gains = 1 + CAMERA_GAIN * random.uniform(-1, 1, (cameras, 3, 1, 1)).astype(np.float32)
    records = []
    for identity in range(identities):
        for camera in range(cameras):
            for number in range(images_per_camera):
                content = _encode(images[identity] * gains[camera], random)
                path = f"synthetic/{identity:04}/{camera:02}/{number:03}.png"
                records.append(ImageRecord(path, identity, camera, content))
    train, split = split_identities(records, train_fraction, seed, name, "in memory")
    return ReidDataset(name, "in memory", train, (split,))


def _encode(image: np.ndarray, random: np.random.Generator) -> bytes:
    """The image (3, H, W) shifted and with noise, as PNG."""
    shifts = [int(random.integers(-round(SHIFT * n), round(SHIFT * n) + 1)) for n in image.shape[1:]]
    noisy = np.roll(image, shifts, axis=(1, 2)) + NOISE * random.standard_normal(image.shape, np.float32)
    stream = io.BytesIO()
    Image.fromarray((noisy.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()
