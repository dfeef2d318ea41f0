"""What a kernel's loops are made of, from its SASS: `python -m tools.cuda_resources --loops` prints it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools import sass

# What an instruction keeps busy; the rest is "other".
_KINDS = {
    "fp32": ["FFMA", "FADD", "FMUL", "FMNMX", "FSEL", "FSETP", "FSET", "FCHK", "FSWZADD"],
    "fp64": ["DFMA", "DADD", "DMUL", "DSETP", "DMNMX"],
    "half": ["HFMA2", "HADD2", "HMUL2", "HMNMX2", "HSETP2", "HSET2"],
    "convert": ["F2F", "F2I", "I2F", "F2FP", "I2FP", "FRND", "F2IP", "I2I"],
    "special": ["MUFU"],
    "global load": sorted(sass.GLOBAL_LOADS),
    "global store": ["STG", "ST"],
    "shared load": sorted(sass.SHARED_LOADS),
    "shared store": ["STS"],
    "local": ["LDL", "STL"],
    "atomic": sorted(sass.ATOMICS),
    "warp": ["SHFL", "VOTE", "VOTEU", "MATCH", "REDUX", "WARPSYNC"],
    "barrier": ["BAR", "MEMBAR", "UCGABAR_ARV", "UCGABAR_WAIT", "ERRBAR", "CCTL"],
    "control": ["BRA", "BRX", "BSSY", "BSYNC", "EXIT", "CALL", "RET", "BREAK", "JMX", "YIELD", "NOP"],
}
KIND = {name: kind for kind, names in _KINDS.items() for name in names}


@dataclass(frozen=True)
class LoopReport:
    """One loop, without the loops inside it.

    ``instructions`` counts every instruction in the text, ``always`` those that each iteration runs: the
    difference is conditional. ``global_in_flight``: the most global loads that are under way at once before
    one of them is used, over two iterations in the order of the text; ``bytes_in_flight`` the bytes a lane of
    those. ``line`` is the source line, in csrc, most of the instructions come from.
    """

    depth: int
    line: str
    instructions: int
    always: int
    mix: dict[str, int]
    global_in_flight: int
    bytes_in_flight: int
    shared_in_flight: int


@dataclass(frozen=True)
class KernelReport:
    """A kernel: all instructions without the functions it calls, its loops, and its loads outside loops."""

    kernel: str
    instructions: int
    calls: int
    straight: LoopReport
    loops: list[LoopReport]


def report(kernel: sass.Kernel) -> KernelReport:
    """What is known of a kernel."""
    outside = frozenset(kernel.blocks).difference(*(loop.blocks for loop in kernel.loops))
    return KernelReport(
        kernel=kernel.name,
        instructions=len(kernel.reached),
        calls=sum(each.name == "CALL" for each in kernel.reached),
        straight=_describe(kernel, outside, outside, 0),
        loops=[
            _describe(kernel, kernel.own(loop), kernel.always(loop), kernel.depth(loop))
            for loop in kernel.loops
        ],
    )


def _describe(kernel: sass.Kernel, blocks: frozenset[int], always: frozenset[int], depth: int) -> LoopReport:
    instructions = kernel.of(blocks)
    mix = Counter(KIND.get(each.name, "other") for each in instructions)
    twice = instructions * (2 if depth else 1)
    loads, size = in_flight(twice, sass.GLOBAL_LOADS)
    return LoopReport(
        depth=depth,
        line=_line(instructions),
        instructions=len(instructions),
        always=len(kernel.of(always)),
        mix=dict(sorted(mix.items(), key=lambda item: (-item[1], item[0]))),
        global_in_flight=loads,
        bytes_in_flight=size,
        shared_in_flight=in_flight(twice, sass.SHARED_LOADS)[0],
    )


def in_flight(instructions: Sequence[sass.Instruction], names: set[str]) -> tuple[int, int]:
    """The most loads of these names under way before one is used, and the bytes a lane that they bring.

    A use waits for its load and, as loads return in order, for all that were issued before.
    """
    waiting: list[tuple[frozenset[int], int]] = []
    most = most_bytes = 0
    for each in instructions:
        written, read = each.registers
        touched = written | read
        used = [place for place, (target, _) in enumerate(waiting) if target & touched]
        if used:
            del waiting[: used[-1] + 1]
        if each.name in names:
            waiting.append((written, each.bytes))
            most, most_bytes = max(most, len(waiting)), max(most_bytes, sum(size for _, size in waiting))
    return most, most_bytes


def csrc_place(instruction: sass.Instruction) -> sass.Place | None:
    """The innermost source line in csrc: what the toolkit's headers inline counts for their caller."""
    for file, line in instruction.places:
        if "/csrc/" in file:
            return file.rpartition("/csrc/")[2], line
    return instruction.places[-1] if instruction.places else None


def _line(instructions: Sequence[sass.Instruction]) -> str:
    places = Counter(place for place in map(csrc_place, instructions) if place is not None)
    if not places:
        return ""
    (file, line), _ = max(places.items(), key=lambda item: (item[1], item[0]))
    return f"{file}:{line}"


def print_report(reports: Sequence[KernelReport]) -> None:
    """Loops indented by their depth under each kernel's name."""
    for kernel in sorted(reports, key=lambda each: each.kernel):
        calls = f", {kernel.calls} calls" if kernel.calls else ""
        print(f"  {kernel.kernel}: {kernel.instructions} instructions{calls}")
        for each in (kernel.straight, *kernel.loops):
            mix = ", ".join(f"{count} {kind}" for kind, count in each.mix.items())
            what = "loop" if each.depth else "no loop"
            flight = f"{each.global_in_flight} global loads ({each.bytes_in_flight} B a lane) in flight"
            flight += f", {each.shared_in_flight} shared" if each.shared_in_flight else ""
            conditional = each.instructions - each.always
            count = f"{each.instructions}" + (f" ({conditional} conditional)" if conditional else "")
            print(f"  {'  ' * (each.depth + 1)}{what} at {each.line or '?'}: {count}: {mix}; {flight}")


def write_json(reports: dict[str, list[KernelReport]], path: Path) -> None:
    """The reports by source file."""
    data = {source: [asdict(each) for each in kernels] for source, kernels in reports.items()}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
