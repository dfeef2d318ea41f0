"""The README's tables, generated from the kept results between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.model import Benchmark
from benchmarks.harness.report import RESULTS, milliseconds, read, speed_up, times

README = Path(__file__).resolve().parents[2] / "README.md"
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
        blocks += [render_readme_table(found, benchmark) for found in documents]
        if not documents:
            blocks.append(f"{name}: not yet measured")
    return "\n\n".join(blocks)


def render_readme_table(found: dict[str, Any], benchmark: Benchmark) -> str:
    """One document as Markdown: a line about the machine and a table for each number of threads."""
    lines = [machine_line(found)]
    wanted = [
        record
        for record in found["records"]
        if record["case"] in benchmark.readme_cases[found["device"]]
        and record["mode"] in benchmark.readme_modes
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


def update_readme(benchmark: Benchmark, readme: Path = README, results: Path = RESULTS) -> bool:
    """Writes the README's block anew from the kept results; whether anything changed."""
    return renew(benchmark.name, render_block(benchmark, results), readme)


def renew(operator: str, block: str, readme: Path) -> bool:
    """Puts a block between the operator's markers; whether anything changed."""
    if not readme.exists():
        raise ValueError(f"{readme.name} does not exist")
    text = readme.read_text(encoding="utf-8")
    new = replaced(text, operator, block)
    if new != text:
        readme.write_text(new, encoding="utf-8")
    return new != text


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
