"""The papers' tables beside what was measured."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from ..runs.files import EVALUATION, TRAINING
from ..runs.measures import HEADINGS, SHARES, in_order
from .registry import books, list_recipes, load_recipe, targets_of

NOT_RUN, NOT_PRINTED = "not run", "–"
FORMS = ("text", "markdown", "csv")
SPLITS, DEVIATION = "splits", "{}_deviation"  # names of a mean over runs

Scores = Mapping[str, float]


class _Row(NamedTuple):
    """One row of a table: what the paper prints, and what was measured or None; shares in percent."""

    name: str
    title: str
    targets: Scores
    measured: Scores | None
    computed: Scores
    note: str = ""


def read_results(runs: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """The measures of every run that was evaluated, by recipe: of the plain ranking, or as the recipe says.

    Of a recipe whose splits are runs of their own, in folders ``RECIPE_split0``, ``RECIPE_split1`` and so on,
    they are means over those that were evaluated. A folder with the recipe's own name goes before.

    Args:
        runs: the folder of run folders, which have their recipe's name.

    Returns:
        ``rank1``, ``rank5``, ``rank10``, ``mAP``, ``mINP`` in [0, 1] and the ``seconds`` of training, by the
        name of the recipe; of means also ``splits``, their number, and ``rank1_deviation`` and so on (divided
        by the number). Folders with another name are passed over, and so are runs without an
        ``evaluation.json``, or with one by another metric than the recipe's.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an ``evaluation.json`` or ``training.json`` is damaged.

    Example:
        >>> read_results("runs")["market1501_hsgnet"]["rank1"]
        0.951
    """
    runs = Path(runs)
    if not runs.is_dir():
        raise FileNotFoundError(f"read_results: runs must be a folder of run folders, got {runs}")
    found = {name: _read_recipe(runs, name, load_recipe(name).measure) for name in list_recipes()}
    return {name: measures for name, measures in found.items() if measures}


def paper_table(results: Mapping[str, Scores] | None = None, *, form: str = "text") -> str:
    """Every table of the papers, with what was measured beside what they print; "not run" where nothing was.

    A table has the columns that its rows have targets for, or figures that were computed. Of these (size,
    operations, depth) the column says so: they need no run.

    Args:
        results: of :func:`read_results`: measures in [0, 1] by recipe. An average counts as measured once
            all its parts are.
        form: ``"text"``, ``"markdown"`` or ``"csv"``.

    Raises:
        ValueError: an unknown form.

    Example:
        >>> print(paper_table(read_results("runs"), form="markdown"))
    """
    if form not in FORMS:
        raise ValueError(f'paper_table: form must be "text", "markdown" or "csv", got {form!r}')
    tables = {
        table["title"]: [_row(row, results or {}) for row in table["rows"]]
        for book in books()
        for table in book.tables
    }
    if form == "csv":
        return _as_csv(tables)
    blocks = [_as_text(title, rows, form) for title, rows in tables.items()]
    return "\n\n".join(blocks) + "\n"


def _row(row: str | Mapping[str, Any], results: Mapping[str, Scores]) -> _Row:
    """A recipe's row, or that of the mean over several."""
    if isinstance(row, str):
        recipe, measured = load_recipe(row), _percent(results.get(row))
        return _Row(row, recipe.title, recipe.targets, measured, recipe.computed, _note_of_mean(measured))
    parts = [_percent(results.get(name)) for name in row["of"]]
    known = [part for part in parts if part is not None]
    mean = None
    if len(known) == len(parts):
        shared = set.intersection(*(set(part) for part in known))
        mean = {metric: fmean(part[metric] for part in known) for metric in shared}
    return _Row("", row["title"], targets_of(row), mean, {}, row.get("note", ""))


def _note_of_mean(measured: Scores | None) -> str:
    """Of a mean over splits: how many, and the deviations."""
    if measured is None or SPLITS not in measured:
        return ""
    deviations = [
        f"{SHARES[metric]} {measured[DEVIATION.format(metric)]:.2f}"
        for metric in SHARES
        if metric in measured
    ]
    return f"mean of {measured[SPLITS]:g} splits, standard deviations: {', '.join(deviations)}"


def _percent(scores: Scores | None) -> Scores | None:
    if scores is None:
        return None
    shares = {*SHARES, *map(DEVIATION.format, SHARES)}
    return {metric: 100 * value if metric in shares else value for metric, value in scores.items()}


def _metrics(rows: Iterable[_Row]) -> dict[str, str]:
    """Those that a row has a target for, or that were computed, in order; and how we have them."""
    rows = tuple(rows)
    computed = {metric for row in rows for metric in row.computed}
    names = in_order(metric for row in rows for metric in (*row.targets, *row.computed))
    return {metric: "computed" if metric in computed else "measured" for metric in names}


def _as_text(title: str, rows: Sequence[_Row], form: str) -> str:
    """One table as aligned text or as Markdown: the paper's numbers, and ours behind them."""
    metrics = _metrics(rows)
    header = ["recipe"]
    for metric, ours in metrics.items():
        header += [f"{HEADINGS.get(metric, metric)}, {who}" for who in ("paper", ours)]
    lines = [header]
    for row in rows:
        cells = [row.name or row.title]
        for metric in metrics:
            target = row.targets.get(metric)
            cells += [NOT_PRINTED if target is None else str(target), _measured(row, metric)]
        lines.append(cells)
    notes = [f"{row.name or row.title}: {row.note}." for row in rows if row.note]
    if form == "markdown":
        aligned = ["---", *("--:" for _ in header[1:])]
        body = [f"| {' | '.join(cells)} |" for cells in (header, aligned, *lines[1:])]
        return "\n".join([f"### {title}", "", *body, *(["", *notes] if notes else [])])
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(header))]
    body = [_aligned(cells, widths) for cells in lines]
    return "\n".join([title, "-" * len(title), *body, *notes])


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def _measured(row: _Row, metric: str) -> str:
    if metric in row.computed:
        return str(row.computed[metric])
    if row.measured is None:
        return NOT_RUN
    return f"{row.measured[metric]:.2f}" if metric in row.measured else NOT_PRINTED


def _as_csv(tables: Mapping[str, Sequence[_Row]]) -> str:
    """One line a row; empty where the paper prints nothing, "not run" where nothing was measured."""
    with io.StringIO(newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        metrics = _metrics(row for rows in tables.values() for row in rows)
        columns = [f"{metric}_{who}" for metric, ours in metrics.items() for who in ("paper", ours)]
        writer.writerow(["table", "recipe", "title", *columns, "note"])
        for title, rows in tables.items():
            for row in rows:
                pairs = [(row.targets.get(metric), _measured(row, metric)) for metric in metrics]
                cells = [cell for target, own in pairs for cell in (target, own.replace(NOT_PRINTED, ""))]
                writer.writerow([title, row.name, row.title, *cells, row.note])
        return stream.getvalue()


def _read_recipe(runs: Path, name: str, measure: Mapping[str, str]) -> dict[str, float]:
    """What a recipe's run folder has of its measures, or the means over the folders of its splits."""
    own = _read_run(runs / name, measure)
    folders = [path for path in runs.glob(f"{name}_split*") if re.fullmatch(rf"{name}_split\d+", path.name)]
    parts = [part for folder in sorted(folders) if "mAP" in (part := _read_run(folder, measure))]
    if "mAP" in own or not parts:
        return own
    shared = [metric for metric in parts[0] if all(metric in part for part in parts)]
    found: dict[str, float] = {SPLITS: len(parts)}
    for metric in shared:
        values = [part[metric] for part in parts]
        found |= {metric: fmean(values), DEVIATION.format(metric): pstdev(values)}
    return found


def _read_run(folder: Path, measure: Mapping[str, str]) -> dict[str, float]:
    """What a run folder has of a recipe's measures; empty for nothing."""
    evaluation, training = folder / EVALUATION, folder / TRAINING
    measures = _read_measures(evaluation, measure) if evaluation.is_file() else {}
    if training.is_file():
        try:
            measures["seconds"] = float(json.loads(training.read_text(encoding="utf-8"))["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"read_results: {training} is damaged ({error!r})") from None
    return measures


def _read_measures(path: Path, measure: Mapping[str, str]) -> dict[str, float]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "metric" in measure and content["settings"]["metric"] != measure["metric"]:
            return {}
        ranking = content[measure.get("ranking", "plain")]
        measures = {metric: float(value) for metric, value in (ranking or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"read_results: {path} is damaged or not an evaluation ({error!r})") from None
    if not all(0 <= value <= 1 for value in measures.values()):
        raise ValueError(f"read_results: measures must be in [0, 1], got {measures} in {path}")
    return measures
