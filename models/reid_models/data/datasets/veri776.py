"""VeRi-776: 576 vehicles for training, 200 for test, twenty cameras."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .listing import find_root, list_images, named_record, read_lines

NAME = re.compile(r"(?P<identity>\d{4})_c(?P<camera>\d{3})_.*")
FORM = "IDENTITY_cCAMERA_..., as in 0001_c001_00016450_0.jpg"
COUNTS = SplitCounts(576, 37746, 200, 1678, 11579)  # HSGNet, section IV-A
LAYOUT = """\
  ROOT (or ROOT/VeRi)/
    image_train/  0001_c001_00016450_0.jpg ...
    image_query/  0002_c002_00030600_0.jpg ...
    image_test/   0002_c002_00030600_0.jpg ...
    name_train.txt, name_query.txt, name_test.txt (optional: the images of each split, one a line)"""


def read_veri776(root: str | os.PathLike[str]) -> ReidDataset:
    """Reads VeRi-776 (HSGNet, section IV-A).

    Protocol, the official rule: gallery images of a query's identity from its own camera are junk. So the
    queries, which are in the gallery as well, never find themselves. Where the official lists
    (``name_train.txt`` and so on) are present they say which images belong to a split.

    Args:
        root: the dataset's folder, or the one that it lies in as ``VeRi``.

    Raises:
        FileNotFoundError: the folder has another layout, or an image of a list is missing.
        ValueError: an image is misnamed or empty, or a split is.

    Example:
        >>> dataset = read_veri776("/data/VeRi")
        >>> dataset.num_classes
        576
    """
    name = "veri776"
    folders = {"train": "image_train", "query": "image_query", "test": "image_test"}
    path = find_root(root, name, tuple(folders.values()), LAYOUT, nested=("VeRi",))

    def records(split: str) -> tuple[ImageRecord, ...]:
        images = list_images(path / folders[split], name)
        names = path / f"name_{split}.txt"
        if names.exists():
            images = _listed(images, names, path / folders[split], name)
        return tuple(named_record(image, NAME, FORM, name) for image in images)

    draws = (RetrievalSplit(records("query"), records("test")),)
    return ReidDataset(name, str(path), records("train"), draws, published=COUNTS)


def _listed(images: list[Path], names: Path, folder: Path, name: str) -> list[Path]:
    """The images that a list names, in its order."""
    by_name = {image.name: image for image in images}
    listed = read_lines(names, name)
    missing = [line for line in listed if line not in by_name]
    if missing:
        count = f"{len(missing)} such images"
        raise FileNotFoundError(
            f"{name}: {folder / missing[0]} is in {names.name} but does not exist ({count})"
        )
    return [by_name[line] for line in listed]
