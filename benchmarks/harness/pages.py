"""docs/measured.md's tables and the README's headline ratios, generated from the kept results.

A table stands between two markers, a headline ratio before its marker: ``**2.5×**<!--operator-->``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.busy import busy_fields
from benchmarks.harness.model import Benchmark
from benchmarks.harness.report import RESULTS, milliseconds, read, speed_up, times

_ROOT = Path(__file__).resolve().parents[2]
MEASURED = _ROOT / "docs" / "measured.md"
README = _ROOT / "README.md"
NOT_MEASURED = "not yet measured"
_HEADINGS = (
    "size",
    "mode",
    "ours, ms",
    "fastest PyTorch, ms",
    "speed-up",
    "over torch.compile",
    "over a hand-written backward",
    "GFLOP/s",
    "of matmul rate",
    "of peak",
)


def markers(operator: str) -> tuple[str, str]:
    """The lines between which the operator's tables stand."""
    return f"<!-- benchmark:{operator}:begin -->", f"<!-- benchmark:{operator}:end -->"


def render_block(benchmark: Benchmark, results: Path = RESULTS) -> str:
    """All tables of an operator: one a kept document, and a line for a device without one."""
    blocks = []
    for device, name in (("cpu", "CPU"), ("cuda", "GPU")):
        paths = sorted(results.glob(f"{benchmark.name}-{device}-*.json"))
        documents = [read(path) for path in paths if not path.stem.endswith("-sweep")]
        blocks += [render_table(found, benchmark) for found in documents]
        if not documents:
            blocks.append(f"{name}: {NOT_MEASURED}")
    return "\n\n".join(blocks)


def render_table(found: dict[str, Any], benchmark: Benchmark) -> str:
    """One document as Markdown: a line about the machine and a table for each number of threads."""
    lines = [machine_line(found)]
    wanted = [
        record
        for record in found["records"]
        if record["case"] in benchmark.table_cases[found["device"]]
        and record["mode"] in benchmark.table_modes
        and record["dtype"] == "float32"
    ]
    for threads in sorted({record["threads"] for record in wanted}, reverse=True):
        if found["device"] == "cpu":
            lines += ["", f"float32, {threads} thread{'s' if threads > 1 else ''}:"]
        else:
            lines += ["", "float32:"]
        rows = [_fields(record) for record in wanted if record["threads"] == threads]
        lines += ["", table(_HEADINGS, rows, left=2)]
    return "\n".join(lines)


def machine_line(found: dict[str, Any]) -> str:
    """Where, with what and when a document was measured, and whether the machine was busy."""
    machine = found["machine"]
    what = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']}, {machine['cores']} cores"
    changed = " with changes" if found["dirty"] else ""
    commit = f", commit {found['commit'][:10]}{changed}" if found["commit"] else ""
    line = f"{what}, torch {found['torch']}{commit}, {found['date'][:10]}."
    if found["busy"]:
        line += f" **Provisional: other processes used {found['others']:.2f} cores meanwhile.**"
    return line


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first ``left`` columns stand at the left, the others at the right."""
    rule = ["---" if index < left else "--:" for index in range(len(headings))]
    return "\n".join(_line(fields) for fields in (headings, rule, *rows))


def block_in(text: str, operator: str) -> str:
    """What stands between the markers; ValueError if they are not there."""
    before, after = _cut(text, operator)
    return text[len(before) : len(text) - len(after)].strip("\n")


def replaced(text: str, operator: str, block: str) -> str:
    """The text with another block between the markers."""
    before, after = _cut(text, operator)
    return f"{before}\n{block}\n{after}"


def update_pages(
    benchmark: Benchmark, measured: Path = MEASURED, readme: Path = README, results: Path = RESULTS
) -> bool:
    """Writes the operator's block and its headline anew from the kept results; whether anything changed."""
    changed = renew(benchmark.name, render_block(benchmark, results), measured)
    text = _text(readme)
    return _write(readme, text, with_headline(text, benchmark.name, headline(benchmark, results))) or changed


def renew(operator: str, block: str, page: Path) -> bool:
    """Puts a block between the operator's markers; whether anything changed."""
    text = _text(page)
    return _write(page, text, replaced(text, operator, block))


BUSY = "busy"
_BUSY_HEADINGS = ("operator", "row", "against", *2 * ("idle, ms", "busy, ms", "slower by"), "ratio")


def render_busy(results: Path = RESULTS) -> str:
    """A table for each number of busy loops, a row for each of the kept documents' rows."""
    documents = [read(path) for path in sorted(results.glob("*-busy*-cpu-*.json"))]
    blocks = []
    for loops in sorted({found["arguments"]["busy"] for found in documents}):
        those = [found for found in documents if found["arguments"]["busy"] == loops]
        rows = [
            (
                found["operator"],
                f"{record['case']}, {record['mode']}",
                record["formulation"]["name"],
                *busy_fields(record),
            )
            for found in those
            for record in found["records"]
        ]
        where = " ".join(sorted({machine_line(found) for found in those}))
        title = f"{loops} busy loop{'s' * (loops > 1)}; ours, then what it stands against. {where}"
        blocks.append(f"{title}\n\n{table(_BUSY_HEADINGS, rows, left=3)}")
    return "\n\n".join(blocks) or NOT_MEASURED


def update_busy_page(measured: Path = MEASURED, results: Path = RESULTS) -> bool:
    """Writes the table of busy machines anew from the kept results; whether anything changed."""
    return renew(BUSY, render_busy(results), measured)


def headline(benchmark: Benchmark, results: Path = RESULTS) -> str:
    """The speed-up of the first row of the table in the headline's mode, by the newest document of a CPU."""
    paths = [
        path for path in results.glob(f"{benchmark.name}-cpu-*.json") if not path.stem.endswith("-sweep")
    ]
    if not paths:
        return NOT_MEASURED
    newest = max((read(path) for path in paths), key=lambda found: str(found["date"]))
    rows = [
        record
        for record in newest["records"]
        if record["case"] == benchmark.table_cases["cpu"][0]
        and record["mode"] == benchmark.headline
        and record["dtype"] == "float32"
    ]
    ratio = speed_up(max(rows, key=lambda record: int(record["threads"])), "eager") if rows else None
    return NOT_MEASURED if ratio is None else f"{ratio:.1f}×"


def headlines_in(text: str) -> dict[str, str]:
    """The headline ratio of each operator that has one in the text."""
    return {operator: ratio for ratio, operator in re.findall(r"\*\*([^*|]+)\*\*<!--(\w+)-->", text)}


def with_headline(text: str, operator: str, ratio: str) -> str:
    """The text with another headline ratio, where the operator has one."""
    return re.sub(rf"\*\*[^*|]+\*\*<!--{operator}-->", f"**{ratio}**<!--{operator}-->", text)


def _text(page: Path) -> str:
    if not page.exists():
        raise ValueError(f"{page.name} does not exist")
    return page.read_text(encoding="utf-8")


def _write(page: Path, old: str, new: str) -> bool:
    if new != old:
        page.write_text(new, encoding="utf-8")
    return new != old


def _cut(text: str, operator: str) -> tuple[str, str]:
    begin, end = markers(operator)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"expected the lines {begin} and {end}, in this order and once each")
    return text[: text.index(begin) + len(begin)], text[text.index(end) :]


def _line(fields: Any) -> str:
    return "| " + " | ".join(fields) + " |"


def _fields(record: dict[str, Any]) -> list[str]:
    ours, eager = record["contenders"]["ours"], record["fastest"]["eager"]
    return [
        record["case"],
        record["mode"],
        milliseconds(ours["median"]),
        f"{milliseconds(record['contenders'][eager]['median'])} ({eager})",
        f"**{times(speed_up(record, 'eager'))}×**",
        *(_multiple(speed_up(record, kind)) for kind in ("compiled", "handwritten")),
        f"{ours['flops_per_second'] / 1e9:.0f}",
        f"{ours['share_of_matmul']:.0%}",
        f"{ours['share_of_peak']:.0%}",
    ]


def _multiple(ratio: float | None) -> str:
    return "–" if ratio is None else f"{times(ratio)}×"
