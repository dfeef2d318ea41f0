"""Loops, opcodes and loads in flight of small kernels, against counts by hand.

`loops.sass` is nvdisasm's text of `loops.cu` for sm_90 (nvcc 13.0), without the divisions' slow paths.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import build_config, cubins, cuda_loops, cuda_resources, sass

FOLDER = Path(__file__).parent
SASS = (FOLDER / "loops.sass").read_text(encoding="utf-8")


def kernels() -> dict[str, sass.Kernel]:
    """The kernels of loops.sass by the part of the name that says which."""
    return {kernel.name.strip("_Z0123456789").rpartition("PK")[0]: kernel for kernel in sass.read(SASS)}


def test_loads_one_by_one() -> None:
    """Addresses 0xf0 to 0x1e0; each load is used and stored before the next one begins."""
    (loop,) = cuda_loops.report(kernels()["one_by_one"]).loops
    assert (loop.depth, loop.instructions, loop.always) == (1, 16, 16)
    assert loop.mix == {"other": 9, "fp32": 2, "global load": 2, "global store": 2, "control": 1}
    assert (loop.global_in_flight, loop.bytes_in_flight) == (1, 4)
    assert loop.line == "loops.cu:8"


def test_loads_before_stores() -> None:
    """Addresses 0xf0 to 0x210; four loads under way when the first is stored."""
    report = cuda_loops.report(kernels()["four_first"])
    (loop,) = report.loops
    assert (loop.instructions, loop.always) == (19, 19)
    assert loop.mix == {"other": 10, "global load": 4, "global store": 4, "control": 1}
    assert (loop.global_in_flight, loop.bytes_in_flight) == (4, 16)
    assert report.instructions == 35 and report.straight.instructions == 16


def test_nested_loops_branches_and_calls() -> None:
    """The inner loop is 0x180 to 0x2e0, of which 0x260 to 0x280 call the division's slow path.

    Of the outer one, 0xb0 to 0x560, the inner loop's setup (0x110 to 0x170) and one thread's division
    (0x350 to 0x500) do not run in every iteration.
    """
    report = cuda_loops.report(kernels()["sums"])
    outer, inner = report.loops
    assert (outer.depth, inner.depth) == (1, 2)
    assert (inner.instructions, inner.always) == (23, 20)
    assert (inner.global_in_flight, inner.bytes_in_flight) == (1, 16)
    assert outer.instructions == (0x560 - 0xB0) // 16 + 1 - 23 == 53
    assert outer.always == 53 - 7 - 28
    assert outer.mix["fp64"] == 8 and outer.mix["barrier"] == 2 and outer.mix["convert"] == 2
    assert outer.shared_in_flight == 2
    # 0x0 to 0x570, without the functions that are called.
    assert report.instructions == 0x570 // 16 + 1 and report.calls == 2


def test_registers() -> None:
    """Pairs, quads, addresses, predicates and constants."""

    def registers(opcode: str, operands: str) -> tuple[set[int], set[int]]:
        written, read = sass.Instruction("", opcode, operands).registers
        return set(written), set(read)

    assert registers("LDG.E.128", "R4, desc[UR6][R2.64+0x10]") == ({4, 5, 6, 7}, {2, 3})
    assert registers("STG.E.64", "desc[UR6][R4.64], R2") == (set(), {2, 3, 4, 5})
    assert registers("DFMA", "R6, -R4, R2, c[0x0][0x10]") == ({6, 7}, {2, 3, 4, 5})
    assert registers("FFMA", "R0, R1.reuse, R1, RZ") == ({0}, {1})
    assert registers("ISETP.GE.AND", "P0, PT, R7, UR6, PT") == (set(), {7})
    assert registers("SHFL.BFLY", "PT, R9, R8, 0x10, 0x1f") == ({9}, {8})
    assert registers("F2F.F64.F32", "R4, R3") == ({4, 5}, {3})
    assert registers("STS.128", "[R8+0x20], R12") == (set(), {8, 12, 13, 14, 15})


def test_a_later_use_waits_for_earlier_loads_too() -> None:
    """Loads return in order: using the second of three leaves one under way."""
    text = [
        "LDG R0, [R8.64]",
        "LDG R1, [R8.64+4]",
        "LDG R2, [R8.64+8]",
        "FADD R3, R1, R1",
        "LDG R4, [R8.64+12]",
    ]
    instructions = [sass.Instruction("", *line.split(" ", 1)) for line in text]
    assert cuda_loops.in_flight(instructions, sass.GLOBAL_LOADS) == (3, 12)
    assert cuda_loops.in_flight(instructions[3:], sass.GLOBAL_LOADS) == (1, 4)


def test_source_lines_are_those_of_the_caller_in_csrc() -> None:
    """An intrinsic of the toolkit's headers counts for the line that calls it."""
    places = (("/cuda/sm_30.hpp", 449), ("/x/csrc/common/a.h", 7), ("/x/csrc/op/cuda.cu", 12))
    assert cuda_loops.csrc_place(sass.Instruction("", "SHFL", "R0, R1", places)) == ("common/a.h", 7)
    assert cuda_loops.csrc_place(sass.Instruction("", "SHFL", "R0, R1")) is None


def test_compiled_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By whatever nvcc and nvdisasm there are; the cubin is kept until something changes."""
    toolkit, _ = build_config.find_toolkit(os.environ)
    nvdisasm = sass.find_nvdisasm()
    if toolkit is None or nvdisasm is None:
        pytest.skip("needs nvcc and nvdisasm")
    monkeypatch.setattr(cubins, "FOLDER", tmp_path)
    cubin, said = cubins.compile_cubin(toolkit.nvcc, FOLDER / "loops.cu", "sm_90")
    assert len(cuda_resources.parse(said)) == 3
    before = cubin.stat().st_mtime_ns
    assert cubins.compile_cubin(toolkit.nvcc, FOLDER / "loops.cu", "sm_90") == (cubin, said)
    assert cubin.stat().st_mtime_ns == before
    reports = {each.kernel: each for each in map(cuda_loops.report, sass.disassemble(nvdisasm, cubin))}
    found = {name.split("PK")[0].strip("_Z0123456789"): each for name, each in reports.items()}
    assert [found[name].loops[0].global_in_flight for name in ("one_by_one", "four_first")] == [1, 4]
    assert found["four_first"].loops[0].mix["global load"] == 4
