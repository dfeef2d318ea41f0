"""CUHK03 by the old protocol: 1,160 persons for training, 100 for validation, 100 for test, single-shot."""

from __future__ import annotations

import os
from pathlib import Path

from ..records import ReidDataset, SplitCounts
from .cuhk03_images import BOXES, MAT, VIEWS, find_images, find_mat, list_records, read_test_sets
from .options import check_choice, check_integers
from .single_shot import QUERIES, draw_identities, draw_single_shot, seen_by_both

PAIRS = 3  # of cameras, with 843 + 440 + 77 = 1,360 persons; pairs 4 and 5 came later
VALIDATION, TEST = 100, 100
TRAIN = 1160  # CSN, section 4.1
TEST_SETS = ("seed", "file")
PARTS = ("test", "validation")


def read_cuhk03_old(
    root: str | os.PathLike[str],
    *,
    boxes: str = "labelled",
    split: int = 0,
    test_sets: str = "seed",
    part: str = "test",
    draws: int = 10,
    queries: str = "one",
    seed: int = 0,
) -> ReidDataset:
    """Reads CUHK03 by the old protocol (CSN, section 4.1).

    Protocol: 1,360 persons, those of the first three pairs of cameras; 100 are for test, 100 for validation,
    the others for training. Single-shot: one image of the second view is a person's gallery, one of the first
    the query, drawn anew in every draw; results are means over draws, and over splits, each of which is
    another training run (usual are twenty).

    Args:
        root: the dataset's folder.
        boxes: ``"labelled"`` by hand, or ``"detected"``.
        split: which of the splits, at least 0.
        test_sets: where the test persons of a split come from: ``"seed"``: at random; ``"file"``: the twenty
            sets in ``cuhk-03.mat``, split 0 to 19. Persons for validation are at random either way.
        part: whose images are the draws': those of the persons for ``"test"``, or for ``"validation"``.
        draws: of query and gallery images, at least 1.
        queries: ``"one"`` image of a person, or ``"all"`` of the first view.
        seed: at least 0. Draw d of split s follows from ``seed``, s and d alone.

    Raises:
        FileNotFoundError: the folder has another layout.
        ValueError: an option is out of range, an image is misnamed or empty, a file is not the one released,
            or persons are too few.
        ModuleNotFoundError: ``cuhk-03.mat`` is to be read, which needs h5py.

    Example:
        >>> dataset = read_cuhk03_old("/data/cuhk03_release", boxes="detected", test_sets="file", split=7)
        >>> dataset.num_classes, len(dataset.draws[0].gallery)
        (1160, 100)
    """
    name = "cuhk03_old"
    check_integers(name, (split, "split", 0), (draws, "draws", 1), (seed, "seed", 0))
    check_choice(name, boxes, "boxes", BOXES)
    check_choice(name, test_sets, "test_sets", TEST_SETS)
    check_choice(name, part, "part", PARTS)
    check_choice(name, queries, "queries", QUERIES)
    chosen = _file_set(Path(root), split, name) if test_sets == "file" else None
    everything = list_records(find_images(root, boxes, name), name)
    records = [record for record in everything if record.identity < (PAIRS + 1) * 1000]
    both = seen_by_both(records, VIEWS)
    if chosen is None:
        test, validation, _ = draw_identities(both, (TEST, VALIDATION), split=split, seed=seed, name=name)
    else:
        test = chosen
        (validation, _) = draw_identities(both - test, (VALIDATION,), split=split, seed=seed, name=name)
    tested = test if part == "test" else validation
    retrieval = draw_single_shot(
        [record for record in records if record.identity in tested],
        cameras=(VIEWS[0], VIEWS[1]),
        draws=draws,
        seed=(seed, split),
        queries=queries,
    )
    return ReidDataset(
        f"{name}_{boxes}",
        str(root),
        tuple(record for record in records if record.identity not in test | validation),
        retrieval,
        same_camera_is_junk=False,
        published=SplitCounts(TRAIN, None, TEST, TEST if queries == "one" else None, TEST),
    )


def _file_set(root: Path, split: int, name: str) -> set[int]:
    file = find_mat(root)
    if file is None:
        raise FileNotFoundError(f'{name}: test_sets="file" needs {MAT} in {root}')
    sets = read_test_sets(file, name)
    if split >= len(sets):
        raise ValueError(
            f"{name}: split must be in [0, {len(sets)}) with the test sets of {file}, got {split}"
        )
    return sets[split]
