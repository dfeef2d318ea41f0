"""Reads the real images that come with ``reid_models`` straight from their archive."""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ARCHIVE = Path(__file__).parents[1] / "models/reid_models/data/builtin/omniglot_veri.tar.xz"
NAME = re.compile(r"(?P<identity>\d{4})_c(?P<camera>\d{3})_\d+_\d\.jpg$")


@dataclass(frozen=True)
class Images:
    """One split: ``pixels`` (N, 105, 105) with ink 1 and paper 0, and who drew what."""

    pixels: Tensor
    identities: Tensor
    cameras: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def load(split: str) -> Images:
    """The images of ``"train"``, ``"test"`` (the gallery) or ``"query"``."""
    pixels, identities, cameras = [], [], []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            match = NAME.search(member.name)
            if match is None or f"/image_{split}/" not in member.name:
                continue
            file = archive.extractfile(member)
            assert file is not None
            grey = np.asarray(Image.open(io.BytesIO(file.read())).convert("L"), dtype=np.float32)
            pixels.append(torch.from_numpy(1 - grey / 255))
            identities.append(int(match["identity"]))
            cameras.append(int(match["camera"]))
    if not pixels:
        raise ValueError(f'split must be "train", "test" or "query", got {split!r}')
    return Images(torch.stack(pixels), torch.tensor(identities), torch.tensor(cameras))
