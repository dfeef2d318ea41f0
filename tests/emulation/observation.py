"""What an observed library saw: launches with their accesses by source line, and races.

Inside ``with Observation(build_operators(observe=True), profile=True) as seen:`` call operators; what was
seen is then in ``seen.launches`` and ``seen.races``.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

Place = tuple[str, int]
Chain = tuple[Place, ...]
_SUBJECT = ("csrc", "observed", "primitives", "planted")  # folders of device code


@dataclass(frozen=True)
class Site:
    """A source line's accesses of one kind, all warps together.

    ``chain``: the line in device code, then the lines that the functions around it were inlined at. ``space``
    is "global", "shared" or "wait" (barriers and warp primitives), ``kind`` "read", "write" or "atomic",
    ``size`` bytes a lane. ``units``: sectors of 32 bytes, or passes over the shared banks; ``ideal_units``
    the fewest that hold the same bytes.
    """

    chain: Chain
    space: str
    kind: str
    size: int
    requests: int
    lanes: int
    units: int
    ideal_units: int

    @property
    def place(self) -> Place:
        """File and line."""
        return self.chain[0]


@dataclass(frozen=True)
class Tensor:
    """Distinct bytes, and sectors of 32, of the memory an argument of the kernel points to.

    ``argument`` counts 8-byte words of the kernel's arguments; -1 is memory that none points to.
    """

    argument: int
    read: int
    written: int
    sectors_read: int
    sectors_written: int


@dataclass(frozen=True)
class Launch:
    """One kernel launch."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared: int
    cluster_blocks: int
    sites: tuple[Site, ...]
    tensors: tuple[Tensor, ...]

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]


@dataclass(frozen=True)
class Race:
    """Two accesses that nothing orders, the first time that they were seen, and how often they were."""

    kernel: str
    space: str
    before: Place
    now: Place
    kinds: str  # such as "write, then read"
    threads: str
    count: int
    test: str

    def __str__(self) -> str:
        where = f"{self.before[0]}:{self.before[1]} and {self.now[0]}:{self.now[1]}"
        what = f"race in {self.kernel}: {self.kinds} at {where}, {self.space} memory"
        return f"{what}, {self.threads}, {self.count} times; first in {self.test or 'no test'}"


class Observation:
    """Observes what an observed library runs inside a ``with``."""

    def __init__(self, library: Path, *, profile: bool = False, races: bool = False) -> None:
        self._path, self._wish = library, (int(profile), int(races))
        self._library = ctypes.CDLL(str(library))
        self.launches: list[Launch] = []
        self.races: list[Race] = []

    def __enter__(self) -> Observation:
        self._take()
        self._library.reid_ops_emulation_observe(*self._wish)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.reid_ops_emulation_observe(0, 0)
        self.launches, self.races = read(self._path, self._take())

    def _take(self) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            if self._library.reid_ops_emulation_take(str(report).encode()) != 0:
                raise OSError(f"the emulation could not write {report}")
            return report.read_text(encoding="utf-8").splitlines()


def read(library: Path, lines: Iterable[str]) -> tuple[list[Launch], list[Race]]:
    """Launches and races from the lines of a report of this library."""
    records = [json.loads(line) for line in lines]
    launches = [record for record in records if record["type"] == "launch"]
    races = [record for record in records if record["type"] == "race"]
    addresses = {record["kernel"] for record in records}
    addresses |= {site["place"] for launch in launches for site in launch["sites"]}
    addresses |= {race[end]["place"] for race in races for end in ("before", "now")}
    code = locate(library, tuple(sorted(addresses)))
    return [_launch(launch, code) for launch in launches], [_race(race, code) for race in races]


@functools.lru_cache(maxsize=64)
def locate(library: Path, addresses: tuple[int, ...]) -> Mapping[int, tuple[str, Chain]]:
    """Function of each offset, and its source lines in device code, the innermost first."""
    given = "\n".join(hex(address) for address in addresses) + "\n"
    command = ["addr2line", "-a", "-i", "-f", "-C", "-e", str(library)]
    said = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
    found: dict[int, list[tuple[str, Place]]] = {}
    address = 0
    function: str | None = None
    for line in said.splitlines():
        if line.startswith("0x"):
            address, function = int(line, 16), None
            found[address] = []
        elif function is None:
            function = line
        else:
            file, _, number = line.partition(" ")[0].rpartition(":")
            found[address].append((function, (_short(file), int(number) if number.isdigit() else 0)))
            function = None
    return {address: _subject(frames) for address, frames in found.items()}


def _short(file: str) -> str:
    parts = Path(file).parts
    for folder in _SUBJECT:
        if folder in parts:
            last = len(parts) - 1 - parts[::-1].index(folder)
            return "/".join(parts[last + 1 :] if folder == "csrc" else parts[last:])
    return file


def _subject(frames: Sequence[tuple[str, Place]]) -> tuple[str, Chain]:
    own = [place for _, place in frames if not Path(place[0]).is_absolute() and "??" not in place[0]]
    return frames[-1][0], tuple(own or [place for _, place in frames])


def _launch(record: Mapping[str, Any], code: Mapping[int, tuple[str, Chain]]) -> Launch:
    sites: dict[tuple[Chain, str, str, int], list[int]] = {}
    for site in record["sites"]:
        key = (code[site["place"]][1], site["space"], site["kind"], site["size"])
        totals = sites.setdefault(key, [0, 0, 0, 0])
        for place, name in enumerate(("requests", "lanes", "units", "ideal_units")):
            totals[place] += site[name]
    return Launch(
        kernel=code[record["kernel"]][0],
        grid=tuple(record["grid"]),
        block=tuple(record["block"]),
        dynamic_shared=record["dynamic_shared"],
        cluster_blocks=record["cluster_blocks"],
        sites=tuple(Site(*key, *totals) for key, totals in sorted(sites.items())),
        tensors=tuple(Tensor(**tensor) for tensor in record["tensors"]),
    )


def _race(record: Mapping[str, Any], code: Mapping[int, tuple[str, Chain]]) -> Race:
    before, now = record["before"], record["now"]
    kinds = ", then ".join("write" if end["write"] else "read" for end in (before, now))
    threads = " and ".join(f"block {end['block']} thread {end['thread']}" for end in (before, now))
    places = code[before["place"]][1][0], code[now["place"]][1][0]
    return Race(
        code[record["kernel"]][0], record["space"], *places, kinds, threads, record["count"], record["test"]
    )
