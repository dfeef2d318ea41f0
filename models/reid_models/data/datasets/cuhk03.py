"""CUHK03 by the new protocol: 767 persons for training, 700 for test, hand-labelled or detected boxes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .cuhk03_images import BOXES, FOLDERS, NESTED, find_images
from .cuhk03_images import LAYOUT as IMAGES_LAYOUT
from .cuhk03_images import NAME as IMAGE_NAME
from .listing import list_images, named_record
from .options import check_choice, check_integers
from .single_shot import draw_identities

#: HCN, section 4.1; the sizes of queries and gallery are the protocol's.
COUNTS = {
    "labelled": SplitCounts(767, 7368, 700, 1400, 5328),
    "detected": SplitCounts(767, 7365, 700, 1400, 5332),
}
TRAIN_IDENTITIES = 767
FILES = {
    "labelled": "cuhk03_new_protocol_config_labeled.mat",
    "detected": "cuhk03_new_protocol_config_detected.mat",
}
KEYS = ("train_idx", "query_idx", "gallery_idx", "labels", "filelist")
SPLITS = ("bounding_box_train", "query", "bounding_box_test")
NAME = re.compile(r"(?P<identity>\d{4})_c(?P<camera>\d)_.*")
FORM = "IDENTITY_cCAMERA_NUMBER, as in 0001_c1_1.png"
LAYOUT = f"""\
{IMAGES_LAYOUT}
    and cuhk03_new_protocol_config_labeled.mat, ..._detected.mat
  or ROOT/labeled/, ROOT/detected/ with the folders {", ".join(SPLITS)}:  0001_c1_1.png ..."""


def read_cuhk03(
    root: str | os.PathLike[str], *, boxes: str = "labelled", split: int | None = None, seed: int = 0
) -> ReidDataset:
    """Reads CUHK03 by the new protocol (HCN, section 4.1; HENet, section 4.2).

    Protocol: gallery images of a query's identity from its own camera are junk. Which images belong to a
    split the protocol's .mat file says, or the folders that lie there.

    Args:
        root: the dataset's folder.
        boxes: ``"labelled"`` by hand, or ``"detected"``.
        split: None for the protocol's own split; a number for one of many at random (HENet speaks of
            twenty): 767 persons for training; of the others one image from each camera that has two or more
            is a query, the rest are the gallery. Split s follows from ``seed`` and s alone.
        seed: at least 0.

    Raises:
        FileNotFoundError: the folder has another layout, or an image that the protocol names is missing.
        ValueError: an option is out of range, or a file is not of this protocol.
        ModuleNotFoundError: images are to be read from ``cuhk-03.mat``, which needs h5py.

    Example:
        >>> dataset = read_cuhk03("/data/cuhk03_release", boxes="detected")
        >>> verify_split(dataset)
        []
    """
    name = "cuhk03"
    check_choice(name, boxes, "boxes", BOXES)
    check_integers(name, (seed, "seed", 0), *(() if split is None else ((split, "split", 0),)))
    path = Path(root)
    sorted_images = _find_sorted(path, boxes)
    train, query, gallery = (
        _read_listed(path, boxes, name) if sorted_images is None else _read_sorted(sorted_images, name)
    )
    published: SplitCounts | None = COUNTS[boxes]
    if split is not None:
        train, query, gallery = _redrawn([*train, *query, *gallery], split, seed, name)
        published = SplitCounts(TRAIN_IDENTITIES, test_identities=COUNTS[boxes].test_identities)
    return ReidDataset(
        f"{name}_{boxes}", str(path), train, (RetrievalSplit(query, gallery),), published=published
    )


Splits = tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...], tuple[ImageRecord, ...]]


def _find_sorted(root: Path, boxes: str) -> Path | None:
    """The folder in which images lie by split."""
    folders = (root / nested / own for nested in NESTED for own in FOLDERS[boxes])
    return next((folder for folder in folders if (folder / SPLITS[0]).is_dir()), None)


def _read_sorted(folder: Path, name: str) -> Splits:
    train, query, gallery = (
        tuple(named_record(image, NAME, FORM, name) for image in list_images(folder / split, name))
        for split in SPLITS
    )
    return train, query, gallery


def _read_listed(root: Path, boxes: str, name: str) -> Splits:
    """The images that the protocol's file names; the file is checked before images are looked for."""
    file = _find_protocol(root, boxes, name)
    protocol = _read_protocol(file, name)
    names, labels = protocol["filelist"], protocol["labels"]
    folder = find_images(root, boxes, name)
    images = {image.stem: image for image in list_images(folder, name)}

    def records(split: str) -> tuple[ImageRecord, ...]:
        found = []
        for index in protocol[split]:
            stem = Path(names[index]).stem
            if stem not in images:
                raise FileNotFoundError(
                    f"{name}: {folder / names[index]} is in {file.name} but does not exist"
                )
            match = IMAGE_NAME.fullmatch(names[index])
            assert match is not None  # _read_protocol has looked
            found.append(ImageRecord(str(images[stem]), int(labels[index]), int(match["view"])))
        return tuple(found)

    return records("train_idx"), records("query_idx"), records("gallery_idx")


def _find_protocol(root: Path, boxes: str, name: str) -> Path:
    files = (root / nested / FILES[boxes] for nested in NESTED)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        kind = "folder" if not root.is_dir() else f"folder with {FILES[boxes]}"
        raise FileNotFoundError(f"{name}: root must be a {kind}, got {root}. Looked for:\n{LAYOUT}")
    return file


def _read_protocol(file: Path, name: str) -> dict[str, Any]:
    """The protocol's lists: indices from 0, labels, and names of images.

    Raises:
        ValueError: the file is not of this protocol, or of another version.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    wanted = f"{name}: {file} must be the new protocol's file"
    try:
        content = loadmat(file)
    except (MatReadError, NotImplementedError, ValueError, TypeError) as error:  # MATLAB 7.3, or no .mat file
        raise ValueError(f"{wanted}, MATLAB 5 ({str(error) or type(error).__name__})") from None
    missing = [key for key in KEYS if key not in content]
    if missing:
        got = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
        raise ValueError(f"{wanted}, which has {', '.join(KEYS)}: no {', '.join(missing)}, got {got}")
    names = [str(np.ravel(cell)[0]) if np.size(cell) else "" for cell in content["filelist"].ravel()]
    labels = content["labels"].ravel().astype(int)
    if len(labels) != len(names):
        raise ValueError(f"{wanted}: it has {len(names)} images in filelist, but {len(labels)} labels")
    for image in names:
        if IMAGE_NAME.fullmatch(image) is None:
            raise ValueError(f"{wanted}: images in filelist are PAIR_PERSON_VIEW_NUMBER.png, got {image!r}")
    protocol: dict[str, Any] = {"filelist": names, "labels": labels}
    for key in KEYS[:3]:
        indices = content[key].ravel().astype(int)
        if indices.size == 0 or indices.min() < 1 or indices.max() > len(names):
            raise ValueError(f"{wanted}: {key} must be numbers of its {len(names)} images, counted from 1")
        protocol[key] = indices - 1
    return protocol


def _redrawn(records: Iterable[ImageRecord], split: int, seed: int, name: str) -> Splits:
    """Persons for training, queries and gallery drawn anew from all images."""
    records = tuple(sorted(records, key=lambda record: record.path))
    everyone = {record.identity for record in records}
    train, test = draw_identities(everyone, (TRAIN_IDENTITIES,), split=split, seed=seed, name=name)
    views: dict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
    for record in records:
        if record.identity in test:
            views[record.identity, record.camera].append(record)
    random = np.random.default_rng((seed, split, 1))
    query: list[ImageRecord] = []
    gallery: list[ImageRecord] = []
    for _, images in sorted(views.items()):
        chosen = int(random.integers(len(images))) if len(images) > 1 else None
        for place, image in enumerate(images):
            (query if place == chosen else gallery).append(image)
    return tuple(r for r in records if r.identity in train), tuple(query), tuple(gallery)
