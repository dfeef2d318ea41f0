"""Ranked lists and tables as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import check_folder, replacing

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


def give(options: Namespace, texts: Mapping[str, str]) -> None:
    """Writes the text for the output's suffix to the file, or prints one to stdout."""
    if options.output is None:
        print(texts[".json" if options.json else ".txt"], end="")
    else:
        write_text(options.output, texts[Path(options.output).suffix])
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
    meaning: str,
) -> dict[str, str]:
    """The best matches of each query, as the text for each suffix.

    Args:
        queries: Q names.
        scores: (Q, K), best first.
        rows: (Q, K) places in ``paths``, -1 for none.
        paths: names of the gallery's images.
        identities: of the gallery's images, -1: not known.
        meaning: what a score is, for JSON.
    """
    lists: list[dict[str, Any]] = []
    table: list[list[Any]] = []
    lines: list[str] = []
    for query, values, places in zip(queries, scores.tolist(), rows.tolist(), strict=True):
        matches = []
        lines.append(query)
        for rank, (score, row) in enumerate(zip(values, places, strict=True), 1):
            if row < 0:
                break
            identity = int(identities[row]) if identities[row] >= 0 else None
            matches.append({"rank": rank, "score": score, "path": paths[row], "identity": identity})
            table.append([query, rank, f"{score:.6g}", paths[row], identity])
            lines.append(f"{rank:4}  {score:.4f}  {paths[row]}")
        lists.append({"query": query, "matches": matches})
    return {
        ".json": as_json({"score": meaning, "queries": lists}),
        ".csv": as_csv(("query", "rank", "score", "path", "identity"), table),
        ".txt": "".join(f"{line}\n" for line in lines),
    }


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
