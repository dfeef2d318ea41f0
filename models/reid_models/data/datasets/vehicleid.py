"""VehicleID: test sets of 800, 1600 and 2400 vehicles, split at random into queries and gallery."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .listing import find_root, list_images, read_lines
from .options import check_integers

TEST_SIZES = (800, 1600, 2400)
CONVENTIONS = ("gallery_one", "query_one")
LAYOUT = """\
  ROOT (or ROOT/VehicleID_V1.0)/
    image/             0000001.jpg ...
    train_test_split/  train_list.txt, test_list_800.txt, test_list_1600.txt, test_list_2400.txt
                       (lines "IMAGE IDENTITY", as in "0000001 12", without .jpg)"""


def read_vehicleid(
    root: str | os.PathLike[str],
    *,
    test_size: int = 800,
    convention: str = "gallery_one",
    draws: int = 10,
    seed: int = 0,
) -> ReidDataset:
    """Reads VehicleID (HSGNet, section IV-A; Test800, Test1600 and Test2400 in Table II).

    Protocol: of each test identity one image is drawn at random; results are means over the draws. There are
    no cameras (all are 0) and no junk. Draw d depends on ``seed`` and d alone.

    Args:
        root: the dataset's folder, or the one that it lies in as ``VehicleID_V1.0``.
        test_size: 800, 1600 or 2400 identities.
        convention: ``"gallery_one"``: the image drawn is the gallery's, the rest are queries, as is usual;
            ``"query_one"``: the other way round, as the paper's text has it. The image of an identity with
            only one is in the gallery either way, for as a query it would have nothing to find.
        draws: how many, at least 1.
        seed: at least 0.

    Raises:
        FileNotFoundError: the folder has another layout, or an image of a list is missing.
        ValueError: an option is out of range, a line of a list is malformed, or a split is empty.

    Example:
        >>> dataset = read_vehicleid("/data/VehicleID_V1.0", test_size=1600)
        >>> len(dataset.draws), len(dataset.draws[0].gallery)
        (10, 1600)
    """
    name = "vehicleid"
    if test_size not in TEST_SIZES:
        raise ValueError(f"{name}: test_size must be 800, 1600 or 2400, got {test_size!r}")
    if convention not in CONVENTIONS:
        raise ValueError(f'{name}: convention must be "gallery_one" or "query_one", got {convention!r}')
    check_integers(name, (draws, "draws", 1), (seed, "seed", 0))
    lists = ("train_test_split/train_list.txt", f"train_test_split/test_list_{test_size}.txt")
    path = find_root(root, name, ("image", *lists), LAYOUT, nested=("VehicleID_V1.0",))
    images = {image.stem: str(image) for image in list_images(path / "image", name)}
    train, test = (_records(path / file, images, path / "image", name) for file in lists)
    splits = tuple(_draw(test, convention, np.random.default_rng((seed, draw))) for draw in range(draws))
    # HSGNet, section IV-A; what the gallery holds follows from the protocol, with one image an identity.
    one_each = convention == "gallery_one"
    published = SplitCounts(test_identities=test_size, gallery_images=test_size) if one_each else None
    return ReidDataset(
        f"{name}_test{test_size}", str(path), train, splits, same_camera_is_junk=False, published=published
    )


def _records(file: Path, images: Mapping[str, str], folder: Path, name: str) -> tuple[ImageRecord, ...]:
    records = []
    for number, line in enumerate(read_lines(file, name), 1):
        words = line.split()
        if len(words) != 2 or not words[1].isdigit():
            raise ValueError(f'{name}: line {number} of {file} must be "IMAGE IDENTITY", got {line!r}')
        image, identity = words
        if image not in images:
            raise FileNotFoundError(f"{name}: {folder / image}.jpg is in {file.name} but does not exist")
        records.append(ImageRecord(images[image], int(identity), 0))
    return tuple(records)


def _draw(test: tuple[ImageRecord, ...], convention: str, random: np.random.Generator) -> RetrievalSplit:
    """One image of each identity to one side, the rest to the other."""
    by_identity: dict[int, list[ImageRecord]] = defaultdict(list)
    for record in test:
        by_identity[record.identity].append(record)
    query: list[ImageRecord] = []
    gallery: list[ImageRecord] = []
    for _, records in sorted(by_identity.items()):
        one = records.pop(int(random.integers(len(records))))
        if convention == "gallery_one" or not records:
            gallery.append(one)
            query += records
        else:
            query.append(one)
            gallery += records
    return RetrievalSplit(tuple(query), tuple(gallery))
