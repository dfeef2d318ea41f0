"""Readers on small folders in the datasets' own naming, images, and the identity sampler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reid_models.data import (
    ImageDataset,
    ImageRecord,
    ReidDataset,
    RetrievalSplit,
    SplitCounts,
    check_images,
    count_split,
    decode_image,
    list_datasets,
    make_synthetic,
    read_csv,
    read_dataset,
    read_folder,
    read_market1501,
    read_omniglot,
    read_vehicleid,
    read_veri776,
    verify_split,
)
from reid_models.data.datasets import cuhk03, market1501, veri776


def write_image(
    path: Path, color: tuple[int, int, int] = (200, 30, 60), size: tuple[int, int] = (6, 8)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_images(root: Path, names: Iterable[str]) -> None:
    for name in names:
        write_image(root / name)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    root = tmp_path / "Market-1501-v15.09.15"
    names = {
        "bounding_box_train": [
            "0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.jpg", "0007_c3s3_077419_03.jpg",
        ],
        "query": ["0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg"],
        "bounding_box_test": [
            "0001_c1s1_001051_03.jpg", "0001_c2s1_001976_01.jpg", "0003_c1s6_015971_02.jpg",
            "0000_c1s1_000151_01.jpg", "-1_c1s1_000401_03.jpg",
        ],
    }  # fmt: skip
    for folder, images in names.items():
        write_images(root / folder, images)
    (root / "query" / "Thumbs.db").write_bytes(b"not an image")
    return root


def test_market1501(market: Path) -> None:
    dataset = read_market1501(market)
    assert [(r.identity, r.camera) for r in dataset.train] == [(2, 1), (2, 2), (7, 3)]
    assert dataset.train_labels == {2: 0, 7: 1} and dataset.num_classes == 2
    (split,) = dataset.draws
    assert [(r.identity, r.camera) for r in split.query] == [(1, 1), (3, 4)]
    assert sorted(r.identity for r in split.gallery) == [-1, 0, 1, 1, 3]
    assert dataset.same_camera_is_junk
    assert read_market1501(market.parent) == dataset
    assert count_split(dataset) == SplitCounts(2, 3, 2, 2, 5)


def test_market1501_in_another_layout(market: Path, tmp_path: Path) -> None:
    (market / "query").rename(market / "queries")
    with pytest.raises(FileNotFoundError, match=r"has no query\. Looked for:\n(.|\n)*bounding_box_train/"):
        read_market1501(market)
    with pytest.raises(FileNotFoundError, match=re.escape(f"root must be a folder, got {tmp_path / 'none'}")):
        read_market1501(tmp_path / "none")


def test_market1501_with_a_bad_file(market: Path) -> None:
    write_image(market / "query" / "person1.jpg")
    with pytest.raises(ValueError, match=r"query/person1\.jpg must be named IDENTITY_cCAMERAsSEQUENCE"):
        read_market1501(market)
    (market / "query" / "person1.jpg").unlink()
    (market / "query" / "0005_c1s1_000001_00.jpg").touch()
    with pytest.raises(ValueError, match=r"0005_c1s1_000001_00\.jpg is an empty file"):
        read_market1501(market)


def test_an_empty_split(market: Path) -> None:
    for image in (market / "query").glob("*.jpg"):
        image.unlink()
    with pytest.raises(ValueError, match=r"market1501: the query split is empty"):
        read_market1501(market)


def test_identities_in_training_and_test(market: Path) -> None:
    write_image(market / "query" / "0007_c1s1_000001_00.jpg")
    with pytest.raises(ValueError, match=r"1 are in both, such as 7"):
        read_market1501(market)


@pytest.fixture
def veri(tmp_path: Path) -> Path:
    root = tmp_path / "VeRi"
    write_images(root / "image_train", ["0001_c001_00016450_0.jpg", "0001_c002_00016470_0.jpg"])
    write_images(root / "image_query", ["0002_c002_00030600_0.jpg"])
    write_images(root / "image_test", ["0002_c002_00030600_0.jpg", "0002_c013_00030670_1.jpg"])
    return root


def test_veri776(veri: Path) -> None:
    dataset = read_veri776(veri)
    assert [(r.identity, r.camera) for r in dataset.train] == [(1, 1), (1, 2)]
    assert [(r.identity, r.camera) for r in dataset.draws[0].gallery] == [(2, 2), (2, 13)]
    assert dataset.same_camera_is_junk and read_veri776(veri.parent) == dataset


def test_veri776_lists_say_what_belongs(veri: Path) -> None:
    (veri / "name_train.txt").write_text("0001_c002_00016470_0.jpg\n")
    assert [r.camera for r in read_veri776(veri).train] == [2]
    (veri / "name_train.txt").write_text("0001_c002_00016470_0.jpg\n0009_c002_00016470_0.jpg\n")
    with pytest.raises(
        FileNotFoundError, match=r"0009_c002_00016470_0.jpg is in name_train.txt but does not"
    ):
        read_veri776(veri)
    (veri / "name_train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"name_train\.txt must be a text file"):
        read_veri776(veri)


@pytest.fixture
def vehicleid(tmp_path: Path) -> Path:
    root = tmp_path / "VehicleID_V1.0"
    lines = {"train_list": [], "test_list_800": [], "test_list_1600": [], "test_list_2400": []}  # type: dict[str, list[str]]
    number = 0
    for identity, images in enumerate([2, 2, 4, 3, 1, 5]):
        for _ in range(images):
            number += 1
            write_image(root / "image" / f"{number:07}.jpg")
            lines["train_list" if identity < 2 else "test_list_800"].append(f"{number:07} {identity}")
    for name, content in lines.items():
        (root / "train_test_split").mkdir(exist_ok=True)
        (root / "train_test_split" / f"{name}.txt").write_text("\n".join(content))
    return root


def test_vehicleid_gallery_of_one_image_each(vehicleid: Path) -> None:
    dataset = read_vehicleid(vehicleid)
    assert dataset.name == "vehicleid_test800" and not dataset.same_camera_is_junk
    assert len(dataset.draws) == 10 and dataset.num_classes == 2
    for split in dataset.draws:
        assert sorted(r.identity for r in split.gallery) == [2, 3, 4, 5]
        assert Counter(r.identity for r in split.query) == {2: 3, 3: 2, 5: 4}
        assert len({r.path for r in (*split.query, *split.gallery)}) == 13
    assert len({split.gallery for split in dataset.draws}) > 1
    assert read_vehicleid(vehicleid) == dataset != read_vehicleid(vehicleid, seed=1)
    assert read_vehicleid(vehicleid, draws=3).draws == dataset.draws[:3]


def test_vehicleid_query_of_one_image_each(vehicleid: Path) -> None:
    dataset = read_vehicleid(vehicleid, convention="query_one", draws=2)
    for split in dataset.draws:
        assert [r.identity for r in split.query] == [2, 3, 5]
        assert Counter(r.identity for r in split.gallery) == {2: 3, 3: 2, 4: 1, 5: 4}


def test_vehicleid_errors(vehicleid: Path) -> None:
    with pytest.raises(ValueError, match=r"test_size must be 800, 1600 or 2400, got 801"):
        read_vehicleid(vehicleid, test_size=801)
    with pytest.raises(ValueError, match=r"convention must be"):
        read_vehicleid(vehicleid, convention="probe")
    with pytest.raises(ValueError, match=r"draws must be an int of at least 1, got 0"):
        read_vehicleid(vehicleid, draws=0)
    with pytest.raises(ValueError, match=r"draws must hold|the query split is empty"):
        read_vehicleid(vehicleid, test_size=1600)
    train = vehicleid / "train_test_split" / "train_list.txt"
    train.write_text("0000001\n")
    with pytest.raises(
        ValueError, match=r"line 1 of .*train_list\.txt must be \"IMAGE IDENTITY\", got '0000001'"
    ):
        read_vehicleid(vehicleid)
    train.write_text("0000099 1\n")
    with pytest.raises(FileNotFoundError, match=r"0000099\.jpg is in train_list\.txt but does not exist"):
        read_vehicleid(vehicleid)
    train.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no train_test_split/train_list\.txt"):
        read_vehicleid(vehicleid)


def test_folder_with_its_own_splits(tmp_path: Path) -> None:
    names = [
        "train/van/gate/1.png",
        "query/bus/gate/1.jpg",
        "gallery/bus/yard/2.JPG",
        "gallery/cab/yard/3.webp",
    ]
    write_images(tmp_path, names)
    dataset = read_folder(tmp_path)
    assert [(r.identity, r.camera) for r in dataset.train] == [(2, 0)]  # bus 0, cab 1, van 2; gate 0, yard 1
    assert [(r.identity, r.camera) for r in dataset.draws[0].query] == [(0, 0)]
    assert [(r.identity, r.camera) for r in dataset.draws[0].gallery] == [(0, 1), (1, 1)]


def test_folder_split_at_random(tmp_path: Path) -> None:
    write_images(tmp_path, [f"id{i}/cam{c}/{n}.png" for i in range(6) for c in range(2) for n in range(2)])
    write_images(tmp_path, [f"lone{i}/cam0/0.png" for i in range(2)])
    dataset = read_folder(tmp_path, train_fraction=0.5, seed=3)
    (split,) = dataset.draws
    assert dataset.num_classes == 4
    asked = {r.identity for r in split.query}
    assert all(sum(r.identity == i for r in split.query) == 2 for i in asked)  # one from each camera
    assert set(split.query) <= set(split.gallery) and asked.isdisjoint(dataset.train_labels)
    assert read_folder(tmp_path, seed=3) == dataset != read_folder(tmp_path, seed=4)


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no images\. Looked for:\n +ROOT/IDENTITY/CAMERA"):
        read_folder(tmp_path)
    write_images(tmp_path, ["van/1.png"])
    with pytest.raises(ValueError, match=r"at least 2 identities, got 1"):
        read_folder(tmp_path)
    (tmp_path / "van" / "1.png").unlink()
    write_images(tmp_path, ["van/gate/monday/1.png"])
    with pytest.raises(FileNotFoundError, match=r"monday/1\.png is not in a folder of an identity"):
        read_folder(tmp_path)
    (tmp_path / "van" / "gate" / "monday" / "1.png").unlink()
    write_images(tmp_path, ["van/gate/1.png"])
    with pytest.raises(ValueError, match=r"at least 2 identities, got 1"):
        read_folder(tmp_path)
    write_images(tmp_path, ["bus/gate/1.png"])
    with pytest.raises(ValueError, match=r"no test identity has two images"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"train_fraction must be in \(0, 1\), got 1"):
        read_folder(tmp_path, train_fraction=1)


def test_csv(tmp_path: Path) -> None:
    write_images(tmp_path, ["images/a.png", "images/b.png", "images/c.png", "images/d.png"])
    file = tmp_path / "index.csv"
    file.write_text(
        "split,path,identity,camera,colour\ntrain,images/a.png,x,1,red\nquery,images/b.png,y,1,\n"
        "gallery,images/c.png,y,2,blue\ngallery,images/d.png,-1,2,\n"
    )
    dataset = read_csv(file)
    assert [(r.identity, r.camera) for r in dataset.draws[0].gallery] == [(1, 1), (-1, 1)]
    assert decode_image(dataset.train[0]).shape == (3, 8, 6)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,camera\n", ValueError, r"must have the columns .*: no identity"),
        ("", ValueError, r"must have the columns"),
        (
            "path,identity,camera,split\na.png,,1,train\n",
            ValueError,
            r"line 2 of .*index.csv has no identity",
        ),
        ("path,identity,camera,split\na.png,1,1\n", ValueError, r"line 2 of .*index.csv has no split"),
        ("path,identity,camera,split\na.png,1,1,test\n", ValueError, r"split must be .*, got 'test'"),
        (
            "path,identity,camera,split\nb.png,1,1,train\n",
            FileNotFoundError,
            r"line 2 .*b\.png does not exist",
        ),
        ("path,identity,camera,split\na.png,1,1,train\n", ValueError, r"the query split is empty"),
        (
            f"path,identity,camera,split\na.png,1,1,train\n{'a' * 200_000}",
            ValueError,
            r"line 3 of .*index\.csv is not CSV \(field larger",
        ),
        ("a" * 200_000, ValueError, r"line 1 of .*index\.csv is not CSV \(field larger"),
    ],
    ids=range(9),
)
def test_csv_errors(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(error, match=message):
        read_csv(tmp_path / "index.csv")


def test_omniglot_is_built_in() -> None:
    dataset = read_omniglot()
    assert verify_split(dataset) == []
    assert {r.camera for r in dataset.draws[0].query} == {1, 8, 15}
    images = ImageDataset(dataset.train, size=(64, 64), labels=dataset.train_labels)
    sample = images[0]
    assert sample.image.shape == (3, 64, 64) and sample.image.dtype == torch.uint8
    assert sample.image.float().mean() > 200  # dark ink on white paper
    assert (sample.identity, sample.camera) == (0, 1)
    check_images(dataset.draws[0].query)


def test_synthetic_is_reproducible() -> None:
    options: dict[str, Any] = {"identities": 8, "cameras": 2, "images_per_camera": 2, "size": (16, 24)}
    dataset = make_synthetic(**options)
    assert dataset == make_synthetic(**options) != make_synthetic(**options, seed=1)
    assert count_split(dataset) == SplitCounts(4, 16, 4, 8, 16)
    images = torch.stack([decode_image(record) for record in dataset.train])
    assert images.shape == (16, 3, 16, 24) and len(images.unique(dim=0)) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 1}, r"identities must be an int of at least 2, got 1"),
        ({"cameras": 1}, r"cameras must be"),
        ({"size": (4, 8)}, r"size must be an int of at least 8, got 4"),
        ({"size": (8,)}, r"size must be \(height, width\)"),
        ({"train_fraction": 0.0}, r"train_fraction must be in \(0, 1\)"),
    ],
)
def test_synthetic_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_synthetic(**options)


def test_published_sizes_are_the_papers() -> None:
    """Market-1501 has 32,668 images; VeRi-776 776 vehicles; CUHK03 14,096 and 14,097."""
    market, veri = market1501.COUNTS, veri776.COUNTS
    assert (market.train_images or 0) + (market.gallery_images or 0) == 32668
    assert (veri.train_identities or 0) + (veri.test_identities or 0) == 776
    for boxes, images in {"labelled": 14096, "detected": 14097}.items():
        published = cuhk03.COUNTS[boxes]
        numbers = published.train_images, published.query_images, published.gallery_images
        assert sum(number or 0 for number in numbers) == images


def test_verify_split_says_what_differs(market: Path, vehicleid: Path) -> None:
    differences = verify_split(read_market1501(market))
    assert differences[1] == f"market1501: train_images must be 12936, got 3 ({market})"
    assert len(differences) == 5
    assert verify_split(read_market1501(market), SplitCounts(query_images=2)) == []
    assert len(verify_split(read_vehicleid(vehicleid))) == 2  # and not once for every draw
    assert read_vehicleid(vehicleid, convention="query_one").published is None
    with pytest.raises(ValueError, match=r"no sizes are published for synthetic"):
        verify_split(make_synthetic(identities=2))


def test_read_dataset(market: Path) -> None:
    assert {"combined", "cuhk03", "folder", "omniglot", "viper"} <= set(list_datasets())
    assert read_dataset("market1501", market) == read_market1501(market)
    assert read_dataset("synthetic", identities=4) == make_synthetic(identities=4)
    for arguments, options, message in (
        (("market1502", market), {}, 'did you mean "market1501"'),
        (("folder", market), {"sed": 1}, "unknown option of folder 'sed'; did you mean \"seed\""),
        (("market1501",), {}, "root must be a path for market1501, got None"),
        (("omniglot", "here"), {}, "root must be None for omniglot, got 'here'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_dataset(*arguments, **options)  # type: ignore[arg-type]


def test_datasets_need_a_retrieval_split() -> None:
    record = ImageRecord("a.png", 0, 0)
    with pytest.raises(ValueError, match=r"the train split is empty \(here\)"):
        ReidDataset("mine", "here", (), ())
    with pytest.raises(ValueError, match=r"the gallery split is empty \(here\)"):
        ReidDataset("mine", "here", (record,), (RetrievalSplit((record,), ()),))
