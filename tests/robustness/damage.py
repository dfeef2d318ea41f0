"""Files that are damaged or made up: each is refused by one clear error, or says what it said before.

    python -m tests.robustness.damage flips                     every byte of every kind of file, changed
    python -m tests.robustness.damage crafted --files 20000    faiss's part of an index, with right checksums

Files are read in processes of their own, which a signal ends, of 4 GB at most.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from reid_ops.search import storage
from tests.robustness.written import APPROXIMATE, KINDS

MEMORY = 4 << 30  # bytes of address space beyond what the process has
SECONDS = 20  # of computing that reading one file may take
VERSION, ROWS = 5, 40
EXTREMES = {
    1: (0, 1, 127, 255),
    4: (0, 1, 1000, 2**31 - 1, 2**32 - 1),
    8: (0, 1, 1000, 2**40, 2**63 - 1, 2**64 - 1),
}


def outcome(read: Callable[[Path], int], path: Path) -> str:
    """What reading a file came to; what must not be starts with "!"."""
    try:
        version = read(path)
    except ValueError as error:
        text = str(error)
        return "refused" if path.name in text and "\n" not in text.strip() else f"! unclear: {text}"
    except BaseException as error:
        return f"! {type(error).__name__}: {error}"
    return "harmless" if version == VERSION else f"! version {version}"


def isolated(count: int, work: Callable[[int], str]) -> tuple[Counter[str], list[str]]:
    """Outcomes of ``work(0)`` to ``work(count - 1)`` in processes of their own, and what was wrong."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    first = 0
    while first < count:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work_here(range(first, count), work, writer)
        os.close(writer)
        with os.fdopen(reader, errors="replace") as results:
            lines = results.read().splitlines()
        _, status = os.waitpid(child, 0)
        finished = [line for line in lines if not line.startswith("> ")]
        for line in finished:
            outcomes[line if not line.startswith("!") else "wrong"] += 1
        wrong += [f"{first + place}: {line}" for place, line in enumerate(finished) if line.startswith("!")]
        first += len(finished)
        if first < count:
            outcomes["signal"] += 1
            wrong.append(f"{first}: ends the process ({status})")
            first += 1
    return outcomes, wrong


def _work_here(numbers: range, work: Callable[[int], str], writer: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # faiss and torch complain there
    try:
        for number in numbers:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            os.write(writer, (" ".join(work(number).split())[:300] + "\n").encode())
        os._exit(0)
    finally:
        os._exit(1)


def flips(kind: str, every: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Every so-manieth byte of a small file of a kind becomes another one, one at a time."""
    how = (KINDS | APPROXIMATE)[kind]
    path = folder / "file"
    how.write(path, VERSION, ROWS)
    content = path.read_bytes()
    places = range(0, len(content), every)

    def flip(number: int) -> str:
        place = places[number]
        changed = bytearray(content)
        changed[place] ^= random.Random(place).randrange(1, 256)
        path.write_bytes(changed)
        return outcome(how.read, path)

    return isolated(len(places), flip)


def crafted(kind: str, files: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Files of an approximate index whose checksums are right and whose faiss part was changed somewhere."""
    how, path = APPROXIMATE[kind], folder / "file"
    how.write(path, VERSION, 8 * ROWS)
    with storage.Reader(path) as reader:
        facts: dict[str, Any] = dict(reader.facts)
        sizes = {name: entry["size"] for name, entry in facts.pop("sections").items()}
        sections = {name: reader.array(name, np.uint8, (size,)) for name, size in sizes.items()}

    def craft(number: int) -> str:
        changed = mutated(sections["faiss"].tobytes(), random.Random(f"{kind} {seed} {number}"))
        with storage.locked(path):
            storage.write(path, facts, {**sections, "faiss": np.frombuffer(changed, np.uint8)})
        return outcome(how.read, path)

    return isolated(files, craft)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes, whole numbers or lengths of it changed; half of the changes are in the first 400 bytes."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = chance.choice((1, 4, 8))
        place = chance.randrange(max(1, min(len(changed) - size, chance.choice((400, len(changed))))))
        match chance.randrange(6):
            case 0 | 1:
                value = chance.choice(EXTREMES[size]).to_bytes(size, "little")
                changed[place : place + size] = value
            case 2:
                changed[place] ^= 1 << chance.randrange(8)
            case 3:  # a number a little other than it was
                (number,) = struct.unpack_from("<i", changed.ljust(place + 4, b"\0"), place)
                struct.pack_into("<I", changed, place, (number + chance.choice((-1, 1, 7))) % 2**32)
            case 4:
                other = chance.randrange(max(1, len(changed) - size))
                changed[place : place + size] = changed[other : other + size]
            case 5 if chance.random() < 0.3:
                changed = changed[:place] if chance.random() < 0.5 else changed + bytes(chance.randrange(40))
    return bytes(changed)


def main() -> int:
    """The command; its status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        "python -m tests.robustness.damage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("flips", "crafted"))
    parser.add_argument("--files", type=int, default=3000, help="crafted ones in all")
    parser.add_argument("--every", type=int, default=1, help="flips: take every so-manieth byte")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a thread pool does not live through fork
    bad = 0
    kinds = APPROXIMATE if options.what == "crafted" else KINDS | APPROXIMATE
    for kind in kinds:
        start = time.monotonic()
        with TemporaryDirectory() as folder:
            if options.what == "flips":
                outcomes, wrong = flips(kind, options.every, Path(folder))
            else:
                outcomes, wrong = crafted(kind, options.files // len(kinds), options.seed, Path(folder))
        bad += len(wrong)
        print(
            "\n".join([*wrong[:50], f"{kind}: {dict(outcomes)}; {time.monotonic() - start:.0f} s"]),
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
