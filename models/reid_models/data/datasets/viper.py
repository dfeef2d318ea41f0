"""VIPeR: 632 persons, one image from each of two cameras, split into halves."""

from __future__ import annotations

import os
import re

from ..records import ReidDataset, RetrievalSplit, SplitCounts
from .listing import find_root, list_images, named_record
from .options import check_integers
from .single_shot import draw_identities, seen_by_both

COUNTS = SplitCounts(316, 632, 316, 316, 316)  # CSN, section 4.1
TEST_IDENTITIES = 316
CAMERAS = {"cam_a": 1, "cam_b": 2}
NAME = re.compile(r"(?P<identity>\d{3,4})_\d+\..*")
FORM = "IDENTITY_ANGLE, as in 000_45.bmp"
LAYOUT = """\
  ROOT (or ROOT/VIPeR)/
    cam_a/  000_45.bmp ...
    cam_b/  000_90.bmp ..."""


def read_viper(root: str | os.PathLike[str], *, split: int = 0, seed: int = 0) -> ReidDataset:
    """Reads VIPeR (CSN, section 4.1).

    Protocol: 316 persons for training and 316 for test, drawn anew in every split; results are means over
    splits, each of which is another training run. Queries are camera a's images, camera b's are the gallery,
    one image a person. Split s follows from ``seed`` and s alone.

    Args:
        root: the dataset's folder, or the one that it lies in as ``VIPeR``.
        split: which of the random splits, at least 0; usual are 0 to 9.
        seed: at least 0.

    Raises:
        FileNotFoundError: the folder has another layout.
        ValueError: an option is out of range, an image is misnamed or empty, or persons are too few.

    Example:
        >>> dataset = read_viper("/data/VIPeR", split=3)
        >>> len(dataset.draws[0].gallery)
        316
    """
    name = "viper"
    check_integers(name, (split, "split", 0), (seed, "seed", 0))
    path = find_root(root, name, tuple(CAMERAS), LAYOUT, nested=("VIPeR",))
    views = {}
    for folder, camera in CAMERAS.items():
        images = list_images(path / folder, name)
        views[camera] = [named_record(image, NAME, FORM, name, camera=camera) for image in images]
    records = [record for view in views.values() for record in view]
    both = seen_by_both(records, (1, 2))
    test, train = draw_identities(both, (TEST_IDENTITIES,), split=split, seed=seed, name=name)
    query, gallery = (tuple(r for r in view if r.identity in test) for view in views.values())
    training = tuple(record for record in records if record.identity in train)
    return ReidDataset(
        name,
        str(path),
        training,
        (RetrievalSplit(query, gallery),),
        same_camera_is_junk=False,
        published=COUNTS,
    )
