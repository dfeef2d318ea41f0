"""CUHK03 by the new protocol, from small files in its own formats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from reid_models.data import (
    ReidDataset,
    SplitCounts,
    count_split,
    decode_image,
    read_cuhk03,
    verify_split,
)
from reid_models.data.datasets import cuhk03
from reid_models.data.records import identities

from .person_support import EMPTY, LABELS, pixels_of, protocol

h5py = pytest.importorskip("h5py")


def check_protocol(dataset: ReidDataset) -> None:
    assert identities(dataset.train) == {1, 3, 5, 7, 9, 11, 13}
    (split,) = dataset.draws
    assert identities(split.query) == identities(split.gallery) == {2, 4, 6, 8, 10, 12}
    assert Counter(record.camera for record in split.query) == {1: 6, 2: 6}
    assert len(split.gallery) == 6 * 8 - len(EMPTY[1, 2]) and dataset.same_camera_is_junk


def save(root: Path, changes: dict[str, Any], without: str = "") -> None:
    content = {key: value for key, value in (protocol() | changes).items() if key != without}
    savemat(root / cuhk03.FILES["labelled"], content)


@pytest.mark.parametrize("boxes", ["labelled", "detected"])
def test_cuhk03_from_the_mat_file(released: Path, boxes: str) -> None:
    dataset = read_cuhk03(released, boxes=boxes)
    check_protocol(dataset)
    assert dataset.name == f"cuhk03_{boxes}" and dataset.published == cuhk03.COUNTS[boxes]
    assert read_cuhk03(released, boxes=boxes) == dataset  # from the images that are there now
    folder = released / "cuhk03_release" / ("images_labeled" if boxes == "labelled" else "images_detected")
    assert len(list(folder.iterdir())) == 13 * 10 - sum(map(len, EMPTY.values()))
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == [folder.name]  # nothing is left over
    for record in (*dataset.train, *dataset.draws[0].query):
        pair, person, _, number = map(int, Path(record.path).stem.split("_"))
        assert (decode_image(record).permute(1, 2, 0).numpy() == pixels_of(pair, person, number)).all()
        assert record.identity == LABELS[pair, person] and record.camera == (1 if number <= 5 else 2)


def test_cuhk03_from_a_folder_of_images(released: Path) -> None:
    expected = read_cuhk03(released)
    images = released / "cuhk03_release" / "images_labeled"
    images.rename(released / "labeled")
    (released / "cuhk03_release" / "cuhk-03.mat").unlink()
    dataset = read_cuhk03(released)
    check_protocol(dataset)
    assert [(r.identity, r.camera) for r in dataset.train] == [(r.identity, r.camera) for r in expected.train]


def test_cuhk03_from_folders_of_splits(tmp_path: Path) -> None:
    names = ["bounding_box_train/0003_c1_21.png", "query/0001_c1_1.png", "bounding_box_test/0001_c2_7.png"]
    for name in names:
        image = tmp_path / "cuhk03-np" / "detected" / name
        image.parent.mkdir(parents=True)
        Image.new("RGB", (4, 8)).save(image)
    dataset = read_cuhk03(tmp_path, boxes="detected")
    assert count_split(dataset) == SplitCounts(1, 1, 1, 1, 1)
    assert dataset.draws[0].gallery[0].camera == 2
    assert len(verify_split(dataset)) == 5
    with pytest.raises(
        FileNotFoundError, match=r"root must be a folder with cuhk03_new_protocol_config_labeled"
    ):
        read_cuhk03(tmp_path)


def test_cuhk03_split_at_random(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuhk03, "TRAIN_IDENTITIES", 7)
    dataset = read_cuhk03(released, split=3)
    assert dataset.num_classes == 7 and dataset == read_cuhk03(released, split=3)
    (split,) = dataset.draws
    assert len(identities(split.gallery)) == 6
    views = Counter((record.identity, record.camera) for record in split.query)
    assert set(views.values()) == {1}  # one image of each camera that has two
    assert not set(split.query) & set(split.gallery)
    everything = read_cuhk03(released)
    count = len(everything.train) + sum(len(part) for part in vars(everything.draws[0]).values())
    assert len(dataset.train) + len(split.query) + len(split.gallery) == count
    others = {read_cuhk03(released, split=s).train for s in range(4)} | {
        read_cuhk03(released, split=3, seed=1).train
    }
    assert len(others) == 5


@pytest.mark.parametrize(
    ("changes", "without", "message"),
    [
        (
            {},
            "query_idx",
            r"config_labeled\.mat must be the new protocol's file, which has .*: no query_idx, got",
        ),
        ({"labels": np.arange(3)}, "", r"it has 121 images in filelist, but 3 labels"),
        ({"train_idx": np.array([0, 1])}, "", r"train_idx must be numbers of its 121 images, counted from 1"),
        ({"gallery_idx": np.array([122])}, "", r"gallery_idx must be numbers of its 121 images"),
        (
            {"filelist": np.array([["a.png"]], object), "labels": np.ones(1)},
            "",
            r"filelist are PAIR_.*, got 'a\.png'",
        ),
    ],
    ids=range(5),
)
def test_cuhk03_with_a_protocol_of_another_version(
    released: Path, changes: dict[str, Any], without: str, message: str
) -> None:
    save(released, changes, without)
    with pytest.raises(ValueError, match=message):
        read_cuhk03(released)
    assert not (released / "cuhk03_release" / "images_labeled").exists()  # checked before anything is written


def test_cuhk03_with_files_that_are_no_mat_files(released: Path) -> None:
    file = released / cuhk03.FILES["labelled"]
    with h5py.File(file, "w") as content:
        content["train_idx"] = [1]
    with pytest.raises(ValueError, match=r"must be the new protocol's file, MATLAB 5"):
        read_cuhk03(released)
    file.write_text("no .mat file")
    with pytest.raises(ValueError, match=r"must be the new protocol's file, MATLAB 5"):
        read_cuhk03(released)
    save(released, {})
    mat = released / "cuhk03_release" / "cuhk-03.mat"
    with h5py.File(mat, "w") as content:
        content["detected"] = [1]
    with pytest.raises(ValueError, match=r"must be the file released, which has labeled, got detected"):
        read_cuhk03(released)
    mat.write_text("no .mat file")
    with pytest.raises(ValueError, match=r"cuhk-03\.mat must be the file released, MATLAB 7\.3"):
        read_cuhk03(released)
    mat.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no images of labelled boxes\. Looked for:\n"):
        read_cuhk03(released)


def test_cuhk03_with_an_image_missing(released: Path) -> None:
    read_cuhk03(released)
    (released / "cuhk03_release" / "images_labeled" / "1_003_2_07.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1_003_2_07\.png is in cuhk03_new_protocol_config_labeled\.mat but"
    ):
        read_cuhk03(released)
