"""Calls in processes that are watched: a signal or a hang ends one call and not the campaign."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import reid_ops

from . import __doc__ as description
from . import public, raw
from .call import Call
from .chance import Chance

ROOT = Path(__file__).parents[3]
MEMORY = 6 << 30  # bytes of address space beyond what the libraries take
HANG, LOOK = 20.0, 0.05  # seconds
KINDS = ("public", "raw")


@dataclass
class Findings:
    """What a campaign came to.

    Attributes:
        outcomes: how many calls came to what: "answer", or an error's name.
        wrong: a line for each call that came to something else.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def run(
    kind: str, seed: int, first: int, calls: int, library: str = "reid_ops", load: str | None = None
) -> Findings:
    """Makes calls; where one ends its process or hangs, the next process goes on behind it.

    Args:
        kind: ``"public"`` or ``"raw"``.
        seed: of all calls.
        first: number of the first call.
        calls: how many.
        library: that has the operators.
        load: the library's file.
    """
    found = Findings()
    end = first + calls
    with TemporaryDirectory() as folder:
        progress, results = Path(folder) / "progress", Path(folder) / "results"
        while first < end:
            progress.write_text("")
            results.write_text("")
            words = [sys.executable, "-m", __package__, kind, "--here", folder, "--library", library]
            words += ["--seed", str(seed), "--first", str(first), "--calls", str(end - first)]
            words += ["--load", load] if load else []
            with (Path(folder) / "errors").open("w+") as errors:
                with subprocess.Popen(words, cwd=ROOT, stdout=errors, stderr=subprocess.STDOUT) as child:
                    hangs = _watch(child, progress)
                errors.seek(0)
                text = errors.read()
            for line in results.read_text().splitlines():
                outcome, described = json.loads(line)
                found.outcomes[outcome] += 1
                found.wrong += [described] if described else []
            if child.returncode == 0:
                break
            at = int(progress.read_text().strip() or first)
            found.outcomes["hang" if hangs else "signal"] += 1
            what = "hangs" if hangs else f"ends the process ({child.returncode})"
            found.wrong.append(f"call {at}: {_make(kind, seed, at)}: {what}; {text[-900:]}")
            first = at + 1
    return found


def _make(kind: str, seed: int, number: int, library: str = "reid_ops") -> Call:
    torch.manual_seed(number)
    chance = Chance(seed, number)
    return public.make(chance) if kind == "public" else raw.make(chance, library)


def _watch(child: subprocess.Popen[bytes], progress: Path) -> bool:
    """Waits for the process; kills it if one call takes too long."""
    last, looks = "", 0
    while child.poll() is None:
        time.sleep(LOOK)
        now = progress.read_text()
        # Looks are counted, not seconds: both processes may be stopped for a while. The first call comes
        # after the libraries were imported, on a machine that may be busy.
        last, looks = now, looks + 1 if now == last else 0
        if looks * LOOK > (HANG if last.strip() else 10 * HANG):
            child.kill()
            return True
    return False


def run_here(
    kind: str, seed: int, first: int, calls: int, folder: Path, library: str, load: str | None
) -> None:
    """Makes calls in this process; a line in the folder's results for each, and which one is under way."""
    faulthandler.enable()
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    reid_ops._extension.require()
    if load:
        torch.ops.load_library(load)
        reid_ops._dispatch.add_library(library)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with (
        reid_ops._dispatch.use_library(library),
        (folder / "progress").open("wb", buffering=0) as progress,
        (folder / "results").open("w", buffering=1) as results,
    ):
        for number in range(first, first + calls):
            os.pwrite(progress.fileno(), f"{number:12d}".encode(), 0)
            call = _make(kind, seed, number, library)
            outcome = call.outcome()
            wrong = f"call {number}: {call}: {outcome[2:]}" if outcome.startswith("!") else ""
            results.write(json.dumps(["wrong" if wrong else outcome, wrong]) + "\n")
        os.pwrite(progress.fileno(), b" " * 12, 0)  # what comes now is no call's


def main(words: Sequence[str] | None = None) -> int:
    """The command; its status is 1 if any call was wrong."""
    parser = argparse.ArgumentParser(
        "python -m tests.robustness.fuzz",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", default="reid_ops", help="that has the operators")
    parser.add_argument("--load", help="its file")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    given = (options.kind, options.seed, options.first, options.calls)
    if options.here:
        run_here(*given, options.here, options.library, options.load)
        return 0
    start = time.monotonic()
    found = run(*given, options.library, options.load)
    seconds = time.monotonic() - start
    print("\n".join(found.wrong))
    print(
        f"{options.kind}, seed {options.seed}, calls {options.first} to {options.first + options.calls - 1}: "
        f"{len(found.wrong)} wrong; {dict(found.outcomes.most_common())}; {seconds:.0f} s"
    )
    return 1 if found.wrong else 0
