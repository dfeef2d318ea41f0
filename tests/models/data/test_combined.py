"""Several datasets as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reid_models.data import (
    SplitCounts,
    read_combined,
    read_cuhk03,
    read_dataset,
)
from reid_models.data.datasets import cuhk01, cuhk03
from reid_models.data.records import identities

SYNTHETIC = {"name": "synthetic", "options": {"identities": 4, "cameras": 2, "size": [8, 8]}}


def test_combined(campus: Path, released: Path, few: None) -> None:
    parts: list[dict[str, Any]] = [
        {"name": "cuhk01", "root": "campus", "options": {"test_identities": 0}},
        {"name": "cuhk03", "root": str(released)},
        {"name": "cuhk03", "root": released, "options": {"boxes": "detected"}, "same_persons_as": 1},
        SYNTHETIC,
    ]
    dataset = read_dataset("combined", campus, datasets=parts, test="cuhk03_detected")
    own = read_cuhk03(released, boxes="detected")
    assert dataset.name == "combined_cuhk03_detected" and dataset.same_camera_is_junk
    assert dataset.num_classes == 7 + 7 + 2
    assert dataset.train_labels == {label: label for label in range(16)}  # identities are the labels
    by_part = [
        identities(r for r in dataset.train if mark in r.path) for mark in ("campus", "images_", "synth")
    ]
    assert by_part == [set(range(7)), set(range(7, 14)), {14, 15}]
    labelled = {Path(r.path).name: r.identity for r in dataset.train if "images_labeled" in r.path}
    detected = {Path(r.path).name: r.identity for r in dataset.train if "images_detected" in r.path}
    assert labelled == detected
    query, expected = dataset.draws[0].query, own.draws[0].query
    assert [r.path for r in query] == [r.path for r in expected]
    assert len(identities(query) | identities(dataset.train)) == len(identities(expected)) + 16
    assert len({r.camera for r in dataset.train}) == 2 + 2 + 2 + 2  # every dataset's are its own
    assert dataset.published == SplitCounts(test_identities=700, query_images=1400, gallery_images=5332)


def test_combined_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """751 + 767 + 971 = 2,489 persons (HCN, Table 1)."""
    from reid_models.data.datasets import market1501

    counts = market1501.COUNTS, cuhk03.COUNTS["labelled"], SplitCounts(cuhk01.PERSONS)
    assert sum(c.train_identities or 0 for c in counts) == 2489


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [{"first_label": 0}, {"first_label": 1}],
            r"labels overlap: synthetic's end at 1, synthetic's begin at 1",
        ),
        (
            [{"first_label": 3}, {"first_label": 0}],
            r"labels must leave no gap, but 2 to 2 are nobody's, before",
        ),
        ([{}, {"first_label": -1}], r"first_label must be an int of at least 0, got -1"),
        (
            [{}, {"same_persons_as": 1}],
            r"same_persons_as must be the place of an earlier dataset, in \[0, 1\), got 1",
        ),
        (
            [{}, {"same_persons_as": 0, "first_label": 2}],
            r"must have first_label or same_persons_as, got both",
        ),
        (
            [{}, {"same_persons_as": 0, "options": {"identities": 40, "size": [8, 8]}}],
            r"must show the same persons as",
        ),
        ([{}, {"offset": 2}], r"unknown field of a dataset of combined 'offset'"),
        ([{"name": "sinthetic"}], r"unknown dataset 'sinthetic'"),
        ([], r"datasets must hold at least one"),
    ],
    ids=range(9),
)
def test_bad_combinations(changes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_combined(datasets=[SYNTHETIC | change for change in changes])


def test_combined_asked_for_tests_that_are_not_there(campus: Path) -> None:
    training = {"name": "cuhk01", "root": str(campus), "options": {"test_identities": 0}}
    with pytest.raises(ValueError, match=r"one of datasets must have test images"):
        read_combined(datasets=[training])
    with pytest.raises(ValueError, match=r"unknown test of combined 'cuhk01' \(known: synthetic\)"):
        read_combined(datasets=[training, SYNTHETIC], test="cuhk01")
    assert read_combined(datasets=[training, SYNTHETIC]).name == "combined_synthetic"
    with pytest.raises(ValueError, match=r"each of datasets must have a name"):
        read_combined(datasets=[{"root": "here"}])
