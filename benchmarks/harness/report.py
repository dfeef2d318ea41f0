"""What a run leaves behind: the JSON document and the table on the terminal."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import reid_ops
from benchmarks.harness import machine
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch

SCHEMA = 1
RESULTS = Path(__file__).resolve().parents[1] / "results"


def document(
    operator: str,
    device: str,
    arguments: dict[str, Any],
    records: list[dict[str, Any]],
    floors: Floors,
    watch: LoadWatch,
) -> dict[str, Any]:
    """The whole run as JSON data."""
    return {
        "schema": SCHEMA,
        "operator": operator,
        "device": device,
        "busy": watch.busy,
        "others": watch.worst,
        "load_average_before": watch.load_before,
        "machine": machine.describe(device),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device == "cuda" else None,
        "build": reid_ops.build_info(),
        **machine.commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "arguments": arguments,
        "floors": floors.to_json(),
        "records": records,
    }


def kept_path(found: dict[str, Any]) -> Path:
    """Where a kept document lives: ``results/<operator>[-busyN]-<device>-<machine>[-sweep].json``."""
    sweep = "-sweep" if found["arguments"].get("sweep") else ""
    loops = found["arguments"].get("busy")
    name = f"{found['operator']}-busy{loops}" if loops else found["operator"]
    return RESULTS / f"{name}-{found['device']}-{machine.slug(found['machine'])}{sweep}.json"


def write(found: dict[str, Any], path: Path) -> None:
    """Writes the document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """Reads a document; ValueError if it is of another schema."""
    found: dict[str, Any] = json.loads(path.read_text())
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: expected schema {SCHEMA}, got {found.get('schema')!r}")
    return found


def console() -> Console:
    """The terminal, or plain wide text where the output is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=200, no_color=True, highlight=False)


def print_table(found: dict[str, Any], to: Console) -> None:
    """The rows of a document and, below them, what to know about them."""
    cpu_or_gpu = found["machine"]["gpu"]["name"] if found["machine"]["gpu"] else found["machine"]["cpu"]
    table = Table(
        title=f"{found['operator']} on {cpu_or_gpu}, torch {found['torch']}",
        box=Table().box if to.is_terminal else None,
        title_justify="left",
    )
    table.add_column("case", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    for heading in ("dtype", "thr", "ours ms", "eager ms", "ratio", "own bwd", "compiled", "GFLOP/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("of matmul", "of peak", "x floor", "MB ours", "MB eager"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in found["records"]:
        table.add_row(*_row(record))
    to.print(table)
    for line in footer(found):
        to.print(line, style="bold red" if line.startswith("WARNING") else None)


def footer(found: dict[str, Any]) -> list[str]:
    """Warnings first, then the machine's measured rates and the smallest ratios."""
    lines = []
    if found["busy"]:
        lines.append(
            f"WARNING: other processes used {found['others']:.2f} cores while this ran; "
            "these figures are no results. Run again on a quiet machine."
        )
    elif found["others"] is None:
        lines.append("WARNING: this system does not tell what other processes use; make sure it is quiet.")
    for rate in found["floors"]["copy"]:
        lines.append(f"copy {rate['bytes_per_second'] / 1e9:.1f} GB/s with {_threads(rate['threads'])}")
    for what in ("matmul", "convolution"):
        for rate in found["floors"][what]:
            speed = f"{rate['flops_per_second'] / 1e9:.0f} GFLOP/s"
            lines.append(f"{what} {rate['dtype']} {speed} with {_threads(rate['threads'])}")
    for mode in dict.fromkeys(record["mode"] for record in found["records"]):
        smallest = smallest_ratio(found, mode)
        if smallest is not None:
            ratio, record = smallest
            where = f"{record['case']}, {record['dtype']}, {_threads(record['threads'])}"
            lines.append(
                f"smallest ratio, {mode}: {ratio:.2f} ({where}, against {record['fastest']['eager']})"
            )
    refused = {name: why for record in found["records"] for name, why in record["refused"].items()}
    lines += [f"left out somewhere: {name}: {why}" for name, why in sorted(refused.items())]
    return lines


def smallest_ratio(found: dict[str, Any], mode: str) -> tuple[float, dict[str, Any]] | None:
    """The row of that mode in which we gain least over eager PyTorch."""
    ratios = [(speed_up(record, "eager"), record) for record in found["records"] if record["mode"] == mode]
    known = [(ratio, record) for ratio, record in ratios if ratio is not None]
    return min(known, key=lambda entry: entry[0], default=None)


def speed_up(record: dict[str, Any], kind: str) -> float | None:
    """How many times longer the quickest contender of that kind takes than ours; None if there is none."""
    name = record["fastest"][kind]
    return float(record["contenders"][name]["ratio_of_medians"]) if name else None


def _row(record: dict[str, Any]) -> list[str]:
    ours = record["contenders"]["ours"]
    eager = record["fastest"]["eager"]
    spread = f"{milliseconds(ours['median'])} ±{milliseconds(ours['interquartile_range'] / 2)}"
    eager_time = f"{milliseconds(record['contenders'][eager]['median'])} {eager}" if eager else "-"
    return [
        record["case"],
        record["mode"] + (" (busy)" if record["busy"] else ""),
        record["dtype"],
        str(record["threads"]),
        spread,
        eager_time,
        *(times(speed_up(record, kind)) for kind in ("eager", "handwritten", "compiled")),
        f"{ours['flops_per_second'] / 1e9:.1f}",
        f"{ours['share_of_matmul']:.0%}",
        f"{ours['share_of_peak']:.0%}",
        f"{ours['ratio_to_floor']:.1f}",
        _megabytes(ours["peak_memory"]),
        _megabytes(record["contenders"][eager]["peak_memory"] if eager else None),
    ]


def milliseconds(seconds: float) -> str:
    """Three significant digits, never an exponent."""
    value = seconds * 1e3
    return (
        f"{value:.0f}"
        if value >= 99.95
        else f"{value:.1f}"
        if value >= 9.995
        else f"{value:.2f}"
        if value >= 0.9995
        else f"{value:.3f}"
    )


def times(ratio: float | None) -> str:
    """A ratio, or a dash."""
    return "-" if ratio is None else f"{ratio:.2f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
