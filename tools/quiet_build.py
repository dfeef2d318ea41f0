"""Builds in place, a line a step; all that compilers and setuptools say goes into build/build.log.

    python -m tools.quiet_build [--no-cuda-without-gpu]

A build that fails shows the log. With --no-cuda-without-gpu CUDA is left out where torch sees no GPU and
REID_OPS_CUDA is not set: compiling the kernels takes minutes that only a GPU gives back.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "build.log"
COMMAND = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
FACT = "reid-ops: "  # setup.py's own lines begin so
# Not handed on: ninja would share make's few jobs instead of using every core.
MAKE = ("MAKEFLAGS", "MFLAGS")
NO_GPU = FACT + "CUDA off: torch sees no GPU here; REID_OPS_CUDA=1 builds it all the same"


def step_of(line: str, root: Path = ROOT) -> str | None:
    """What to show of a line of output: ninja's count and the source, setup.py's own words, or nothing."""
    if line.startswith(FACT):
        return line
    # The last -c is the source's: torch adds one of its own.
    match = re.match(r"(\[\d+/\d+\]) .* -c (\S+) ", line)
    return f"{match.group(1)} {match.group(2).removeprefix(f'{root}/')}" if match else None


def cuda_environment(environment: Mapping[str, str], gpu_seen: Callable[[], bool]) -> dict[str, str]:
    """What to add to the environment: REID_OPS_CUDA=0 where nobody has set it and there is no GPU."""
    return {} if environment.get("REID_OPS_CUDA") or gpu_seen() else {"REID_OPS_CUDA": "0"}


def torch_sees_a_gpu() -> bool:
    """Whether kernels could run on this machine."""
    import torch

    return torch.cuda.is_available()


def build(
    command: Sequence[str], log: Path, environment: Mapping[str, str], shown: Callable[[str], str | None]
) -> int:
    """Runs the command; its output goes into the log, and ``shown`` says what of each line to print."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**{name: os.environ[name] for name in os.environ if name not in MAKE}, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        _follow(process.stdout, kept, shown)
    return process.returncode


def _follow(lines: Iterable[str], kept: TextIO, shown: Callable[[str], str | None]) -> None:
    for line in lines:
        kept.write(line)
        text = shown(line.rstrip("\n"))
        if text is not None:
            print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the build's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.quiet_build", description=__doc__.splitlines()[0])
    parser.add_argument("--no-cuda-without-gpu", action="store_true", help="unless REID_OPS_CUDA is set")
    options = parser.parse_args(arguments)
    added = cuda_environment(os.environ, torch_sees_a_gpu) if options.no_cuda_without_gpu else {}
    start = time.monotonic()

    def shown(line: str) -> str | None:
        return NO_GPU if added and line.startswith(f"{FACT}CUDA off") else step_of(line)

    status = build(COMMAND, LOG, added, shown)
    text = LOG.read_text(encoding="utf-8")
    where = LOG.relative_to(ROOT)
    if status != 0:
        print(f"{text}\nthe build failed; the lines above are in {where}", file=sys.stderr)
        return status
    warnings = len(re.findall(r"\bwarning: ", text))
    told = f", {warnings} warning{'s' * (warnings > 1)} in {where}" if warnings else ""
    print(f"{FACT}built in {time.monotonic() - start:.0f} s{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
