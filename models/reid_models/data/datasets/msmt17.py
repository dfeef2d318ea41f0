"""MSMT17: 1,041 persons for training, 3,060 for test, fifteen cameras; both releases."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .listing import find_root, read_lines

# 0000_000_01_0303morning_0015_0.jpg: identity, number, camera, time, frame, box
LINE = re.compile(r"(?P<file>\d+/\d+_\d+_(?P<camera>\d+)_[^\s/]+)\s+(?P<identity>\d+)")
FORM = "FOLDER/IDENTITY_NUMBER_CAMERA_... IDENTITY, as in 0000/0000_000_01_0303morning_0015_0.jpg 0"
LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
RELEASES = {"train": "test", "mask_train_v2": "mask_test_v2"}  # folders of the first and the second
NESTED = ("MSMT17_V1", "MSMT17_V2", "MSMT17")
COUNTS = SplitCounts(1041, 32621, 3060, 11659, 82161)  # hybrid attention, Table I: 93,820 for test in all
WITHOUT_VALIDATION = SplitCounts(1041, 30248, 3060, 11659, 82161)
LAYOUT = """\
  ROOT (or ROOT/MSMT17_V1, ROOT/MSMT17_V2, ROOT/MSMT17)/
    train/ (V2: mask_train_v2/)   0000/0000_000_01_0303morning_0015_0.jpg ...
    test/  (V2: mask_test_v2/)    0000/0000_000_01_0303morning_0008_0.jpg ...
    list_train.txt, list_val.txt, list_query.txt, list_gallery.txt: an image and its identity a line"""


def read_msmt17(root: str | os.PathLike[str], *, validation: bool = True) -> ReidDataset:
    """Reads MSMT17 (hybrid attention, section IV-B), of the first release or the second (``mask_..._v2``).

    The lists say which images belong to a split. The release numbers the test's persons from 0 again; here
    they come after those of training, so that no two persons share a number. Protocol: gallery images of a
    query's identity from its own camera are junk.

    Args:
        root: the dataset's folder, or the one that it lies in as ``MSMT17_V1``, ``MSMT17_V2`` or ``MSMT17``.
        validation: whether the images of ``list_val.txt``, of the same persons as the other training images,
            are training images too, as in the published counts (32,621); without them there are 30,248.

    Raises:
        FileNotFoundError: the folder has another layout, or an image of a list is missing.
        ValueError: a line of a list has another form, an image is empty, or a split is.

    Example:
        >>> dataset = read_msmt17("/data/MSMT17_V1")
        >>> dataset.num_classes
        1041
    """
    name = "msmt17"
    path = find_root(root, name, LISTS, LAYOUT, nested=NESTED)
    train_folder = next((folder for folder in RELEASES if (path / folder).is_dir()), None)
    if train_folder is None or not (path / RELEASES[train_folder]).is_dir():
        raise FileNotFoundError(
            f"{name}: {path} must have folders {' or '.join(map(' and '.join, RELEASES.items()))}. "
            f"Looked for:\n{LAYOUT}"
        )
    test_folder = RELEASES[train_folder]
    lists = LISTS[:2] if validation else LISTS[:1]
    train = tuple(record for file in lists for record in _listed(path / file, path / train_folder, name))
    first = max((record.identity for record in train), default=-1) + 1
    query, gallery = (
        tuple(replace(r, identity=first + r.identity) for r in _listed(path / file, path / test_folder, name))
        for file in LISTS[2:]
    )
    counts = COUNTS if validation else WITHOUT_VALIDATION
    return ReidDataset(name, str(path), train, (RetrievalSplit(query, gallery),), published=counts)


def _listed(file: Path, folder: Path, name: str) -> Sequence[ImageRecord]:
    """The images of a list, in its order."""
    records = []
    for number, line in enumerate(read_lines(file, name), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{name}: {file}, entry {number}, must be {FORM}, got {line[:100]!r}")
        image = folder / match["file"]
        try:
            size = os.stat(image).st_size
        except FileNotFoundError:
            raise FileNotFoundError(f"{name}: {image} is in {file.name} but does not exist") from None
        if size == 0:
            raise ValueError(f"{name}: {image} is an empty file")
        records.append(ImageRecord(str(image), int(match["identity"]), int(match["camera"])))
    return records
