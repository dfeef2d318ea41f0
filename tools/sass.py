"""Kernels in nvdisasm's text: instructions with their source lines, basic blocks, and loops.

`read(nvdisasm -c [-gi] text)` gives a :class:`Kernel` for every entry function. A loop is a natural one: a
branch back to a block that every way to the branch passes through. Blocks that lie elsewhere in the text, as
slow paths do, belong to the loop that they return to; functions that are called (the slow paths of divisions)
do not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

_SECTION = re.compile(r"^//-+ \.text\.(\S+) +-+$", re.M)
_LABEL = re.compile(r"^(\S+):$")
_INSTRUCTION = re.compile(
    r"^\s+/\*[0-9a-f]{4,6}\*/\s+\{?\s*(@!?U?P\w+ +)?([A-Z][\w.]*)\s*([^;]*?)\s*;?\s*\}?\s*$"
)
_LINE = re.compile(r'^\s*//## File "([^"]+)", line (\d+)')
_TARGET = re.compile(r"`\((\.L_[\w.]+)\)")
_REGISTER = re.compile(r"(?<![\w.])(R\d+)((?:\.[A-Z]\w*)*)((?:\.64)?)")

Place = tuple[str, int]


@dataclass(frozen=True)
class Instruction:
    """One instruction. ``places``: its source lines as (file, line), the innermost inlined function first."""

    predicate: str
    opcode: str  # with its suffixes
    operands: str
    places: tuple[Place, ...] = ()

    @property
    def name(self) -> str:
        """The opcode without suffixes."""
        return self.opcode.partition(".")[0]

    @property
    def targets(self) -> list[str]:
        """Labels that the instruction names."""
        return _TARGET.findall(self.operands)

    @property
    def conditional(self) -> bool:
        """Whether a branch may fall through."""
        return bool(self.predicate) or bool(re.match(r"!?U?[PR]\w+", self.operands)) or ".DIV" in self.opcode

    @property
    def bytes(self) -> int:
        """Bytes a lane that a load, a store or an atomic moves."""
        parts = self.opcode.split(".")
        for part, size in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("16", 2), ("U8", 1), ("S8", 1)):
            if part in parts:
                return size
        return 4

    @cached_property
    def registers(self) -> tuple[frozenset[int], frozenset[int]]:
        """Numbers of the registers that are written, and read."""
        parts = [part.strip() for part in re.split(r",(?![^\[]*\])", self.operands)]
        writes = _writes(self.name)
        written: set[int] = set()
        read: set[int] = set()
        first = True
        for part in parts:
            if not part or re.fullmatch(r"!?U?PT?\d*", part):
                continue
            target = first and writes and re.fullmatch(r"R\d+(\.\w+)*", part) is not None
            width = self._width(part, target)
            for register, _, wide in _REGISTER.findall(part):
                count = 2 if wide or ".64" in part else width
                numbers = range(int(register[1:]), int(register[1:]) + count)
                (written if target else read).update(numbers)
            first = False
        return frozenset(written), frozenset(read)

    def _width(self, part: str, target: bool) -> int:
        """Registers that an operand without a width of its own stands for."""
        if self.name in LOADS and target:
            return max(1, self.bytes // 4)
        if self.name in STORES and not part.startswith(("[", "desc")):
            return max(1, self.bytes // 4)
        if self.name in ("DFMA", "DMUL", "DADD", "DSETP"):
            return 2
        return 2 if target and ("WIDE" in self.opcode or "F64" in self.opcode.split(".")[1:2]) else 1


GLOBAL_LOADS = {"LDG", "LD"}
SHARED_LOADS = {"LDS", "LDSM"}
LOADS = GLOBAL_LOADS | SHARED_LOADS | {"LDL"}
STORES = {"STG", "ST", "STS", "STL"}
ATOMICS = {"ATOM", "ATOMG", "ATOMS", "RED"}
_NO_TARGET = STORES | {
    "RED",
    "BRA",
    "BRX",
    "EXIT",
    "BAR",
    "CALL",
    "RET",
    "BSSY",
    "BSYNC",
    "MEMBAR",
    "WARPSYNC",
    "FCHK",
    "R2P",
}


def _writes(name: str) -> bool:
    return name not in _NO_TARGET and "SETP" not in name


@dataclass(frozen=True)
class Block:
    """Instructions ``first`` to ``end`` (excluded), and the blocks that may follow."""

    first: int
    end: int
    successors: tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """A loop: its first block, all of its blocks, and those with a branch back."""

    header: int
    blocks: frozenset[int]
    latches: frozenset[int]


@dataclass(frozen=True)
class Kernel:
    """An entry function. ``name`` is mangled; ``blocks`` are those that can be reached, by number."""

    name: str
    instructions: tuple[Instruction, ...]
    blocks: Mapping[int, Block]
    loops: tuple[Loop, ...]
    dominators: Mapping[int, frozenset[int]]

    def of(self, blocks: Sequence[int] | frozenset[int]) -> list[Instruction]:
        """The instructions of some blocks, in the order of the text."""
        return [
            instruction
            for number in sorted(blocks)
            for instruction in self.instructions[self.blocks[number].first : self.blocks[number].end]
        ]

    @cached_property
    def reached(self) -> list[Instruction]:
        """All instructions that can be reached without a call."""
        return self.of(frozenset(self.blocks))

    def inner(self, loop: Loop) -> list[Loop]:
        """The loops inside this one."""
        return [other for other in self.loops if other.header != loop.header and other.blocks <= loop.blocks]

    def own(self, loop: Loop) -> frozenset[int]:
        """The loop's blocks that are in no inner loop."""
        return loop.blocks.difference(*(other.blocks for other in self.inner(loop)))

    def always(self, loop: Loop) -> frozenset[int]:
        """Of its own blocks those that every iteration runs."""
        return frozenset(
            block
            for block in self.own(loop)
            if all(block in self.dominators[latch] for latch in loop.latches)
        )

    def depth(self, loop: Loop) -> int:
        """1 for an outermost loop."""
        return 1 + sum(loop in self.inner(other) for other in self.loops)


def find_nvdisasm(toolkit: Path | None = None) -> Path | None:
    """Nvdisasm of the toolkit, of PATH, or of Triton's package, which torch brings along."""
    candidates = [] if toolkit is None else [toolkit / "bin" / "nvdisasm"]
    if (on_path := shutil.which("nvdisasm")) is not None:
        candidates.append(Path(on_path))
    spec = find_spec("triton")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm")
    return next((path for path in candidates if path.is_file()), None)


def disassemble(nvdisasm: Path, cubin: Path) -> list[Kernel]:
    """The kernels of a cubin, with source lines where it was compiled with -lineinfo."""
    done = subprocess.run(
        [str(nvdisasm), "-c", "-gi", str(cubin)], capture_output=True, text=True, check=True
    )
    return read(done.stdout)


def read(text: str) -> list[Kernel]:
    """The kernels in nvdisasm's text, in its order."""
    parts = _SECTION.split(text)
    return [_kernel(name, body) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _kernel(name: str, body: str) -> Kernel:
    instructions, labels = _instructions(body)
    blocks = _reachable(_blocks(instructions, labels))
    dominators = _dominators(blocks)
    return Kernel(name, tuple(instructions), blocks, tuple(_loops(blocks, dominators)), dominators)


def _instructions(body: str) -> tuple[list[Instruction], dict[str, int]]:
    """A section's instructions, and where its labels point."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    places: tuple[Place, ...] = ()
    fresh = False  # the line before was a place too: an outer one
    for line in body.splitlines():
        if found := _LINE.match(line):
            place = (found[1], int(found[2]))
            places = (*places, place) if fresh else (place,)
            fresh = True
            continue
        fresh = False
        if found := _LABEL.match(line):
            labels[found[1]] = len(instructions)
        elif found := _INSTRUCTION.match(line):
            instructions.append(Instruction((found[1] or "").strip(), found[2], found[3], places))
    return instructions, labels


def _blocks(instructions: Sequence[Instruction], labels: Mapping[str, int]) -> dict[int, Block]:
    """Basic blocks by the number of their first instruction."""
    ends = {"BRA", "BRX", "JMX", "EXIT", "RET", "BSYNC", "KILL"}
    starts = {0, *labels.values()} | {i + 1 for i, each in enumerate(instructions) if each.name in ends}
    order = sorted(start for start in starts if start < len(instructions))
    meet: dict[str, int] = {}  # where a BSYNC leads, by barrier: as the last BSSY before it in the text says
    blocks = {}
    for first, end in zip(order, [*order[1:], len(instructions)], strict=True):
        for each in instructions[first:end]:
            if each.name == "BSSY" and each.targets:
                meet[each.operands.partition(",")[0]] = labels[each.targets[0]]
        last = instructions[end - 1]
        after = [
            labels[target] for target in last.targets if target in labels and last.name in ("BRA", "BRX")
        ]
        if last.name == "BSYNC":
            after.append(meet.get(last.operands.strip(), end))
        elif last.name not in ends or last.predicate or (last.name == "BRA" and last.conditional):
            after.append(end)
        blocks[first] = Block(first, end, tuple(sorted({each for each in after if each < len(instructions)})))
    return blocks


def _reachable(blocks: Mapping[int, Block]) -> dict[int, Block]:
    seen, waiting = {0}, [0]
    while waiting:
        for after in blocks[waiting.pop()].successors:
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return {number: block for number, block in blocks.items() if number in seen}


def _predecessors(blocks: Mapping[int, Block]) -> dict[int, list[int]]:
    before: dict[int, list[int]] = {number: [] for number in blocks}
    for number, block in blocks.items():
        for after in block.successors:
            before[after].append(number)
    return before


def _dominators(blocks: Mapping[int, Block]) -> dict[int, frozenset[int]]:
    """For each block all blocks that every way to it passes through, itself included."""
    before = _predecessors(blocks)
    everything = frozenset(blocks)
    found = {number: frozenset({0}) if number == 0 else everything for number in blocks}
    changed = True
    while changed:
        changed = False
        for number in sorted(blocks):
            if number == 0:
                continue
            common = frozenset.intersection(*(found[each] for each in before[number])) | {number}
            if common != found[number]:
                found[number], changed = common, True
    return found


def _loops(blocks: Mapping[int, Block], dominators: Mapping[int, frozenset[int]]) -> Iterator[Loop]:
    """Natural loops, those with one header taken together, in the order of their headers."""
    before = _predecessors(blocks)
    latches: dict[int, set[int]] = {}
    for number, block in blocks.items():
        for after in block.successors:
            if after in dominators[number]:
                latches.setdefault(after, set()).add(number)
    for header, ends in sorted(latches.items()):
        body, waiting = {header, *ends}, [end for end in ends if end != header]
        while waiting:
            for each in before[waiting.pop()]:
                if each not in body:
                    body.add(each)
                    waiting.append(each)
        yield Loop(header, frozenset(body), frozenset(ends))
