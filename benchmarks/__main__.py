"""Command line: ``python -m benchmarks``. See the package's docstring for how to read the table."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import reid_ops
from benchmarks.harness import report
from benchmarks.harness.busy import MINIMUM_SECONDS, print_busy, run_busy
from benchmarks.harness.check import CheckFailed
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch, available_cores, keep_freed_memory, why_not_kept
from benchmarks.harness.model import Benchmark, Case, Mode
from benchmarks.harness.pages import update_busy_page, update_pages
from benchmarks.harness.registry import discover
from benchmarks.harness.runner import Settings, run_benchmark

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_EPILOG = """examples:
  python -m benchmarks --quick
  python -m benchmarks part_correlation --size L2 --threads 1 all --json l2.json
  python -m benchmarks part_correlation --keep --update-pages
  python -m benchmarks part_correlation --sweep --device cuda --dtype float32 bfloat16
  python -m benchmarks --busy 2
"""


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Checks operators, then times them against PyTorch, all contenders in turn.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("operators", nargs="*", metavar="op", help="operators to time (default: all); see --list")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", nargs="+", choices=_DTYPES, default=["float32"])
    add("--size", nargs="+", metavar="NAME", help='only cases whose name starts so, such as L2 or "L2 N=16"')
    add("--mode", nargs="+", metavar="MODE", help='only these modes, such as "forward"')
    add(
        "--threads",
        nargs="+",
        type=_threads,
        metavar="N",
        help='numbers, or "all" (default: 1 all)',
    )
    add("--rounds", type=int, default=9, help="rounds, at least 7 (default: %(default)s)")
    add("--sweep", action="store_true", help="the sweep over sizes instead of the cases")
    add("--headline", action="store_true", help="one row an operator, the one that speaks for it")
    add(
        "--busy",
        type=int,
        metavar="N",
        help="how much ours and PyTorch slow down under N busy loops, with all threads; one row an operator",
    )
    add("--quick", action="store_true", help="fewer cases and rounds, no torch.compile, no peak memory")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--memory", action=argparse.BooleanOptionalAction, default=None, help="peak memory (default: yes)")
    add(
        "--json", type=Path, metavar="PATH", help="write the results; a folder if several operators are timed"
    )
    add(
        "--keep", action="store_true", help="write the results to benchmarks/results/ under their proper name"
    )
    add(
        "--update-pages",
        action="store_true",
        help="then, or only, renew docs/measured.md and the README's ratios from kept results",
    )
    add("--list", action="store_true", help="list operators, cases, modes and contenders, and stop")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0, or 1 if a check failed, or 2 on bad arguments."""
    options = parser().parse_args(arguments)
    known = discover()
    unknown = [name for name in options.operators if name not in known]
    if unknown:
        return _usage(f"unknown operator {unknown[0]!r}; known: {', '.join(known)}")
    if options.rounds < 7:
        return _usage(f"--rounds must be at least 7, got {options.rounds}")
    if options.device == "cuda" and not torch.cuda.is_available():
        return _usage("--device cuda: torch sees no CUDA device")
    if options.busy is not None and options.busy < 1:
        return _usage(f"--busy must be at least 1, got {options.busy}")
    if options.busy is not None and (options.device != "cpu" or len(options.dtype) > 1 or options.sweep):
        return _usage("--busy is for the CPU, one dtype and no sweep")
    if options.busy is not None:
        options.headline = options.headline or not (options.size or options.mode)
    options.threads = options.threads or (["all"] if options.busy is not None else ["1", "all"])
    chosen = [known[name] for name in options.operators] or list(known.values())
    if options.list:
        _print_list(chosen)
        return 0

    if options.keep:
        reason = "a --quick run is only a first look" if options.quick else None
        reason = reason or why_not_kept(reid_ops.build_info()["commit"])
        if reason:
            return _usage(f"--keep: {reason}")
    keep_freed_memory()
    only_pages = options.update_pages and not (options.keep or options.json)
    try:
        if not only_pages:
            for benchmark in chosen:
                run = _run if options.busy is None else _run_busy
                run(benchmark, options, several=len(chosen) > 1)
        if options.update_pages:
            for benchmark in chosen:
                changed = update_pages(benchmark)
                print(f"pages: {benchmark.name} {'renewed' if changed else 'unchanged'}")
            print(f"pages: busy machines {'renewed' if update_busy_page() else 'unchanged'}")
    except CheckFailed as failure:
        print(f"check failed, nothing written: {failure}", file=sys.stderr)
        return 1
    except ValueError as error:
        return _usage(str(error))
    return 0


def _run(benchmark: Benchmark, options: argparse.Namespace, several: bool) -> None:
    cases, modes = select(benchmark, options)
    settings = settings_from(options)
    if options.device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # a convolution in float32 is to be one
    watch, floors = LoadWatch(), Floors(options.device)
    watch.settle()
    records: list[dict[str, Any]] = []
    dtypes = tuple(getattr(torch, name) for name in options.dtype)
    cells = len(cases) * len(modes) * len(dtypes) * len(settings.threads)
    errors = Console(stderr=True)
    # no refreshing thread: it would run while we measure
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=errors, auto_refresh=False, disable=not errors.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(benchmark.name, total=cells)

        def progress(text: str) -> None:
            bar.update(task, description=f"{benchmark.name}: {text}", completed=len(records), refresh=True)

        for record in run_benchmark(benchmark, cases, modes, dtypes, settings, floors, watch, progress):
            records.append(record)

    found = report.document(benchmark.name, options.device, _given(options), records, floors, watch)
    report.print_table(found, report.console())
    _keep(found, benchmark, options, several)


def _run_busy(benchmark: Benchmark, options: argparse.Namespace, several: bool) -> None:
    cases, modes = select(benchmark, options)
    settings = replace(settings_from(options), minimum_seconds=MINIMUM_SECONDS)
    watch = LoadWatch()
    watch.settle()
    dtype = getattr(torch, options.dtype[0])
    records = list(run_busy(benchmark, cases, modes, dtype, options.busy, settings, watch))
    found = report.document(
        benchmark.name, options.device, _given(options), records, Floors(options.device), watch
    )
    print_busy(found, report.console())
    _keep(found, benchmark, options, several)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in ("json", "list", "operators")}


def _keep(found: dict[str, Any], benchmark: Benchmark, options: argparse.Namespace, several: bool) -> None:
    """Writes the document where the command line wants it."""
    if options.json:
        path = options.json / f"{benchmark.name}.json" if several or options.json.is_dir() else options.json
        report.write(found, path)
        print(f"written: {path}")
    if options.keep:
        report.write(found, report.kept_path(found))
        print(f"kept: benchmarks/results/{report.kept_path(found).name}")


def select(benchmark: Benchmark, options: argparse.Namespace) -> tuple[tuple[Case, ...], tuple[Mode, ...]]:
    """The cases and modes asked for; ValueError if there are none."""
    cases = [
        case
        for case in (benchmark.sweep if options.sweep else benchmark.cases)
        if options.device in case.devices
    ]
    modes = [mode for mode in benchmark.modes if not options.sweep or mode.name in benchmark.sweep_modes]
    if options.headline:
        cases = [case for case in cases if case.name == benchmark.table_cases[options.device][0]]
        modes = [mode for mode in modes if mode.name == benchmark.headline]
    if options.size:
        cases = [case for case in cases if any(case.name.startswith(name) for name in options.size)]
    elif options.quick and not (options.sweep or options.headline):
        cases = [case for case in cases if case.quick]
    if options.mode:
        modes = [mode for mode in modes if mode.name in options.mode]
    if not cases or not modes:
        raise ValueError(f"{benchmark.name}: no case or mode of that name on {options.device}; see --list")
    return tuple(cases), tuple(modes)


def settings_from(options: argparse.Namespace) -> Settings:
    """How to measure, from the command line. A sweep, being long, leaves out compilation and memory."""
    short = options.quick or options.sweep
    every = available_cores()
    threads = dict.fromkeys(every if count == "all" else int(count) for count in options.threads)
    return Settings(
        device=options.device,
        threads=tuple(threads) if options.device == "cpu" else (every,),
        rounds=7 if short else options.rounds,
        minimum_seconds=0.005 if short else 0.02,
        compile=not (options.no_compile or short),
        memory=not short if options.memory is None else options.memory,
        prune=2.0 if short else 4.0,
    )


def _threads(text: str) -> str:
    if text != "all" and not (text.isdecimal() and 1 <= int(text) <= (os.cpu_count() or 1)):
        raise argparse.ArgumentTypeError(
            f'expected "all" or a number from 1 to {os.cpu_count()}, got {text!r}'
        )
    return text


def _print_list(chosen: list[Benchmark]) -> None:
    for benchmark in chosen:
        print(benchmark.name)
        print("  modes:      " + ", ".join(mode.name for mode in benchmark.modes))
        print("  contenders: ours, " + ", ".join(entry.name for entry in benchmark.formulations))
        for title, cases in (("cases", benchmark.cases), ("sweep", benchmark.sweep)):
            print(f"  {title}:")
            for case in cases:
                sizes = " ".join(f"{key}={value}" for key, value in case.sizes.items())
                print(f"    {case.name:<28} {'/'.join(case.devices):<9} {sizes}")


def _usage(message: str) -> int:
    print(f"python -m benchmarks: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
