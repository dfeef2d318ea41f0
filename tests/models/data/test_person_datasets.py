"""CUHK03, CUHK01, VIPeR and combined sets, on small files in the datasets' own formats."""

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
    read_combined,
    read_cuhk01,
    read_cuhk03,
    read_cuhk03_old,
    read_dataset,
    read_viper,
    verify_split,
)
from reid_models.data.datasets import cuhk01, cuhk03, cuhk03_old, viper
from reid_models.data.records import identities

h5py = pytest.importorskip("h5py")

PERSONS = {1: 6, 2: 3, 3: 2, 4: 2}  # of each pair of cameras
LABELS = {
    key: label for label, key in enumerate(((p, i) for p, n in PERSONS.items() for i in range(1, n + 1)), 1)
}
EMPTY = {
    (1, 2): {4, 5, 9, 10},
    (2, 1): {6, 7, 8, 9, 10},
}  # places without an image; 2_001 lacks the second view


def pixels_of(pair: int, person: int, number: int) -> np.ndarray:
    """An image (H, W, 3) that tells where it belongs and which way up it is."""
    image = np.full((9, 5, 3), (pair, person, number), np.uint8)
    image[0] = 255
    return image


def write_mat(file: Path) -> None:
    """As MATLAB 7.3 does: cells are references, arrays are transposed, empty ones are two zeros."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        store = content.create_group("#refs#")

        def kept(array: np.ndarray) -> Any:
            name = f"{len(store)}"
            return store.create_dataset(
                name, data=array, dtype=None if array.dtype != object else h5py.ref_dtype
            ).ref

        def cells(references: list[Any], shape: tuple[int, ...]) -> np.ndarray:
            array = np.empty(len(references), object)
            array[:] = references
            return array.reshape(shape)

        for key in ("labeled", "detected"):
            pairs = []
            for pair, persons in PERSONS.items():
                rows = []
                for person in range(1, persons + 1):
                    for number in range(1, 11):
                        gone = number in EMPTY.get((pair, person), ())
                        image = np.zeros(2, np.uint64) if gone else pixels_of(pair, person, number).T
                        rows.append(kept(image))
                pairs.append(kept(cells(rows, (persons, 10)).T))
            content.create_dataset(key, data=cells(pairs, (1, -1)), dtype=h5py.ref_dtype)
        sets = [np.array([[1, 3], [2, 2]], float), np.array([[1, 1], [3, 2]], float)]
        content.create_dataset(
            "testsets", data=cells([kept(s.T) for s in sets], (1, -1)), dtype=h5py.ref_dtype
        )


def protocol() -> dict[str, Any]:
    """The new protocol for these images: persons with an odd label are for training."""
    names = [
        f"{pair}_{person:03}_{1 if number <= 5 else 2}_{number:02}.png"
        for pair, person in LABELS
        for number in range(1, 11)
        if number not in EMPTY.get((pair, person), ())
    ]
    labels = [LABELS[int(name[0]), int(name[2:5])] for name in names]
    train = [i for i, label in enumerate(labels, 1) if label % 2]
    query = [i for i, name in enumerate(names, 1) if i not in train and name[-6:-4] in ("01", "06")]
    gallery = [i for i in range(1, len(names) + 1) if i not in train and i not in query]
    cell = np.empty((len(names), 1), object)
    cell[:, 0] = names
    return {
        "train_idx": np.array(train)[:, None],
        "query_idx": np.array(query)[:, None],
        "gallery_idx": np.array(gallery)[:, None],
        "labels": np.array(labels)[:, None],
        "filelist": cell,
        "camId": np.ones((len(names), 1)),
    }


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A copy as it is distributed: cuhk-03.mat in its folder, the protocol's files beside that."""
    write_mat(tmp_path / "cuhk03_release" / "cuhk-03.mat")
    for file in cuhk03.FILES.values():
        savemat(tmp_path / file, protocol())
    return tmp_path


def check_protocol(dataset: ReidDataset) -> None:
    assert identities(dataset.train) == {1, 3, 5, 7, 9, 11, 13}
    (split,) = dataset.draws
    assert identities(split.query) == identities(split.gallery) == {2, 4, 6, 8, 10, 12}
    assert Counter(record.camera for record in split.query) == {1: 6, 2: 6}
    assert len(split.gallery) == 6 * 8 - len(EMPTY[1, 2]) and dataset.same_camera_is_junk


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


def save(root: Path, changes: dict[str, Any], without: str = "") -> None:
    content = {key: value for key, value in (protocol() | changes).items() if key != without}
    savemat(root / cuhk03.FILES["labelled"], content)


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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuhk03_old, "TEST", 3)
    monkeypatch.setattr(cuhk03_old, "VALIDATION", 2)
    monkeypatch.setattr(cuhk03_old, "TRAIN", 6)
    monkeypatch.setattr(cuhk01, "PERSONS", 7)
    monkeypatch.setattr(viper, "TEST_IDENTITIES", 3)


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


def write_named(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 8)).save(folder / name)


@pytest.fixture
def campus(tmp_path: Path) -> Path:
    write_named(tmp_path / "campus", [f"{i:04}{n:03}.png" for i in range(1, 8) for n in range(1, 5)])
    return tmp_path


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
