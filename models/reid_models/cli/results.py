"""Ranked lists and tables as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._output import check_folder, replacing
from .._text import visible

if TYPE_CHECKING:
    from ..data.records import ImageRecord
    from .parsing import Namespace

SUFFIXES = (".json", ".csv", ".txt")


def check_output(options: Namespace, more: Sequence[str] = ()) -> None:
    """Refuses an output that could not be written, before the work starts; ``more`` are suffixes besides."""
    if options.output is None:
        return
    suffix = Path(options.output).suffix
    if suffix not in (*SUFFIXES, *more):
        raise ValueError(f"--output must end in {', '.join((*SUFFIXES, *more))}, got {options.output}")
    if options.json and suffix != ".json":
        raise ValueError(f"--output must end in .json with --json, got {options.output}")
    check_folder(options.output, "--output")


def form(options: Namespace) -> str:
    """The suffix of what is asked for, also where it goes to stdout."""
    if options.output is not None:
        return Path(options.output).suffix
    return ".json" if options.json else ".txt"


def give(options: Namespace, text: str) -> None:
    """Writes the text to the output, or prints it to stdout."""
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
        print(f"written: {options.output}")


def write_text(path: str | Path, text: str) -> None:
    """A UTF-8 file that is there whole or not at all; names that are not UTF-8 are written as they are."""
    with replacing(path, "--output") as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def as_json(value: Any) -> str:
    """Readable JSON with a line end."""
    return json.dumps(value, indent=2) + "\n"


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """CSV with a header; None is an empty cell."""
    with io.StringIO(newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return stream.getvalue()


@dataclass(frozen=True)
class Matches:
    """The best matches of queries.

    Attributes:
        queries: Q records.
        scores: (Q, K), best first.
        rows: (Q, K) places in the gallery, -1 for none.
        item: the record of a place in the gallery.
        meaning: what a score is.
    """

    queries: Sequence[ImageRecord]
    scores: Any
    rows: Any
    item: Callable[[int], ImageRecord]
    meaning: str

    @property
    def nearer(self) -> str:
        """Which scores are better, in words."""
        return "larger is nearer" if "similarity" in self.meaning else "smaller is nearer"

    @property
    def described(self) -> str:
        """What the scores are, in words."""
        return f"{self.meaning}, {self.nearer}"

    def lists(self) -> Iterator[tuple[ImageRecord, list[tuple[int, float, ImageRecord]]]]:
        """Each query with its matches: rank from 1, score, record."""
        for query, values, places in zip(self.queries, self.scores.tolist(), self.rows.tolist(), strict=True):
            found = [(score, row) for score, row in zip(values, places, strict=True) if row >= 0]
            yield query, [(rank, score, self.item(row)) for rank, (score, row) in enumerate(found, 1)]

    def text(self, form: str) -> str:
        """As text of a form: a suffix, of those in :data:`SUFFIXES`."""
        if form == ".json":
            return as_json(self.document())
        if form == ".csv":
            columns = ("query", "rank", "score", "path", "identity", "camera")
            return as_csv(columns, [row for query, found in self.lists() for row in _table(query, found)])
        lines = [f"scores: {self.described}\n"]
        for query, found in self.lists():
            lines.append(f"{visible(_line(query))}\n")
            lines += [f"{rank:4}  {score:.4f}  {visible(_line(item))}\n" for rank, score, item in found]
        return "".join(lines)

    def document(self) -> dict[str, Any]:
        """As JSON's types."""
        return {
            "score": self.meaning,
            "queries": [
                {
                    "query": query.name,
                    **_labels(query),
                    "matches": [
                        {"rank": rank, "score": score, "path": item.name, **_labels(item)}
                        for rank, score, item in found
                    ],
                }
                for query, found in self.lists()
            ],
        }


def _labels(record: ImageRecord) -> dict[str, str | int | None]:
    """Identity and camera under the user's own names; numbers where they have none, None if not known."""
    identity = record.identity_name or (record.identity if record.identity >= 0 else None)
    return {
        "identity": identity,
        "camera": record.camera_name or (record.camera if record.camera >= 0 else None),
    }


def _table(query: ImageRecord, found: list[tuple[int, float, ImageRecord]]) -> Iterator[tuple[Any, ...]]:
    for rank, score, item in found:
        yield query.name, rank, f"{score:.6g}", item.name, *_labels(item).values()


def _line(record: ImageRecord) -> str:
    labels = [str(label) for label in _labels(record).values() if label is not None]
    return f"{record.name}  ({', '.join(labels)})" if labels else record.name


def metrics_table(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Measures by name in rows by name, in [0, 1], as CSV and, in percent, as text; the first row has all."""
    columns = list(next(iter(rows.values())))
    table = [[name, *(values.get(column) for column in columns)] for name, values in rows.items()]
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{column:>9}" for column in columns)]
    for name, *values in table:
        cells = ("-" if value is None else f"{100 * value:.2f}" for value in values)
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return {".csv": as_csv(("ranking", *columns), table), ".txt": "".join(f"{line}\n" for line in lines)}
