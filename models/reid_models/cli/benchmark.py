"""``reid benchmark``: the microbenchmarks of a checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command import Command

if TYPE_CHECKING:
    from .parsing import ArgumentParser, Namespace

MARK = Path("benchmarks") / "harness" / "runner.py"  # what the folder of the project's benchmarks has


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", default=[], metavar="ARGUMENTS", help="of `python -m benchmarks`; see `--list`"
    )


def run(options: Namespace) -> None:
    folder = _checkout()
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    # Another process: the benchmarks set threads and memory for their whole process, and are not installed.
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options.words],
        env={**os.environ, "PYTHONPATH": path},
    )
    if ran.returncode:
        raise SystemExit(ran.returncode)


def _checkout() -> Path:
    """The working directory or one above it, or where reid_ops was built in place."""
    here = Path.cwd()
    package = importlib.util.find_spec("reid_ops")
    built = [] if package is None or package.origin is None else [Path(package.origin).parents[1]]
    for folder in (here, *here.parents, *built):
        if (folder / MARK).is_file():
            return folder
    raise FileNotFoundError(
        f"the folder benchmarks, which only a checkout of the project has, is not in {here} or above: "
        "change into the checkout"
    )


COMMAND = Command(
    name="benchmark",
    summary="checks and times the operators, in a checkout of the project",
    example="""
reid benchmark --list
reid benchmark part_correlation --quick
""",
    configure=configure,
    run=run,
    passes_on=True,
)
