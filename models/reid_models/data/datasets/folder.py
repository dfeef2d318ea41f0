"""A folder of one's own: ``IDENTITY/*`` or ``IDENTITY/CAMERA/*``."""

from __future__ import annotations

import os
from pathlib import Path

from ..records import ReidDataset, RetrievalSplit
from .listing import IMAGE_SUFFIXES, find_root, list_folders, list_images
from .naming import Named, number_records
from .splitting import SplitRule, check_fraction, split_at_random, with_protocol

LAYOUT = f"""\
  ROOT/IDENTITY/CAMERA/* or, where cameras are not known, ROOT/IDENTITY/*, to be split at random,
  or the same in ROOT/train, ROOT/query and ROOT/gallery; images are {", ".join(IMAGE_SUFFIXES)}"""
FOLDERS = ("train", "query", "gallery")


def read_folder(
    root: str | os.PathLike[str],
    *,
    train_fraction: float = 0.5,
    seed: int = 0,
    closed_set: bool = False,
    leave_one_out: bool = False,
    same_camera_counts: bool | None = None,
) -> ReidDataset:
    """Reads a folder of images sorted by identity and, where it is known, camera.

    With folders ``train``, ``query`` and ``gallery`` those are the splits. Otherwise identities are split at
    random. Of the test ones, one image from each camera becomes a query, and all are the gallery, where the
    query's own camera is junk (as in VeRi-776); identities that only one camera saw are never queries. Where
    no identity was seen by two cameras, or none is known, cameras don't count: half of each test identity's
    images are queries, the others the gallery.

    Images of an identity ``unknown`` are never trained on or asked for, and distractors in the gallery; those
    of an identity ``-1`` are junk.

    Args:
        root: the folder.
        train_fraction: share of identities for training, in (0, 1), where they are split at random; of a
            closed set, of each one's images.
        seed: of the random split, at least 0.
        closed_set: the identities of training are those of test, as in a catalogue of known animals. Split at
            random: the training images are the gallery, all others the queries.
        leave_one_out: where images are split at random: every test image is a query among all the others.
        same_camera_counts: whether right images by the query's own camera count; None: as described.

    Raises:
        FileNotFoundError: the folder has another layout; the message shows the one looked for.
        ValueError: an image is empty, a split is, or no query has a right image that counts.

    Example:
        >>> dataset = read_folder("my_images")  # my_images/red_van/gate_2/0001.jpg ...
        >>> dataset = read_folder("my_fish", leave_one_out=True)  # my_fish/nemo/0001.jpg ...
    """
    name = "folder"
    check_fraction(train_fraction, name)
    rule = SplitRule(train_fraction, seed, closed_set, leave_one_out, same_camera_counts)
    path = find_root(root, name, (), LAYOUT)
    if all((path / split).is_dir() for split in FOLDERS):
        train, query, gallery = number_records([list_named(path / split, name) for split in FOLDERS])
        return with_protocol(name, str(path), train, RetrievalSplit(query, gallery), rule)
    (records,) = number_records([list_named(path, name)])
    return split_at_random(records, rule, name, str(path))


def list_named(root: Path, name: str) -> list[Named]:
    """Images of ``root/identity/*`` and ``root/identity/camera/*``.

    Raises:
        FileNotFoundError: images at other levels, in which case the layout is another one, or none at all.
    """
    found: list[Named] = []
    misplaced = list_images(root, name)
    for identity in list_folders(root):
        found += [Named(str(image), identity.name) for image in list_images(identity, name)]
        for camera in list_folders(identity):
            found += [Named(str(image), identity.name, camera.name) for image in list_images(camera, name)]
            misplaced += [image for folder in list_folders(camera) for image in list_images(folder, name)]
    if misplaced:
        raise FileNotFoundError(
            f"{name}: {misplaced[0]} is not in a folder of an identity or a camera. Looked for:\n{LAYOUT}"
        )
    if not found:
        raise FileNotFoundError(f"{name}: {root} has no images. Looked for:\n{LAYOUT}")
    return found
