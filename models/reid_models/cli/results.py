"""Ranked lists and tables as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._output import check_folder, replacing
from .._text import visible

if TYPE_CHECKING:
    from .parsing import Namespace

SUFFIXES = (".json", ".csv", ".txt")


def check_output(options: Namespace) -> None:
    """Refuses an output that could not be written, before the work starts."""
    if options.output is None:
        return
    suffix = Path(options.output).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"--output must end in {', '.join(SUFFIXES)}, got {options.output}")
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


def ranked_lists(
    queries: Sequence[str],
    scores: Any,
    rows: Any,
    paths: Sequence[str],
    identities: Sequence[int],
    *,
    meaning: str,
    form: str,
) -> str:
    """The best matches of each query as text.

    Args:
        queries: Q names.
        scores: (Q, K), best first.
        rows: (Q, K) places in ``paths``, -1 for none.
        paths: names of the gallery's images.
        identities: of the gallery's images, -1: not known.
        meaning: what a score is, for JSON.
        form: a suffix, of those in :data:`SUFFIXES`.
    """

    def matches(values: list[float], places: list[int]) -> Iterator[tuple[int, float, str, int | None]]:
        for rank, (score, row) in enumerate(zip(values, places, strict=True), 1):
            if row < 0:
                return
            yield rank, score, paths[row], int(identities[row]) if identities[row] >= 0 else None

    found = zip(queries, scores.tolist(), rows.tolist(), strict=True)
    if form == ".json":
        names = ("rank", "score", "path", "identity")
        lists = [
            {"query": query, "matches": [dict(zip(names, match, strict=True)) for match in matches(*row)]}
            for query, *row in found
        ]
        return as_json({"score": meaning, "queries": lists})
    if form == ".csv":
        table = [
            (query, rank, f"{score:.6g}", path, identity)
            for query, *row in found
            for rank, score, path, identity in matches(*row)
        ]
        return as_csv(("query", "rank", "score", "path", "identity"), table)
    lines = []
    for query, *row in found:
        lines.append(f"{visible(query)}\n")
        lines += [f"{rank:4}  {score:.4f}  {visible(path)}\n" for rank, score, path, _ in matches(*row)]
    return "".join(lines)


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
