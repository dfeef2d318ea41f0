"""Datasets with one image of a person in the gallery: CUHK03 as of old, CUHK01, VIPeR."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reid_models.data import (
    SplitCounts,
    count_split,
    read_cuhk01,
    read_cuhk03,
    read_cuhk03_old,
    read_dataset,
    read_viper,
    verify_split,
)
from reid_models.data.records import identities

from .person_support import write_named


def test_cuhk03_old(released: Path, few: None) -> None:
    dataset = read_cuhk03_old(released, boxes="detected", draws=4)
    assert (
        verify_split(dataset) == [f"cuhk03_old_detected: test_identities must be 3, got 3 ({released})"][1:]
    )
    assert not dataset.same_camera_is_junk and len(dataset.draws) == 4 and len(set(dataset.draws)) > 1
    assert max(identities(dataset.train)) < 4000  # the fourth pair is not of this protocol
    for split in dataset.draws:
        assert [r.identity for r in split.query] == [r.identity for r in split.gallery]
        assert {r.camera for r in split.query} == {1} and {r.camera for r in split.gallery} == {2}
    validation = read_cuhk03_old(released, boxes="detected", part="validation")
    assert validation.train == dataset.train and len(identities(validation.draws[0].query)) == 2
    assert read_cuhk03_old(released, boxes="detected", draws=2).draws == dataset.draws[:2]
    others = [read_cuhk03_old(released, boxes="detected", split=split).train for split in range(4)]
    assert len(set(others)) == 4


def test_cuhk03_old_all_queries(released: Path, few: None) -> None:
    split = read_cuhk03_old(released, queries="all", draws=1, seed=2).draws[0]
    assert Counter(Counter(r.identity for r in split.gallery).values()) == {1: 3}
    assert set(Counter(r.identity for r in split.query).values()) <= {5, 3}


def test_cuhk03_old_with_the_files_own_test_sets(released: Path, few: None) -> None:
    datasets = [read_cuhk03_old(released, test_sets="file", split=split) for split in range(2)]
    found = [identities(dataset.draws[0].query) for dataset in datasets]
    assert found == [{1003, 2002}, {1001, 3002}]
    with pytest.raises(ValueError, match=r"split must be in \[0, 2\) with the test sets of"):
        read_cuhk03_old(released, test_sets="file", split=2)
    (released / "cuhk03_release" / "cuhk-03.mat").unlink()
    assert read_cuhk03_old(released, split=1).num_classes == 6
    with pytest.raises(FileNotFoundError, match=r'test_sets="file" needs cuhk-03\.mat'):
        read_cuhk03_old(released, test_sets="file")


def test_cuhk01(campus: Path, few: None) -> None:
    dataset = read_cuhk01(campus, test_identities=3, draws=2)
    assert verify_split(dataset) == [] and count_split(dataset) == SplitCounts(4, 16, 3, 3, 3)
    assert read_cuhk01(campus / "campus", test_identities=3, draws=2).draws[0].query == dataset.draws[0].query
    both = read_cuhk01(campus, test_identities=3, queries="all")
    assert verify_split(both) == [] and count_split(both).query_images == 6
    assert both.train == dataset.train != read_cuhk01(campus, test_identities=3, split=1).train


def test_cuhk01_for_training_alone(campus: Path, few: None) -> None:
    dataset = read_cuhk01(campus, test_identities=0)
    assert dataset.draws == () and count_split(dataset) == SplitCounts(7, 28) == dataset.published
    assert verify_split(dataset) == []
    with pytest.raises(ValueError, match=r"cuhk01 .* as it is read has training images alone"):
        read_dataset("cuhk01", campus, test_identities=0)


def test_viper(tmp_path: Path, few: None) -> None:
    for folder, angle in (("cam_a", 45), ("cam_b", 90)):
        write_named(tmp_path / "VIPeR" / folder, [f"{i:03}_{angle}.bmp" for i in range(7)])
    dataset = read_viper(tmp_path)
    assert count_split(dataset) == SplitCounts(4, 8, 3, 3, 3)
    (split,) = dataset.draws
    assert [r.identity for r in split.query] == [r.identity for r in split.gallery]
    assert {r.camera for r in split.query} == {1} and {r.camera for r in split.gallery} == {2}
    assert len({read_viper(tmp_path, split=s).train for s in range(5)}) > 2
    assert read_viper(tmp_path, split=2) == read_viper(tmp_path, split=2)


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        (read_cuhk03, {"boxes": "labeled"}, r'boxes must be "labelled" or "detected", got \'labeled\''),
        (read_cuhk03, {"split": -1}, r"split must be an int of at least 0, got -1"),
        (read_cuhk03_old, {"test_sets": "mat"}, r'test_sets must be "seed" or "file"'),
        (read_cuhk03_old, {"part": "train"}, r'part must be "test" or "validation"'),
        (read_cuhk03_old, {"draws": 0}, r"draws must be an int of at least 1, got 0"),
        (read_cuhk01, {"queries": "two"}, r'queries must be "one" or "all"'),
        (read_cuhk01, {"test_identities": True}, r"test_identities must be an int of at least 0, got True"),
        (read_viper, {"seed": 0.5}, r"seed must be an int of at least 0, got 0.5"),
    ],
)
def test_bad_options(reader: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        reader(tmp_path, **options)


def test_bad_folders(tmp_path: Path, campus: Path) -> None:
    with pytest.raises(ValueError, match=r"a split needs at least 101 identities, got 7"):
        read_cuhk01(campus)
    write_named(tmp_path / "VIPeR" / "cam_a", ["person.bmp"])
    with pytest.raises(FileNotFoundError, match=r"viper: .* has no cam_a, cam_b|has no cam_b"):
        read_viper(tmp_path)
    (tmp_path / "VIPeR" / "cam_b").mkdir()
    with pytest.raises(ValueError, match=r"person\.bmp must be named IDENTITY_ANGLE"):
        read_viper(tmp_path)
    Image.new("RGB", (4, 8)).save(campus / "campus" / "0001005.png")
    with pytest.raises(ValueError, match=r"0001005\.png must be named IDENTITYNUMBER, number 001 to 004"):
        read_cuhk01(campus)
    write_named(tmp_path / "labelled", ["person.png"])
    with pytest.raises(ValueError, match=r"person\.png must be named PAIR_PERSON_VIEW_NUMBER"):
        read_cuhk03_old(tmp_path)
