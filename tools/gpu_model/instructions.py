"""How often a kernel's instructions run, from its SASS and an emulated launch, and how long a warp takes.

Every load, store, atomic, shuffle and barrier of the SASS has a source line, and so has every request that
was seen in the emulation: requests at a line, over the instructions of that line, are how often these run. A
block of instructions without any runs as often as its loop does; conditional ones half as often.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.emulation.observation import Launch, Place
from tools import cuda_loops, sass
from tools.gpu_model.devices import ARITHMETIC_LATENCY, LATENCY, Device

Key = tuple[str, str]  # space and kind, as the profiler has them
Chain = tuple[Place, ...]
_MEMORY: dict[str, Key] = {
    **dict.fromkeys(sass.GLOBAL_LOADS, ("global", "read")),
    **dict.fromkeys(("STG", "ST"), ("global", "write")),
    **dict.fromkeys(sass.SHARED_LOADS, ("shared", "read")),
    "STS": ("shared", "write"),
    **dict.fromkeys(("ATOM", "ATOMG", "RED"), ("global", "atomic")),
    "ATOMS": ("shared", "atomic"),
    **dict.fromkeys(("SHFL", "VOTE", "MATCH", "REDUX", "BAR"), ("wait", "read")),
}


@dataclass
class Counted:
    """A kernel's instructions of one launch, all warps together."""

    instructions: float = 0
    by_kind: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    warp_clocks: float = 0  # what one warp takes alone, on average
    matched: float = 1  # share of the emulated requests whose line the SASS has
    unseen_loops: int = 0  # loops that nothing says the length of: counted once


def count(kernel: sass.Kernel, launch: Launch, warps: float, device: Device, memory_clocks: float) -> Counted:
    """Instructions of a launch of so many warps. ``memory_clocks``: latency of a global load here."""
    evidence, matched = _evidence(kernel, launch)
    found = Counted(matched=matched)
    runs = _runs(kernel, evidence, warps, found)
    for block, times in runs.items():
        for each in kernel.of([block]):
            found.instructions += times
            found.by_kind[cuda_loops.KIND.get(each.name, "other")] += times
    for region, repeats in _regions(kernel):
        executed = sum(runs[block] * len(kernel.of([block])) for block in region)
        instructions = kernel.of(region)
        if not executed or not instructions:
            continue
        clocks = _clocks(instructions, device, memory_clocks, repeats)
        found.warp_clocks += clocks * executed / len(instructions) / warps
    return found


def chain_of(instruction: sass.Instruction) -> Chain:
    """The instruction's lines in csrc, innermost first."""
    found = [(file.rpartition("/csrc/")[2], line) for file, line in instruction.places if "/csrc/" in file]
    return tuple(found)


def _regions(kernel: sass.Kernel) -> list[tuple[frozenset[int], bool]]:
    """The blocks of each loop without its inner loops, and those outside of any; whether they repeat."""
    outside = frozenset(kernel.blocks).difference(*(loop.blocks for loop in kernel.loops))
    return [(outside, False), *((kernel.own(loop), True) for loop in kernel.loops)]


def _evidence(kernel: sass.Kernel, launch: Launch) -> tuple[dict[int, float], float]:
    """How often blocks with memory accesses ran (0: their lines never did); the share of requests used."""
    units: dict[Key, dict[int, dict[Chain, float]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(float))
    )
    for block in kernel.blocks:
        for each in kernel.of([block]):
            if (key := _MEMORY.get(each.name)) is not None:
                units[key][block][chain_of(each)] += 1 if key[0] == "wait" else each.bytes
    evidence: dict[int, float] = {block: 0.0 for by_block in units.values() for block in by_block}
    depth = {block: sum(block in loop.blocks for loop in kernel.loops) for block in kernel.blocks}
    total = used = 0.0
    for site in launch.sites:
        wanted = site.requests * max(1, site.size)
        total += site.requests
        by_block = units.get((site.space, site.kind), {})
        for alike in (_same, _compatible, _innermost):
            here = {
                block: sum(count for chain, count in chains.items() if alike(chain, site.chain))
                for block, chains in by_block.items()
            }
            if any(here.values()):
                # An unrolled loop's body before its remainder; of copies for different cases the deepest.
                best = max(here, key=lambda block: (here[block], depth[block], -block))
                evidence[best] = max(evidence[best], wanted / here[best])
                used += site.requests
                break
    return evidence, used / total if total else 1.0


def _same(ours: Chain, seen: Chain) -> bool:
    return ours == seen


def _compatible(ours: Chain, seen: Chain) -> bool:
    shorter = min(len(ours), len(seen))
    return shorter > 0 and ours[:shorter] == seen[:shorter]


def _innermost(ours: Chain, seen: Chain) -> bool:
    return bool(ours) and bool(seen) and ours[0] == seen[0]


def _runs(
    kernel: sass.Kernel, evidence: Mapping[int, float], warps: float, found: Counted
) -> dict[int, float]:
    """How often each block runs."""
    runs: dict[int, float] = {}
    around: dict[int, float] = {}  # by a loop's header: how often what is around it runs
    outside = frozenset(kernel.blocks).difference(*(loop.blocks for loop in kernel.loops))
    exits = [
        block
        for block in outside
        if any(each.name == "EXIT" and not each.predicate for each in kernel.of([block]))
    ]
    surely = {block for block in outside if all(block in kernel.dominators[end] for end in exits)}
    _fill(kernel, outside, surely, warps, evidence, runs)
    for loop in sorted(kernel.loops, key=kernel.depth):
        own, always = kernel.own(loop), kernel.always(loop)
        known = [evidence[block] for block in always if block in evidence]
        if known:
            times = max(known)
        elif inner := [evidence[block] for block in loop.blocks if evidence.get(block)]:
            times = min(min(inner), around.get(loop.header, warps)) if kernel.inner(loop) else max(inner)
        elif any(block in evidence for block in loop.blocks):
            times = 0.0  # its lines did not run: a case that was not taken
        else:
            times = around.get(loop.header, warps)
            found.unseen_loops += 1
        _fill(kernel, own, always, times, evidence, runs)
        for other in kernel.inner(loop):
            around[other.header] = times
    return runs


def _fill(
    kernel: sass.Kernel,
    blocks: frozenset[int],
    always: set[int] | frozenset[int],
    times: float,
    evidence: Mapping[int, float],
    runs: dict[int, float],
) -> None:
    for block in blocks:
        if block in always:
            runs[block] = times
        elif block in evidence:
            runs[block] = evidence[block]
        else:
            slow_path = any(each.name == "CALL" for each in kernel.of([block]))
            runs[block] = 0.0 if slow_path else times / 2


def _clocks(
    instructions: Sequence[sass.Instruction], device: Device, memory_clocks: float, repeats: bool
) -> float:
    """What one warp alone takes for these: one instruction a clock, in order, each waiting for its operands.

    A loop's second iteration counts: what the first has loaded ahead is there by then.
    """
    ready: dict[int, float] = {}
    clock = begin = 0.0
    for iteration in range(2 if repeats else 1):
        begin = clock
        for each in instructions:
            written, read = each.registers
            clock = max([clock + 1, *(ready.get(register, 0.0) for register in written | read)])
            latency = _latency(each, device, memory_clocks)
            for register in written:
                ready[register] = clock + latency
            if each.name == "BAR":
                clock += LATENCY["barrier"]
        del iteration
    return clock - begin


def _latency(instruction: sass.Instruction, device: Device, memory_clocks: float) -> float:
    kind = cuda_loops.KIND.get(instruction.name, "other")
    if kind in ("global load", "atomic"):
        return memory_clocks
    if kind == "shared load":
        return device.shared_latency
    return LATENCY.get(kind, ARITHMETIC_LATENCY)
