"""CUHK01: 971 persons, two images from each of two cameras."""

from __future__ import annotations

import os
import re

from ..records import ImageRecord, ReidDataset, SplitCounts
from .listing import find_root, list_images
from .options import check_choice, check_integers
from .single_shot import QUERIES, draw_identities, draw_single_shot, seen_by_both

PERSONS, IMAGES_EACH = 971, 4  # HCN, section 4.1, and CSN, section 4.1
NAME = re.compile(r"(?P<identity>\d{4})(?P<number>\d{3})\..*")
LAYOUT = """\
  ROOT (or ROOT/CUHK01, ROOT/campus)/
    campus/  0001001.png ...  (4 digits IDENTITY, 3 digits NUMBER: 1 and 2 of one camera, 3 and 4 of another)
    or the images themselves"""


def read_cuhk01(
    root: str | os.PathLike[str],
    *,
    test_identities: int = 100,
    split: int = 0,
    draws: int = 10,
    queries: str = "one",
    seed: int = 0,
) -> ReidDataset:
    """Reads CUHK01 (HCN, section 4.1: every person is for training; CSN, section 4.1: 871 and 100).

    Protocol: single-shot. Test persons are drawn at random in every split; one image of the second camera
    is a person's gallery, one of the first the query, drawn anew in every draw; results are means over draws,
    and over splits, each of which is another training run.

    Args:
        root: the dataset's folder, or the one that it lies in.
        test_identities: 100 or 485, as is usual, or 0: all 971 persons are for training, and there are no
            draws, so that the dataset can only be a part of ``combined``.
        split: which of the random splits, at least 0.
        draws: of query and gallery images, at least 1.
        queries: ``"one"`` image of a test person, or ``"all"`` of the first camera.
        seed: at least 0. Draw d of split s follows from ``seed``, s and d alone.

    Raises:
        FileNotFoundError: the folder has another layout.
        ValueError: an option is out of range, an image is misnamed or empty, or persons are too few.

    Example:
        >>> dataset = read_cuhk01("/data/CUHK01", split=2)
        >>> dataset.num_classes, len(dataset.draws)
        (871, 10)
    """
    name = "cuhk01"
    numbers = ((split, "split", 0), (draws, "draws", 1), (seed, "seed", 0))
    check_integers(name, (test_identities, "test_identities", 0), *numbers)
    check_choice(name, queries, "queries", QUERIES)
    path = find_root(root, name, (), LAYOUT)
    folder = next((path / f for f in ("CUHK01/campus", "campus", "CUHK01") if (path / f).is_dir()), path)
    records = []
    for image in list_images(folder, name):
        match = NAME.fullmatch(image.name)
        if match is None or not 1 <= int(match["number"]) <= IMAGES_EACH:
            raise ValueError(
                f"{name}: {image} must be named IDENTITYNUMBER, number 001 to 004, as in 0001001.png"
            )
        camera = 1 if int(match["number"]) <= IMAGES_EACH // 2 else 2
        records.append(ImageRecord(str(image), int(match["identity"]), camera))
    if not records:
        raise FileNotFoundError(f"{name}: {folder} has no images. Looked for:\n{LAYOUT}")
    if test_identities == 0:
        published = SplitCounts(PERSONS, PERSONS * IMAGES_EACH)
        return ReidDataset(name, str(path), tuple(records), (), published=published)
    both = seen_by_both(records, (1, 2))
    test, _ = draw_identities(both, (test_identities,), split=split, seed=seed, name=name)
    tested = [record for record in records if record.identity in test]
    retrieval = draw_single_shot(tested, cameras=(1, 2), draws=draws, seed=(seed, split), queries=queries)
    train = PERSONS - test_identities
    asked = test_identities * (1 if queries == "one" else IMAGES_EACH // 2)
    return ReidDataset(
        name,
        str(path),
        tuple(record for record in records if record.identity not in test),
        retrieval,
        same_camera_is_junk=False,
        published=SplitCounts(train, train * IMAGES_EACH, test_identities, asked, test_identities),
    )
