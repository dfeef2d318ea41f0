"""Tables of images: a CSV file of one's own, and the metadata of wildlife-datasets."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..damage import report_damage
from ..records import Box, ReidDataset, RetrievalSplit, identities
from .naming import Named, is_unknown, known_only, number_records
from .splitting import SplitRule, check_fraction, split_at_random, with_protocol

SPLITS = ("train", "query", "gallery")
#: Columns that together are a box, and whether the last two are its size or its other corner.
BOXES = (
    (("x", "y", "w", "h"), True),
    (("x", "y", "width", "height"), True),
    (("left", "top", "width", "height"), True),
    (("xmin", "ymin", "xmax", "ymax"), False),
    (("x1", "y1", "x2", "y2"), False),
)
#: Splits by their names in the metadata of wildlife-datasets and of its challenges.
WILDLIFE_SPLITS = {
    "train": "train", "database": "train", "gallery": "gallery", "test": "query", "query": "query",
}  # fmt: skip


def read_csv(
    path: str | os.PathLike[str],
    *,
    train_fraction: float = 0.5,
    seed: int = 0,
    closed_set: bool = False,
    leave_one_out: bool = False,
    same_camera_counts: bool | None = None,
) -> ReidDataset:
    """Reads a CSV file with the columns ``path``, ``identity`` and, if known, ``camera`` and ``split``.

    ``split`` is ``train``, ``query`` or ``gallery``; without it images are split at random, as by
    :func:`read_folder`. An identity ``-1`` is junk, ``unknown`` a stranger (see there), a camera that is
    empty, ``-1`` or ``unknown`` is not known. Paths are relative to the file's folder.

    Several rows may have one path, each with a box: ``bbox`` (left, top, width and height in pixels, as COCO
        has
    it), or the columns ``x,y,w,h``, ``x,y,width,height``, ``left,top,width,height``, ``xmin,ymin,xmax,ymax``
    or ``x1,y1,x2,y2``. Only the box is seen then. Other columns are passed over.

    Args:
        path: the file, UTF-8.
        train_fraction: as :func:`read_folder`, like the rest.
        seed: as there.
        closed_set: as there.
        leave_one_out: as there, without the column ``split``.
        same_camera_counts: as there; None: they count where there is but one camera, or none is known.

    Raises:
        FileNotFoundError: the file, or an image that it names, does not exist.
        ValueError: a column, a value or a split is missing, with the line; or no query has a right image that
            counts.

    Example:
        >>> dataset = read_csv("my_images/index.csv")
        path,identity,camera,split
        images/0001.jpg,red_van,gate_2,train
    """
    name = "csv"
    check_fraction(train_fraction, name)
    rule = SplitRule(train_fraction, seed, closed_set, leave_one_out, same_camera_counts)
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{name}: path must be a CSV file with path and identity, got {file}")
    rows = read_table(file, name, {split: split for split in SPLITS})
    if not any(row.split for row in rows):
        (records,) = number_records([[row.image for row in rows]])
        return split_at_random(records, rule, name, str(file))
    if leave_one_out:
        raise ValueError(f"{name}: leave_one_out is for files without the column split, got {file}")
    train, query, gallery = number_records(_by_split(rows))
    return with_protocol(name, str(file), train, RetrievalSplit(query, gallery), rule)


def read_wildlife(
    root: str | os.PathLike[str],
    *,
    metadata: str = "metadata.csv",
    train_fraction: float = 0.5,
    seed: int = 0,
    closed_set: bool = True,
    by_date: bool = False,
    leave_one_out: bool = False,
    same_camera_counts: bool | None = True,
) -> ReidDataset:
    """Reads metadata as wildlife-datasets writes them: ``path``, ``identity``, ``bbox``, ``date``, ``split``.

    With a column ``split`` (``train`` or ``database``, ``test`` or ``query``) test images are searched for
    among the training images, as that library does; where training shows none of their identities (a disjoint
    split), each is searched for among the other test images. Without it images are split at random, as by
    :func:`read_folder`, with a closed set unless told otherwise.

    Args:
        root: the folder that paths are relative to.
        metadata: the CSV file, relative to that folder.
        train_fraction: as :func:`read_folder`.
        seed: as there.
        closed_set: as there.
        by_date: of a closed set without a column ``split``, an individual's earlier images are for training,
            by the column ``date``.
        leave_one_out: as there.
        same_camera_counts: as there, where a column ``camera`` is known.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_csv`.

    Example:
        >>> dataset = read_wildlife("/data/SeaTurtleID2022")
    """
    name = "wildlife"
    check_fraction(train_fraction, name)
    rule = SplitRule(train_fraction, seed, closed_set, leave_one_out, same_camera_counts)
    file = Path(root) / metadata
    if not file.is_file():
        raise FileNotFoundError(f"{name}: {file} must be metadata with path and identity, and is not there")
    rows = read_table(file, name, WILDLIFE_SPLITS)
    split = any(row.split for row in rows)
    if by_date and (split or not closed_set):
        raise ValueError(f"{name}: by_date is for a closed set without the column split, got {file}")
    if not split:
        (records,) = number_records([[row.image for row in rows]])
        dates = {record.name: row.image.date for record, row in zip(records, rows, strict=True)}
        return split_at_random(records, rule, name, str(root), dates if by_date else None)
    if leave_one_out:
        raise ValueError(f"{name}: leave_one_out is for metadata without the column split, got {file}")
    train, query, gallery = number_records(_by_split(rows))
    closed = bool(identities(known_only(train)) & identities(known_only(query)))
    if not gallery:
        gallery = train if closed else query
    return with_protocol(
        name, str(root), train, RetrievalSplit(query, gallery), replace(rule, closed_set=closed)
    )


class Row(NamedTuple):
    """A row of a table: the image, its split ("": none is said), and its line in the file."""

    image: Named
    split: str
    line: int


def read_table(file: Path, name: str, splits: Mapping[str, str]) -> list[Row]:
    """The rows of a CSV file.

    Args:
        file: the file; paths in it are relative to its folder.
        name: of the reader.
        splits: names of splits in the file, with ours.

    Raises:
        FileNotFoundError: an image does not exist; ValueError: a column or a value is missing, with its line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {file} must be UTF-8 text ({error})") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    found: list[Row] = []
    with _errors_named(rows, name, file):
        columns = list(rows.fieldnames or ())
        missing = [column for column in ("path", "identity") if column not in columns]
        if missing:
            raise ValueError(
                f"{name}: {file} must have the columns path and identity, and may have camera and split: "
                f"no {', '.join(missing)}"
            )
        needed = [column for column in ("path", "identity", "split") if column in columns]
        for row in rows:
            where = f"line {rows.line_num} of {file}"
            empty = [column for column in needed if not row[column]]
            if empty:
                raise ValueError(f"{name}: {where} has no {', '.join(empty)}")
            split = row.get("split", "")
            if split and split not in splits:
                raise ValueError(f"{name}: {where}: split must be {_either(splits)}, got {split!r}")
            image = file.parent / row["path"]
            if not image.is_file():
                report_damage(FileNotFoundError(f"{name}: {where}: {image} does not exist"))
                continue
            if image.stat().st_size == 0:
                report_damage(ValueError(f"{name}: {where}: {image} is an empty file"))
                continue
            box = _box(row, f"{name}: {where}")
            named = Named(str(image), row["identity"], row.get("camera") or "", box, row.get("date") or "")
            found.append(Row(named, splits[split] if split else "", rows.line_num))
    return found


def _by_split(rows: Iterable[Row]) -> list[list[Named]]:
    parts: dict[str, list[Named]] = {split: [] for split in SPLITS}
    for row in rows:
        parts[row.split].append(row.image)
    return list(parts.values())


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def _box(row: Mapping[str, str], where: str) -> Box | None:
    """The box of a row, in whole pixels that hold it; None where the row has none."""
    text = (row.get("bbox") or row.get("box") or "").strip()
    if text and not is_unknown(text):
        return _whole(re.split(r"[\s,;]+", text.strip("[]() ")), True, where)
    for columns, sized in BOXES:
        if all(column in row for column in columns):
            values = [row[column] or "" for column in columns]
            return None if all(is_unknown(value) for value in values) else _whole(values, sized, where)
    return None


def _whole(texts: list[str], sized: bool, where: str) -> Box:
    problem = f"{where}: a box must be four numbers, left, top and a size above 0, got {' '.join(texts)}"
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        raise ValueError(problem) from None
    if sized:
        right, bottom = left + right, top + bottom
    if (
        not all(map(math.isfinite, (left, top, right, bottom)))
        or right <= max(left, 0)
        or bottom <= max(top, 0)
    ):
        raise ValueError(problem)
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    return x, y, math.ceil(right) - x, math.ceil(bottom) - y


@contextmanager
def _errors_named(rows: csv.DictReader[str], name: str, file: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(f"{name}: line {rows.line_num + 1} of {file} is not CSV ({error})") from None
