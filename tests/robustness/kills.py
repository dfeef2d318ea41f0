"""Kills writers at random moments: afterwards the file is whole, and what was written before is there.

    python -m tests.robustness.kills --kills 1000

A writer writes one version of a file after the other and says when each is done. It is killed by SIGKILL.
Then the file must be the last version that was said to be done, or the one after it; and when the next writer
has written, nothing of those that were killed is left in the folder.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tests.robustness.written import KINDS

ROWS = 10_000  # of a version: a write takes some milliseconds
PAUSE = (
    0.06  # seconds until the first kill, at most; later ones so that about every other finds a new version
)


@dataclass
class Findings:
    """What came of killing the writers of one kind of file.

    Attributes:
        kills: how many.
        within: of those, so many left an unfinished file: they came while it was being written.
        versions: that were said to be done.
        seconds: that all took.
    """

    kills: int = 0
    within: int = 0
    versions: int = 0
    seconds: float = 0.0


def campaign(kind: str, kills: int, seed: int, folder: Path) -> Findings:
    """Kills writers of one kind of file in a folder of their own.

    Raises:
        AssertionError: a version was lost, or something stays behind.
    """
    chance, found, start = random.Random(f"{kind} {seed}"), Findings(), time.monotonic()
    torch.set_num_threads(1)  # a thread pool does not live through fork
    path, write, read = folder / kind, KINDS[kind].write, KINDS[kind].read
    write(path, 1, ROWS)
    expected = {entry.name for entry in folder.iterdir()}
    done = np.frombuffer(mmap.mmap(-1, 8), np.int64)  # shared with the writers, which set it in one step
    version, latest = 1, PAUSE
    while found.kills < kills:
        done[0] = version
        writer = os.fork()
        if writer == 0:
            _write_for_ever(kind, path, version, done)
        time.sleep(chance.uniform(0.0, latest))
        os.kill(writer, signal.SIGKILL)
        _, status = os.waitpid(writer, 0)
        assert os.WIFSIGNALED(status), f"the writer of {kind} failed by itself"
        said = int(done[0])
        now = read(path)
        assert now in (said, said + 1), f"{kind}: version {said} was written, but {now} is there"
        left = {entry.name for entry in folder.iterdir()} - expected
        found.kills += 1
        found.within += bool(left)
        assert len(left) <= 1, f"{kind}: {sorted(left)} pile up"
        found.versions += said - version
        latest *= 0.8 if said > version else 1.2
        version = now
    write(path, version + 1, ROWS)
    left = {entry.name for entry in folder.iterdir()} - expected
    assert not left, f"{kind}: {sorted(left)} stay behind"
    found.seconds = time.monotonic() - start
    return found


def _write_for_ever(kind: str, path: Path, version: int, done: np.ndarray) -> None:
    try:
        while True:
            version += 1
            KINDS[kind].write(path, version, ROWS)
            done[0] = version
    finally:
        os._exit(1)


def main() -> None:
    """The command: as many kills as asked for, in equal parts over all kinds of files."""
    parser = argparse.ArgumentParser(
        "python -m tests.robustness.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for kind in KINDS:
        with TemporaryDirectory() as folder:
            found = campaign(kind, options.kills // len(KINDS), options.seed, Path(folder))
        print(
            f"{kind}: {found.kills} kills, {found.within} of them within a write, {found.versions} versions "
            f"written, none lost, nothing left behind; {found.seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
