"""Command line: ``python -m tools.gpu_model [--device h200] [op ...]``; figures are predicted.

Needs nvcc, nvdisasm (Triton's package has it), g++ and the packages of the benchmarks. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.gpu_model.devices import DEVICES

KEPT = Path(__file__).with_name("predicted.json")
COLUMNS = ("op", "size", "mode", "dtype")


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(
        prog="python -m tools.gpu_model",
        description="Predicted time of the benchmarks' rows on a GPU, and the bound that rules.",
    )
    add = options.add_argument
    add("operators", nargs="*", metavar="op", help="operators (default: all with CUDA kernels)")
    add("--device", choices=sorted(DEVICES), default="h200")
    add(
        "--dtype",
        nargs="+",
        choices=("float32", "bfloat16", "float16", "float64"),
        default=["float32", "bfloat16"],
    )
    add("--size", nargs="+", metavar="NAME", help="only sizes whose name starts so")
    add("--mode", nargs="+", metavar="MODE", help="only these modes")
    add("--kernels", action="store_true", help="every launch with all its bounds")
    add("--json", type=Path, metavar="PATH", help="write the rows")
    add("--keep", action="store_true", help="write the rows to tools/gpu_model/predicted.json")
    add(
        "--measured",
        type=Path,
        metavar="PATH",
        help="a benchmark's JSON, or a folder of them: beside kept rows",
    )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 0, or 2 on bad arguments."""
    options = parser().parse_args(arguments)
    if options.measured is not None:
        return compare(json.loads(KEPT.read_text(encoding="utf-8"))["rows"], options.measured)
    import torch  # seconds, and not needed to compare

    from benchmarks.harness.registry import discover
    from tools.gpu_model import predict, trace

    known = {name: benchmark for name, benchmark in discover().items() if name in trace.CUTS}
    if unknown := [name for name in options.operators if name not in known]:
        print(f"error: no predictions for {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    device = DEVICES[options.device]
    rows = []
    for name in options.operators or known:
        benchmark = known[name]
        for case in benchmark.cases:
            if "cuda" not in case.devices or not _wanted(case.name, options.size):
                continue
            for mode in benchmark.modes:
                if not trace.can_trace(benchmark, mode) or (options.mode and mode.name not in options.mode):
                    continue
                for dtype in ("uint8",) if "uint8" in case.sizes else options.dtype:
                    own = torch.float32 if dtype == "uint8" else getattr(torch, dtype)
                    row = predict.predict(benchmark, case, mode, own, device)
                    rows.append({**row.to_json(), "dtype": dtype})
                    _print_row(rows[-1], len(rows) == 1, device.name)
                    if options.kernels:
                        _print_launches(row)
    data = {"device": device.name, "what": "predicted, not measured", "rows": rows}
    for path in [options.json] * (options.json is not None) + [KEPT] * options.keep:
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


def _wanted(name: str, starts: Sequence[str] | None) -> bool:
    return not starts or any(name.startswith(start) for start in starts)


def _print_row(row: Mapping[str, Any], first: bool, device: str) -> None:
    if first:
        print(f"Predicted for one {device}, not measured. Microseconds.")
        print(f"{'operator, size, mode, dtype':72} {'predicted':>10} {'floor':>8} {'ratio':>6}  bound")
    name = ", ".join(str(row[column]) for column in COLUMNS)
    print(
        f"{name:72} {row['predicted_us']:10.1f} {row['floor_us']:8.1f} {row['ratio']:6.2f}  {row['bound']}",
        flush=True,
    )


def _print_launches(row: Any) -> None:
    for each in row.launches:
        bounds = ", ".join(f"{name} {value:.1f}" for name, value in each.bounds.items() if name != "launches")
        note = f"; {each.matched:.0%} of requests matched" if each.matched < 0.995 else ""
        note += f"; {each.unseen_loops} loops unseen" if each.unseen_loops else ""
        print(
            f"    {each.kernel}: {each.microseconds:.1f} {each.bound} ({bounds}; {each.blocks} blocks, "
            f"{each.warps_resident} warps a multiprocessor, {each.instructions:.3g} instructions{note})"
        )


def _measured(data: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], float]]:
    """Rows of a benchmark's JSON that ran on a GPU, and microseconds a call of ours."""
    if data.get("device") != "cuda":
        return
    for record in data["records"]:
        dtype = "uint8" if "uint8" in record["sizes"] else record["dtype"]
        key = (data["operator"], record["case"], record["mode"], dtype)
        yield key, record["contenders"]["ours"]["median"] * 1e6


def compare(rows: Iterable[Mapping[str, Any]], measured: Path) -> int:
    """Prints predicted beside measured, and how far each bound is off; 2 if nothing can be compared."""
    predicted = {tuple(row[column] for column in COLUMNS): row for row in rows}
    files = sorted(measured.glob("*.json")) if measured.is_dir() else [measured]
    off: dict[str, list[float]] = defaultdict(list)
    for file in files:
        data = json.loads(file.read_text(encoding="utf-8"))
        for key, microseconds in _measured(data):
            row = predicted.get(key)
            if row is None:
                continue
            factor = microseconds / row["predicted_us"]
            off[row["bound"]].append(math.log(factor))
            name = ", ".join(key)
            beside = f"predicted {row['predicted_us']:9.1f}  measured {microseconds:9.1f}  x {factor:5.2f}"
            print(f"{name:72} {beside}  {row['bound']}")
    for bound, logarithms in sorted(off.items()):
        mean = math.exp(sum(logarithms) / len(logarithms))
        print(f"{bound}: measured is {mean:.2f} times predicted, over {len(logarithms)} rows")
    if not off:
        print(f"error: no row of {measured} has a prediction", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
