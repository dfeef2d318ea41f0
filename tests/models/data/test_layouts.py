"""Layouts that people have: with cameras, with one, with none; tables with boxes; sets that are closed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid_models.data import (
    ImageRecord,
    ReidDataset,
    RetrievalSplit,
    decode_image,
    read_csv,
    read_dataset,
    read_folder,
    read_market_layout,
    read_wildlife,
)
from reid_models.data.records import split_name


def write(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number % 256, 90, 20)).save(root / name)


def table(root: Path, *rows: str, name: str = "index.csv") -> Path:
    write(root, *dict.fromkeys(row.split(",")[0] for row in rows[1:]))
    file = root / name
    file.write_text("\n".join(rows) + "\n")
    return file


def whose(records: tuple[ImageRecord, ...]) -> set[str]:
    return {record.who for record in records}


# --------------------------------------------------------------------------------------------- folders


def test_identities_without_cameras(tmp_path: Path) -> None:
    write(tmp_path, *(f"{animal}/{n}.png" for animal in ("bella", "kira", "max", "nemo") for n in range(5)))
    dataset = read_folder(tmp_path)
    (draw,) = dataset.draws
    assert not dataset.same_camera_is_junk and not dataset.exclude_self
    assert whose(dataset.train) | whose(draw.gallery) == {"bella", "kira", "max", "nemo"}
    assert len(draw.query) == 4 and len(draw.gallery) == 6 and not set(draw.query) & set(draw.gallery)
    assert {(record.camera, record.where) for record in (*dataset.train, *draw.query)} == {(-1, "")}
    assert all(dataset.answerable())


def test_one_camera(tmp_path: Path) -> None:
    """It is known, but what is the same everywhere leaves nothing out."""
    write(tmp_path, *(f"{animal}/cam0/{n}.png" for animal in ("bella", "kira", "max") for n in range(3)))
    dataset = read_folder(tmp_path)
    assert not dataset.same_camera_is_junk and all(dataset.answerable())
    assert {record.where for record in dataset.train} == {"cam0"}


def test_cameras_that_no_identity_shares(tmp_path: Path) -> None:
    names = [f"{animal}/{animal}_cam/{n}.png" for animal in ("bella", "kira", "max") for n in range(4)]
    write(tmp_path, *names)
    assert not read_folder(tmp_path).same_camera_is_junk
    with pytest.raises(
        ValueError, match=r"by another camera than the query's, such as \w+'s \(camera \w+_cam"
    ):
        read_folder(tmp_path, same_camera_counts=False)


def test_leave_one_out(tmp_path: Path) -> None:
    write(tmp_path, *(f"{animal}/{n}.png" for animal in ("bella", "kira") for n in range(3)))
    dataset = read_folder(tmp_path, leave_one_out=True)
    (draw,) = dataset.draws
    assert draw.query == draw.gallery and len(draw.query) == 3 and dataset.exclude_self
    assert all(dataset.answerable())


def test_a_closed_set_split_at_random(tmp_path: Path) -> None:
    write(tmp_path, *(f"{animal}/{n}.png" for animal in ("bella", "kira") for n in range(6)))
    dataset = read_folder(tmp_path, closed_set=True, train_fraction=2 / 3)
    (draw,) = dataset.draws
    assert dataset.closed_set and dataset.num_classes == 2
    assert draw.gallery == dataset.train and len(dataset.train) == 8 and len(draw.query) == 4


def test_strangers_are_neither_trained_on_nor_asked_for(tmp_path: Path) -> None:
    write(tmp_path, *(f"{animal}/{n}.png" for animal in ("bella", "kira", "unknown", "-1") for n in range(4)))
    dataset = read_folder(tmp_path)
    (draw,) = dataset.draws
    assert dataset.num_classes == 1 and "unknown" not in whose(dataset.train) | whose(draw.query)
    strangers = [record for record in draw.gallery if record.who == "unknown"]
    assert sorted(record.identity for record in strangers) == [-1] * 4 + [2] * 4


def test_splits_of_their_own_folders(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "query/c/1.png", "gallery/c/2.png", "gallery/a/3.png")
    with pytest.raises(ValueError, match=r"1 are in both, such as a .*closed_set"):
        read_folder(tmp_path)
    dataset = read_folder(tmp_path, closed_set=True)
    assert whose(dataset.draws[0].query) == {"c"} and not dataset.same_camera_is_junk


# ---------------------------------------------------------------------------------------------- tables

COLUMNS = "path,identity,camera,split"


def test_names_come_with_the_records(tmp_path: Path) -> None:
    rows = ("a.png,cow2,barn,train", "b.png,cow1,barn,query", "c.png,cow1,yard,gallery")
    dataset = read_csv(table(tmp_path, COLUMNS, *rows))
    (train,), (gallery,) = dataset.train, dataset.draws[0].gallery
    assert (train.identity, train.who, train.where) == (1, "cow2", "barn")
    assert (gallery.who, gallery.camera, gallery.where) == ("cow1", 1, "yard")


@pytest.mark.parametrize("unknown", ["-1", "", "unknown", "NaN"])
def test_unknown_cameras(tmp_path: Path, unknown: str) -> None:
    rows = (f"a.png,A,{unknown},train", f"b.png,C,{unknown},query", f"c.png,C,{unknown},gallery")
    dataset = read_csv(table(tmp_path, COLUMNS, *rows))
    assert [record.camera for record in dataset.draws[0].query] == [-1]
    assert dataset.answerable() == [True]


def test_one_camera_in_a_table(tmp_path: Path) -> None:
    rows = ("a.png,A,barn,train", "b.png,C,barn,query", "c.png,C,barn,gallery")
    assert not read_csv(table(tmp_path, COLUMNS, *rows)).same_camera_is_junk


def test_a_protocol_in_which_nothing_can_be_found_is_refused(tmp_path: Path) -> None:
    rows = ("a.png,A,barn,train", "b.png,C,barn,query", "c.png,C,barn,gallery", "d.png,D,yard,gallery")
    file = table(tmp_path, COLUMNS, *rows)
    with pytest.raises(ValueError, match=r"such as C's \(camera barn\): same_camera_counts true"):
        read_csv(file)
    assert read_dataset("csv", file, same_camera_counts=True).answerable() == [True]
    rows = ("a.png,A,,train", "b.png,C,,query", "d.png,D,,gallery")
    with pytest.raises(ValueError, match=r"no query has another image of its identity .* such as one of C"):
        read_csv(table(tmp_path, COLUMNS, *rows))
    rows = ("a.png,A,,train", "b.png,unknown,,query", "d.png,D,,gallery")
    with pytest.raises(ValueError, match="no query has a known identity"):
        read_csv(table(tmp_path, COLUMNS, *rows))


def test_closed_and_unknown(tmp_path: Path) -> None:
    closed = table(
        tmp_path, COLUMNS, "0.png,A,0,train", "1.png,B,0,train", "2.png,A,0,query", "3.png,A,1,gallery"
    )
    with pytest.raises(ValueError, match="such as A "):
        read_csv(closed)
    assert read_csv(closed, closed_set=True).num_classes == 2
    known = ("0.png,A,0,train", "1.png,B,0,train", "2.png,C,0,query", "3.png,C,1,gallery")
    strange = ("4.png,unknown,0,train", "5.png,unknown,1,train", "6.png,unknown,0,gallery")
    dataset = read_csv(table(tmp_path, COLUMNS, *known, *strange))
    assert dataset.num_classes == 2 and [r.who for r in dataset.draws[0].gallery] == ["C", "unknown"]
    assert dataset.draws[0].gallery[1].identity not in {-1, *(r.identity for r in dataset.train)}


def test_without_splits_as_a_folder(tmp_path: Path) -> None:
    rows = [f"{animal}{n}.png,{animal}" for animal in ("bella", "kira") for n in range(4)]
    file = table(tmp_path, "path,identity", *rows)
    assert len(read_csv(file).draws[0].query) == 2
    assert len(read_csv(file, leave_one_out=True).draws[0].query) == 4


def test_the_query_in_the_gallery_is_noticed(tmp_path: Path) -> None:
    rows = ("a.png,A,train", "b.png,C,query", "b.png,C,gallery", "c.png,C,gallery")
    assert read_csv(table(tmp_path, "path,identity,split", *rows)).exclude_self
    rows = ("a.png,A,train", "b.png,C,query", "b.png,C,gallery", "c.png,D,gallery")
    with pytest.raises(ValueError, match="no query has another image of its identity"):
        read_csv(table(tmp_path, "path,identity,split", *rows))


# ----------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("bbox", '"[1, 2, 3, 4]"'),
        ("box", "1 2 3 4"),
        ("bbox", '"(0.5, 2, 3.5, 4.0)"'),
        ("x,y,w,h", "1,2,3,4"),
        ("left,top,width,height", "1,2,3,4"),
        ("xmin,ymin,xmax,ymax", "1,2,4,6"),
        ("x1,y1,x2,y2", "1,2,4,6"),
    ],
)
def test_boxes_are_cut_while_decoding(tmp_path: Path, columns: str, values: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "herd.png")
    lines = [f"herd.png,{who},{part},{values}" for who, part in (("A", "train"), ("B", "query"))]
    lines.append(f"herd.png,B,gallery,{',' * columns.count(',')}")
    (tmp_path / "index.csv").write_text(f"path,identity,split,{columns}\n" + "\n".join(lines) + "\n")
    dataset = read_csv(tmp_path / "index.csv")
    record, whole = dataset.train[0], dataset.draws[0].gallery[0]
    assert record.box is not None and whole.box is None
    left, top, width, height = record.box
    assert (top, left + width, top + height) == (2, 4, 6) and left == (0 if "0.5" in values else 1)
    assert torch.equal(decode_image(record), torch.from_numpy(pixels[2:6, left:4].copy()).permute(2, 0, 1))
    assert decode_image(whole).shape == (3, 8, 9)
    assert split_name(record.name) == (str(tmp_path / "herd.png"), record.box)
    assert split_name("odd#xywh=1,2") == ("odd#xywh=1,2", None)


@pytest.mark.parametrize("box", ["1 2 3", "a b c d", "1 2 0 4", "-5 0 5 5", "nan 1 2 3", "inf 1 1 1"])
def test_boxes_that_are_none(tmp_path: Path, box: str) -> None:
    file = table(tmp_path, "path,identity,box", f"a.png,A,{box}")
    with pytest.raises(ValueError, match=re.escape("a box must be four numbers") + ".*line 2|line 2.*a box"):
        read_csv(file)


def test_a_box_outside_of_its_image(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"must have the box \(8, 0, 2, 2\) .* but is 8 wide and 6 high"):
        decode_image(ImageRecord(str(tmp_path / "a.png"), 0, 0, box=(8, 0, 2, 2)))
    assert decode_image(ImageRecord(str(tmp_path / "a.png"), 0, 0, box=(6, 4, 9, 9))).shape == (3, 2, 2)


# -------------------------------------------------------------------------------------------- wildlife


def test_wildlife_splits(tmp_path: Path) -> None:
    rows = ("a.png,A,train", "b.png,B,train", "c.png,A,test", "d.png,C,test")
    table(tmp_path, "path,identity,split", *rows, name="metadata.csv")
    dataset = read_wildlife(tmp_path)
    assert dataset.closed_set and dataset.draws[0].gallery == dataset.train
    assert dataset.answerable() == [True, False]
    rows = ("a.png,A,train", "b.png,B,train", "c.png,C,test", "d.png,C,test")
    table(tmp_path, "path,identity,split", *rows, name="metadata.csv")
    dataset = read_wildlife(tmp_path)
    assert not dataset.closed_set and dataset.exclude_self and dataset.answerable() == [True, True]


def test_wildlife_by_date(tmp_path: Path) -> None:
    rows = [f"{who}{day}.png,{who},2020-01-0{day}" for who in "AB" for day in (4, 2, 3, 1)]
    table(tmp_path, "path,identity,date", *rows, name="metadata.csv")
    dataset = read_wildlife(tmp_path, by_date=True)
    assert sorted(Path(record.path).stem for record in dataset.train) == ["A1", "A2", "B1", "B2"]
    assert len(read_wildlife(tmp_path, closed_set=False).draws[0].query) == 2


# -------------------------------------------------------------------------------------- Market's naming


def test_market_layout(tmp_path: Path) -> None:
    names = (
        "bounding_box_train/15010_c12s1_000451_03.png",
        "query/3_c10_f0046985.png",
        "bounding_box_test/3_c9s1_1.png",
        "bounding_box_test/-1_c9s1_1.png",
    )
    write(tmp_path, *names)
    dataset = read_market_layout(tmp_path)
    assert [(r.identity, r.camera) for r in dataset.draws[0].gallery] == [(-1, 9), (3, 9)]
    assert dataset.same_camera_is_junk and dataset.train[0].who == "15010"
    write(tmp_path, "query/nobody.png")
    with pytest.raises(ValueError, match=r"query/nobody\.png must be named IDENTITY_cCAMERA"):
        read_market_layout(tmp_path)


def test_market_layout_of_other_names(tmp_path: Path) -> None:
    write(tmp_path, "a/bella-north-1.png", "b/kira-north-1.png", "c/kira-south-2.png")
    pattern = r"(?P<identity>[a-z]+)-(?P<camera>[a-z]+)-.*"
    options: dict[str, Any] = {"folders": ["a", "b", "c"], "pattern": pattern}
    dataset = read_market_layout(tmp_path, **options)
    assert [(r.who, r.where) for r in dataset.draws[0].query] == [("kira", "north")]
    for wrong, message in (("(", "must be a regular expression"), ("x", "must have a group")):
        with pytest.raises(ValueError, match=message):
            read_market_layout(tmp_path, **{**options, "pattern": wrong})
    with pytest.raises(ValueError, match=r"folders must be those of train, query and gallery, got \['a'\]"):
        read_market_layout(tmp_path, folders=["a"])


def test_a_reader_of_ones_own_is_checked_before_training(tmp_path: Path) -> None:
    """By name, any dataset in which nothing could be measured is refused."""
    lonely = ReidDataset(
        "own",
        "memory",
        (ImageRecord("t", 0, 0),),
        (RetrievalSplit((ImageRecord("q", 1, 2),), (ImageRecord("g", 1, 2),)),),
    )
    from reid_models.data.datasets.splitting import check_answerable

    with pytest.raises(ValueError, match=r"own: nothing can be measured: .* such as 1's \(camera 2\)"):
        check_answerable(lonely)
