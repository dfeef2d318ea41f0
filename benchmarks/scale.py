"""Re-ranking by size of the gallery: time, memory and how both grow, each size in processes of its own.

    python -m benchmarks.scale --size 5k 10k                   # a first look
    python -m benchmarks.scale --keep --update-pages          # all sizes; idle machine

Per size: the exact search alone ("search"), what is left when its lists are given ("rest"), the whole call
from features to the 100 best of each query ("re-ranking"), and the 21 nearest of all items as a PyTorch user
writes it ("blocked top-21"), each the quickest of a few calls; and the growth of a fresh process's peak
memory by one whole call. Before that the lists of a few items are compared with float64 distances.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import reid_ops
from benchmarks import k_reciprocal
from benchmarks.harness import memory, report
from benchmarks.harness.check import CheckFailed
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch, available_cores, why_not_kept
from benchmarks.harness.model import Case
from benchmarks.harness.pages import MEASURED, machine_line, renew, table

NAME = "scale"
TOPK = 100
_ROOT = Path(__file__).resolve().parents[1]
_CHECKED = 16  # items whose lists are compared
_ENOUGH = 2.0  # seconds: a quicker call is repeated
_HEADINGS = (
    "size",
    "queries × gallery × length",
    "search, s",
    "rest, s",
    "re-ranking, s",
    "blocked top-21, s",
    "re-ranking / blocked top-21",
    "features, GB",
    "memory beyond, GB",
    "one N × N float32 matrix, GB",
)


def _case(name: str, queries: int, gallery: int, dimension: int, identities: int) -> Case:
    sizes = {"queries": queries, "gallery": gallery, "dimension": dimension, "identities": identities}
    return Case(name, sizes)


CASES = (
    *k_reciprocal.SWEEP,
    _case("Market-1501", 3368, 19732, 512, 1100),
    _case("MSMT17", 11_659, 82_161, 512, 3060),
)
CUDA_CASES = (*CASES, _case("1000k", 10_000, 1_000_000, 512, 55_000))


def features_of(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """Query and gallery, clustered."""
    query, gallery = k_reciprocal.clustered(case.sizes)
    return query.to(device), gallery.to(device)


def check(query: Tensor, gallery: Tensor, found: Tensor) -> None:
    """Lists of some items against float64 distances; CheckFailed if a nearer item was passed over."""
    features = torch.cat([query, gallery])
    for item in torch.linspace(0, len(features) - 1, _CHECKED).long().tolist():
        distance = (features.double() - features[item].double()).square_().sum(1)
        nearest = distance.topk(found.shape[1], largest=False).values.sort().values
        chosen = distance[found[item].long()]
        if not torch.allclose(chosen, nearest, rtol=1e-5, atol=1e-12):
            raise CheckFailed(f"{NAME}: the list of item {item} is not that of the nearest")


def measure_times(case: Case, device: str) -> dict[str, float]:
    """Seconds of each part."""
    query, gallery = features_of(case, device)
    neighbours = reid_ops.rerank_neighbours(query, gallery, k1=k_reciprocal.K1)
    check(query, gallery, neighbours.indices)
    rerank = reid_ops.k_reciprocal_rerank
    return {
        "search": _quickest(lambda: reid_ops.rerank_neighbours(query, gallery, k1=k_reciprocal.K1), device),
        "rest": _quickest(lambda: rerank(query, gallery, topk=TOPK, neighbours=neighbours), device),
        "rerank": _quickest(lambda: rerank(query, gallery, topk=TOPK), device),
        "blocked": _quickest(lambda: k_reciprocal.blocked_topk(query, gallery), device),
    }


def _quickest(call: Callable[[], object], device: str) -> float:
    """Least of three, or the only one if it is long."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and seconds[0] < _ENOUGH):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_memory(case: Case, device: str) -> dict[str, int]:
    """Bytes of the features, and the growth of the peak beyond them."""
    query, gallery = features_of(case, device)
    small = (query[:50].clone(), gallery[:500].clone())

    def rerank(query: Tensor, gallery: Tensor) -> Tensor:
        values, _ = reid_ops.k_reciprocal_rerank(query, gallery, topk=TOPK)
        return values

    rerank(*small)  # loads code and libraries
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        rerank(query, gallery)
        growth = torch.cuda.max_memory_allocated() - before
    else:
        growth = memory.growth(lambda: rerank(query, gallery))
    return {"features": query.nbytes + gallery.nbytes, "memory": growth}


def measure(case: Case, device: str, threads: int) -> dict[str, Any]:
    """A record of one size, by processes of its own; CheckFailed if one fails."""
    record: dict[str, Any] = {"case": case.name, "sizes": dict(case.sizes), "threads": threads}
    for what, environment in (("times", None), ("memory", memory.ENVIRONMENT)):
        command = [sys.executable, "-m", "benchmarks.scale", "--size", case.name, "--device", device]
        command += ["--threads", str(threads), "--child", what]
        result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, env=environment)
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
            raise CheckFailed(f"{NAME}: {case.name}, {what}: {last}")
        record |= json.loads(result.stdout.splitlines()[-1])
    return record


def render_block(results: Path = report.RESULTS) -> str:
    """The table in docs/measured.md of every kept document, and a line for a device without one."""
    blocks = []
    for device, name in (("cpu", "CPU"), ("cuda", "GPU")):
        documents = [report.read(path) for path in sorted(results.glob(f"{NAME}-{device}-*.json"))]
        blocks += [_render(found) for found in documents]
        if not documents:
            blocks.append(f"{name}: not yet measured")
    return "\n\n".join(blocks)


def _render(found: dict[str, Any]) -> str:
    rows = [_fields(record) for record in found["records"]]
    return f"{machine_line(found)}\n\n{table(_HEADINGS, rows, left=2)}"


def _fields(record: dict[str, Any]) -> list[str]:
    sizes = record["sizes"]
    items = sizes["queries"] + sizes["gallery"]
    return [
        record["case"],
        f"{sizes['queries']:,} × {sizes['gallery']:,} × {sizes['dimension']}",
        *(f"{record[part]:.3g}" for part in ("search", "rest", "rerank", "blocked")),
        f"{record['rerank'] / record['blocked']:.2f}",
        *(f"{each / 1e9:.2g}" for each in (record["features"], record["memory"], 4 * items**2)),
    ]


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    add = options.add_argument
    names = [case.name for case in CUDA_CASES]
    add("--size", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int, default=available_cores(), help="default: %(default)s")
    add("--json", type=Path, metavar="PATH", help="write the results")
    add("--keep", action="store_true", help="write them to benchmarks/results/ under their proper name")
    add("--update-pages", action="store_true", help="then, or only, renew the table in docs/measured.md")
    add("--child", choices=("times", "memory"), help=argparse.SUPPRESS)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0, or 1 if a check failed, or 2 on bad arguments."""
    options = parser().parse_args(arguments)
    known = CASES if options.device == "cpu" else CUDA_CASES
    cases = [case for case in known if options.size is None or case.name in options.size]
    if not cases:
        return _usage(f"no such size on {options.device}")
    if options.device == "cuda" and not torch.cuda.is_available():
        return _usage("--device cuda: torch sees no CUDA device")
    torch.set_num_threads(options.threads)
    if options.child:
        measured = measure_times if options.child == "times" else measure_memory
        print(json.dumps(measured(cases[0], options.device)))
        return 0
    reason = why_not_kept(reid_ops.build_info()["commit"]) if options.keep else None
    if reason:
        return _usage(f"--keep: {reason}")
    try:
        if not options.update_pages or options.keep or options.json:
            _run(cases, options)
        if options.update_pages:
            changed = renew(NAME, render_block(), MEASURED)
            print(f"{MEASURED.name}: {NAME} {'renewed' if changed else 'unchanged'}")
    except CheckFailed as failure:
        print(f"failed, nothing written: {failure}", file=sys.stderr)
        return 1
    except ValueError as error:
        return _usage(str(error))
    return 0


def _run(cases: list[Case], options: argparse.Namespace) -> None:
    watch = LoadWatch()
    watch.settle()
    records = []
    for case in cases:
        with watch.window():
            records.append(measure(case, options.device, options.threads))
        print(" | ".join(_fields(records[-1])), flush=True)
    given = {"size": options.size, "threads": options.threads}
    found = report.document(NAME, options.device, given, records, Floors(options.device), watch)
    if found["busy"]:
        print(f"WARNING: other processes used {found['others']:.2f} cores: these figures are no results")
    if options.json:
        report.write(found, options.json)
    if options.keep:
        report.write(found, report.kept_path(found))
        print(f"kept: benchmarks/results/{report.kept_path(found).name}")


def _usage(message: str) -> int:
    print(f"python -m benchmarks.scale: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
