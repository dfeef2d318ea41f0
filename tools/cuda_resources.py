"""Prints registers, stack, spills and static shared memory of every CUDA kernel; a spill fails.

    python -m tools.cuda_resources [--arch sm_80 --arch sm_90] [FILE.cu ...]
    python -m tools.cuda_resources --loops [--kernel PART] [--json PATH] [FILE.cu ...]

A kernel that spills on purpose says so in its file: `// spill: <part of the kernel's name>: <reason>`. With
--loops: each kernel's loops by its SASS (default: sm_90 only). It needs nvdisasm, as Triton's package has it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools import build_config, cubins, cuda_loops, sass

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
NAME_WIDTH = 72


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one architecture, in bytes except for the registers."""

    kernel: str
    architecture: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int

    @property
    def spills(self) -> bool:
        return self.spill_stores > 0 or self.spill_loads > 0


def parse(report: str) -> list[Resources]:
    """Reads the output of `nvcc -Xptxas -v`, kernel by kernel, names still mangled."""
    found = []
    for part in re.split(r"Compiling entry function ", report)[1:]:
        header = re.match(r"'([^']+)' for '([^']+)'", part)
        if header is None:
            continue
        found.append(
            Resources(
                kernel=header.group(1),
                architecture=header.group(2),
                registers=_number(r"Used (\d+) registers", part),
                stack=_number(r"(\d+) bytes stack frame", part),
                # Summed: a device function that was not inlined reports its own after the kernel's.
                spill_stores=sum(map(int, re.findall(r"(\d+) bytes spill stores", part))),
                spill_loads=sum(map(int, re.findall(r"(\d+) bytes spill loads", part))),
                shared=_number(r"(\d+) bytes smem", part),
            )
        )
    return found


def shorten(name: str) -> str:
    """A plain name (:func:`plain`) that fits into a table."""
    name = plain(name)
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."


def plain(name: str) -> str:
    """A demangled kernel name without return type, parameters and the project's namespaces."""
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = re.sub(r"\breid_ops::", "", name)
    # The parameter list is the last parenthesis group at depth zero of the template brackets.
    depth = 0
    for position, character in enumerate(name):
        if character == "<":
            depth += 1
        elif character == ">":
            depth -= 1
        elif character == "(" and depth == 0:
            name = name[:position]
            break
    return re.sub(r"\((?:int|bool|unsigned int|long)\)", "", name)  # template arguments: (int)4 is 4


def permitted_spills(source: str) -> list[str]:
    """The kernel-name parts that the file's own comments allow to spill."""
    return re.findall(r"//\s*spill:\s*([^:\s]+):\s*\S", source)


def demangle(names: Sequence[str]) -> list[str]:
    """Readable names, by c++filt where there is one."""
    try:
        result = subprocess.run(
            ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return list(names)
    return result.stdout.splitlines()


def print_table(rows: Sequence[Resources], names: Sequence[str]) -> None:
    """One line a kernel and architecture."""
    width = max((len(name) for name in names), default=6)
    columns = ("registers", "stack", "spill stores", "spill loads", "static shared")
    print("  " + "kernel".ljust(width) + "  arch    " + "  ".join(columns))
    for row, name in zip(rows, names, strict=True):
        values = (row.registers, row.stack, row.spill_stores, row.spill_loads, row.shared)
        cells = [str(value).rjust(len(column)) for value, column in zip(values, columns, strict=True)]
        print(f"  {name.ljust(width)}  {row.architecture.ljust(6)}  {'  '.join(cells)}")


def check_file(nvcc: Path, source: Path, architectures: Sequence[str]) -> int:
    """Prints one file's table and returns how many kernels spill without saying why."""
    rows: list[Resources] = []
    for architecture in architectures:
        rows += parse(cubins.compile_cubin(nvcc, source, architecture)[1])
    full_names = demangle([row.kernel for row in rows])
    order = sorted(range(len(rows)), key=lambda i: full_names[i])  # stable: architectures stay in order
    shown = source.relative_to(ROOT) if source.is_relative_to(ROOT) else source
    print(f"\n{shown}: {len(rows)} kernels compiled")
    print_table([rows[i] for i in order], [shorten(full_names[i]) for i in order])
    permitted = permitted_spills(source.read_text(encoding="utf-8"))
    unexplained = 0
    for row, name in zip(rows, full_names, strict=True):
        if row.spills and not any(part in name for part in permitted):
            unexplained += 1
            print(f"  spill: {shorten(name)} on {row.architecture}", file=sys.stderr)
    return unexplained


def show_loops(toolkit: build_config.Toolkit, sources: Sequence[Path], options: argparse.Namespace) -> None:
    """Prints, and writes as JSON, the loops of every kernel whose name has --kernel's part in it."""
    nvdisasm = sass.find_nvdisasm(toolkit.home)
    if nvdisasm is None:
        raise build_config.BuildError(
            "--loops needs nvdisasm: of the CUDA toolkit, on PATH or in Triton's package"
        )
    found = {}
    for source in sources:
        for architecture in options.architectures or ("sm_90",):
            cubin, _ = cubins.compile_cubin(toolkit.nvcc, source, architecture)
            kernels = sass.disassemble(nvdisasm, cubin)
            full = demangle([kernel.name for kernel in kernels])
            chosen = [
                replace(cuda_loops.report(kernel), kernel=shorten(name))
                for kernel, name in zip(kernels, full, strict=True)
                if options.kernel in shorten(name)
            ]
            shown = source.relative_to(ROOT) if source.is_relative_to(ROOT) else source
            print(f"\n{shown} for {architecture}: loops of {len(chosen)} kernels")
            cuda_loops.print_report(chosen)
            found[f"{shown} {architecture}"] = chosen
    if options.json is not None:
        cuda_loops.write_json(found, options.json)


def main() -> int:
    """Returns 1 when a kernel spills and its file does not say why, or when there is no nvcc to ask.

    With --if-available a missing nvcc is only said, unless REID_OPS_CUDA=1 insists.
    """
    parser = argparse.ArgumentParser(description="Registers, spills and shared memory of every CUDA kernel.")
    parser.add_argument("sources", nargs="*", type=Path, help="default: every csrc/*/cuda.cu")
    parser.add_argument("--arch", action="append", dest="architectures", help="default: sm_80 sm_90 sm_100")
    parser.add_argument("--if-available", action="store_true", help="skip where there is no CUDA toolkit")
    parser.add_argument("--loops", action="store_true", help="instructions, opcodes and loads of every loop")
    parser.add_argument("--kernel", default="", metavar="PART", help="with --loops: only kernels named so")
    parser.add_argument("--json", type=Path, metavar="PATH", help="with --loops: write them as JSON too")
    arguments = parser.parse_args()
    toolkit, problem = build_config.find_toolkit(os.environ)
    if toolkit is None:
        if arguments.if_available and os.environ.get("REID_OPS_CUDA") != "1":
            print(f"skipped: no CUDA toolkit ({problem})")
            return 0
        raise build_config.BuildError(f"the resource report needs nvcc: {problem}")
    sources = [path.resolve() for path in arguments.sources] or sorted((ROOT / "csrc").glob("*/cuda.cu"))
    if arguments.loops:
        show_loops(toolkit, sources, arguments)
        return 0
    unexplained = sum(
        check_file(toolkit.nvcc, source, arguments.architectures or ARCHITECTURES) for source in sources
    )
    if unexplained:
        print(f"\n{unexplained} unexplained spills", file=sys.stderr)
    return 1 if unexplained else 0


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match.group(1)) if match is not None else 0


if __name__ == "__main__":
    sys.exit(main())
