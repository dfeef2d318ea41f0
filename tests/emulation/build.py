"""Compile CUDA sources as C++ against the emulated CUDA runtime of this folder.

    python -m tests.emulation.build [--sanitize | --observe]

builds every operator's ``cuda.cu`` and ``ops.cpp`` into one shared library and prints its path;
``torch.ops.load_library`` then registers the operators as ``torch.ops.reid_ops_emulated``.

Only what changed is compiled again: an object file is kept with the command that made it and the
list of headers it read.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
BUILD = ROOT / "build" / "emulation"
RUNTIME = tuple(sorted(FOLDER.glob("*.cpp")))

# What torch's own builds define for nvcc: kernels must do without implicit half conversions.
AS_TORCH_BUILDS = (
    "__CUDA_NO_HALF_OPERATORS__",
    "__CUDA_NO_HALF_CONVERSIONS__",
    "__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "__CUDA_NO_HALF2_OPERATORS__",
)
TORCH_TARGET_VERSION = "0x020b000000000000"  # torch 2.11, as in setup.py
# Any fault ends the process: a test must not pass over one.
# Every access of a kernel calls observe/hooks.cpp, as it stands in the source: a float4 is not taken apart,
# scalars are not put together. Lines need inlined calls, which -g1 leaves out.
OBSERVER = tuple(sorted((FOLDER / "observe").glob("*.cpp")))
OBSERVE = (
    *("-g", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-Wno-tsan"),
    *("-fno-tree-sra", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-fno-store-merging"),
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


class BuildError(RuntimeError):
    """The compiler or the linker failed; the message carries its output."""


def compiler() -> list[str]:
    """The host compiler's command, from CXX where it is set."""
    return shlex.split(os.environ.get("CXX", "g++"))


def torch_folder() -> Path:
    """Where torch is installed, without the seconds that importing it takes."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed: the operators cannot be built without its headers")
    return Path(spec.origin).parent


def sanitizer_environment() -> dict[str, str]:
    """Variables under which an ordinary Python can load a sanitized library."""
    libraries = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):  # libasan must know __cxa_throw
        found = subprocess.run(
            [*compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True
        )
        libraries.append(str(Path(found.stdout.strip()).resolve()))
    return {
        "LD_PRELOAD": " ".join(libraries),
        # Python itself never frees everything.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep out other processes that build the same thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], what: str) -> None:
    """Run a build command; its output becomes the error when it fails, and is shown when it warns."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BuildError(f"{what} failed:\n{shlex.join(command)}\n{done.stdout}")
    if done.stdout.strip():
        sys.stderr.write(done.stdout)


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def read_dependencies(path: Path) -> list[Path]:
    """The files an object was made of, from the compiler's make rule."""
    rule = path.read_text().replace("\\\n", " ")
    return [Path(name) for name in shlex.split(rule.partition(":")[2])]


def is_current(made: Path, stamp: Path, key: str, dependencies: Sequence[Path]) -> bool:
    """Whether `made` was made by the command of `key` from files that have not changed since."""
    if not made.exists() or not stamp.exists() or stamp.read_text() != key:
        return False
    newest_allowed = made.stat().st_mtime_ns
    return all(file.exists() and file.stat().st_mtime_ns <= newest_allowed for file in dependencies)


def compile_object(source: Path, folder: Path, flags: Sequence[str]) -> Path:
    """Compile one source, unless its object is current."""
    label = hashlib.sha256(str(source).encode()).hexdigest()[:8]
    made = folder / f"{source.parent.name}-{source.stem}-{label}.o"
    stamp, rule = made.with_suffix(".key"), made.with_suffix(".d")
    language = ["-x", "c++"] if source.suffix == ".cu" else []
    defines = [f"-D{name}" for name in AS_TORCH_BUILDS] if source.suffix == ".cu" else []
    command = [*compiler(), *flags, *defines, *language, "-c", str(source)]
    key = shlex.join(command)
    if rule.exists() and is_current(made, stamp, key, read_dependencies(rule)):
        return made
    partial = made.with_suffix(".partial.o")
    started = time.time_ns()
    run([*command, "-MMD", "-MF", str(rule), "-MT", "object", "-o", str(partial)], f"compiling {source}")
    # The object is as old as the start of its compilation: a header saved meanwhile is newer.
    os.utime(partial, ns=(started, started))
    partial.replace(made)
    write_atomically(stamp, key)
    return made


def build(
    name: str,
    sources: Sequence[str | Path],
    *,
    sanitize: bool = False,
    observe: bool = False,
    defines: Sequence[str] = (),
    torch: bool = True,
    executable: bool = False,
) -> Path:
    """Compile `sources` with the emulated CUDA runtime and link them; returns the library's path.

    Args:
        name: file name without suffix, under ``build/emulation/``.
        sources: ``.cu`` files, compiled as C++, and ``.cpp`` files.
        sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer; the name gets ``_sanitized``.
            Python can load such a library only under :func:`sanitizer_environment`.
        observe: with the profiler and the race detector of ``observe/``; the name gets ``_observed``.
        defines: preprocessor definitions, ``"NAME"`` or ``"NAME=value"``.
        torch: give the sources torch's headers and link its libraries.
        executable: link a program instead of a shared library.

    Raises:
        BuildError: with the compiler's output.
    """
    if sanitize:
        name += "_sanitized"
    if observe:
        name += "_observed"
    flags = ["-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=default", "-pthread"]
    # Template statics as ordinary weak symbols: two emulated libraries in one process stay apart.
    flags += ["-fno-gnu-unique", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    flags += ["-DREID_OPS_EMULATION", *(f"-D{define}" for define in defines)]
    flags += [f"-I{FOLDER / 'include'}", f"-I{ROOT / 'csrc'}"]
    links = ["-pthread", "-ldl"]
    if sanitize:
        flags += SANITIZE
        links += SANITIZE
    if torch:
        home = torch_folder()
        includes = [home / "include", home / "include/torch/csrc/api/include"]
        for include in includes:
            flags += ["-isystem", str(include)]
        flags += [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]
        links += [f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    if not executable:
        links += ["-shared", "-Wl,-Bsymbolic"]
        if not sanitize:
            links += ["-Wl,--no-undefined"]  # a sanitized library finds its runtime when loaded

    made = BUILD / (name if executable else f"{name}.so")
    objects_folder = BUILD / "objects" / name
    objects_folder.mkdir(parents=True, exist_ok=True)
    jobs = int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count() or 1
    with locked(objects_folder / ".lock"):
        every = [Path(source).resolve() for source in sources] + list(RUNTIME)
        every += OBSERVER if observe else ()
        with ThreadPoolExecutor(jobs) as pool:
            seen = [*flags, *OBSERVE] if observe else flags
            own = [seen if source.suffix == ".cu" else flags for source in every]
            objects = list(pool.map(compile_object, every, [objects_folder] * len(every), own))
        partial = made.with_name(f"{made.name}.partial")
        command = [*compiler(), *map(str, objects), "-o", str(partial), *links]
        version = importlib.metadata.version("torch") if torch else ""
        key = shlex.join(command) + version
        stamp = objects_folder / "link.key"
        if not is_current(made, stamp, key, objects):
            run(command, f"linking {made.name}")
            # A new inode: a process that has the old library loaded keeps it.
            partial.replace(made)
            write_atomically(stamp, key)
    return made


def build_operators(sanitize: bool = False, observe: bool = False) -> Path:
    """Build every operator's CUDA source for CPU tensors; returns the library to load."""
    sources = sorted([*ROOT.glob("csrc/*/cuda.cu"), *ROOT.glob("csrc/*/ops.cpp")])
    sources.append(ROOT / "csrc" / "library.cpp")
    return build("reid_ops_emulated", sources, sanitize=sanitize, observe=observe)


def main() -> int:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sanitize", action="store_true", help="with ASan and UBSan")
    parser.add_argument("--observe", action="store_true", help="with the profiler and the race detector")
    arguments = parser.parse_args()
    try:
        print(build_operators(arguments.sanitize, arguments.observe))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
