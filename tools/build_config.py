"""What setup.py decides before it compiles anything, as small functions that tests can call.

Nothing here imports torch or asks for a GPU: a machine without one must build the same wheel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The oldest torch whose stable ABI the operators use; one build serves it and every later torch.
TORCH_TARGET = "2.11"

# Used when TORCH_CUDA_ARCH_LIST is not set, whatever GPU the building machine has. The newest one
# that nvcc knows also carries PTX, from which drivers compile for GPUs that are newer still.
DEFAULT_ARCHITECTURES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

CONVENTIONAL_TOOLKIT = Path("/usr/local/cuda")


class BuildError(SystemExit):
    """A wish that can't be met: setup.py ends with this one line and no traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}")


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its folder and its version, such as "13.0"."""

    home: Path
    version: str

    @property
    def nvcc(self) -> Path:
        return self.home / "bin" / "nvcc"


@dataclass(frozen=True)
class CudaDecision:
    """The toolkit with which the CUDA sources join the build, or None, and why so."""

    toolkit: Toolkit | None
    reason: str

    @property
    def enabled(self) -> bool:
        return self.toolkit is not None


def target_version_macro(version: str = TORCH_TARGET) -> str:
    """The flag that makes torch's headers offer only what this torch version already had."""
    major, minor = (int(part) for part in version.split("."))
    return f"-DTORCH_TARGET_VERSION=0x{(major << 56) | (minor << 48):016x}"


def read_version(root: Path) -> str:
    """The project's version, read from its one place without importing the package."""
    text = (root / "reid_ops" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise BuildError("reid_ops/_version.py does not define __version__")
    return match.group(1)


def read_commit(root: Path) -> str | None:
    """The git commit being built, or None outside a checkout (an sdist inside another checkout included)."""
    if not (root / ".git").exists():
        return None
    result = _run(["git", "-C", str(root), "rev-parse", "HEAD"])
    return result.strip() or None


def find_sources(root: Path, cuda: bool) -> list[str]:
    """Sources of `reid_ops._C`, relative to `root`. Found by name, so that a new op needs no edit here."""
    patterns = ["library.cpp", "*/ops.cpp", "*/cpu.cpp"] + (["*/cuda.cu"] if cuda else [])
    found = [path for pattern in patterns for path in sorted((root / "csrc").glob(pattern))]
    return [path.relative_to(root).as_posix() for path in found]


def find_host_sources(root: Path) -> list[str]:
    """Sources of `reid_ops._host`, relative to `root`."""
    return [path.relative_to(root).as_posix() for path in sorted((root / "csrc" / "host").glob("*.cpp"))]


def find_toolkit(environment: Mapping[str, str]) -> tuple[Toolkit | None, str]:
    """The CUDA toolkit to use, or None and the reason in words.

    CUDA_HOME (or CUDA_PATH) decides when set. Else nvcc on PATH is asked where it lives: it may be a
    wrapper script or a link elsewhere, so that its own path says nothing.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(variable):
            home = Path(environment[variable])
            if not (home / "bin" / "nvcc").exists():
                return None, f"{variable}={home} has no bin/nvcc"
            return _toolkit_at(home)
    nvcc = shutil.which("nvcc", path=environment.get("PATH"))
    if nvcc is not None:
        resolved = resolve_nvcc(nvcc)
        if resolved is None:
            return None, f"{nvcc} does not say where its toolkit is; set CUDA_HOME"
        return _toolkit_at(resolved)
    if (CONVENTIONAL_TOOLKIT / "bin" / "nvcc").exists():
        return _toolkit_at(CONVENTIONAL_TOOLKIT)
    return None, "nvcc is not on PATH and CUDA_HOME is not set"


def resolve_nvcc(nvcc: str) -> Path | None:
    """The toolkit folder that this nvcc names as its TOP, with links and `..` resolved."""
    # The file need not exist: a dry run prints the commands it would run, and its variables first.
    output = _run([nvcc, "--dryrun", "reid_ops.cu"])
    match = re.search(r"^#\$ TOP=(.+)$", output, re.MULTILINE)
    if match is None:
        return None
    home = Path(os.path.realpath(match.group(1).strip()))
    return home if (home / "bin" / "nvcc").exists() else None


def decide_cuda(
    forced: str | None, torch_cuda: str | None, toolkit: Toolkit | None, toolkit_problem: str
) -> CudaDecision:
    """CUDA joins when torch is a CUDA build and a toolkit of the same major version is there.

    `forced` is REID_OPS_CUDA: "0" turns CUDA off, "1" turns a missing condition into an error, and
    unset or empty leaves the choice to what is found.
    """
    if forced not in (None, "", "0", "1"):
        raise BuildError(f"REID_OPS_CUDA must be 0, 1 or unset, got {forced!r}")
    if forced == "0":
        return CudaDecision(None, "REID_OPS_CUDA=0")
    problem = None
    if torch_cuda is None:
        problem = "the installed torch is not a CUDA build"
    elif toolkit is None:
        problem = toolkit_problem
    elif toolkit.version.split(".")[0] != torch_cuda.split(".")[0]:
        # Two majors would put two CUDA runtimes, unaware of each other, into one process.
        problem = f"the CUDA toolkit is {toolkit.version} but torch was built with CUDA {torch_cuda}"
    if problem is None:
        return CudaDecision(toolkit, "REID_OPS_CUDA=1" if forced else "torch is a CUDA build, toolkit found")
    if forced == "1":
        raise BuildError(f"REID_OPS_CUDA=1 can't be met: {problem}")
    return CudaDecision(None, problem)


def choose_architectures(requested: str | None, supported: Sequence[str]) -> str:
    """The architecture list to compile for: the user's own words, else the default that nvcc supports.

    `supported` are nvcc's real architectures, as in "sm_90"; none known means all of the default.
    """
    if requested:
        return requested
    known = [
        architecture
        for architecture in DEFAULT_ARCHITECTURES
        if not supported or f"sm_{architecture.replace('.', '')}" in supported
    ]
    if not known:
        wanted = ", ".join(DEFAULT_ARCHITECTURES)
        raise BuildError(f"nvcc supports none of {wanted}; set TORCH_CUDA_ARCH_LIST")
    return ";".join([*known[:-1], f"{known[-1]}+PTX"])


def supported_architectures(toolkit: Toolkit) -> list[str]:
    """The architectures that this toolkit's nvcc compiles for, such as "sm_90"."""
    return re.findall(r"^sm_\w+$", _run([str(toolkit.nvcc), "--list-gpu-code"]), re.MULTILINE)


def nvcc_threads(environment: Mapping[str, str]) -> int:
    """How many architectures of one file nvcc compiles at a time, within MAX_JOBS."""
    limit = environment.get("NVCC_THREADS") or environment.get("MAX_JOBS") or ""
    return max(1, min(4, int(limit) if limit.isdigit() else os.cpu_count() or 1))


def write_facts(path: Path, facts: Mapping[str, object]) -> None:
    """Writes the header with the build facts, touching it only when they changed (to keep rebuilds small)."""
    # Dumped twice: the second time makes a quoted string of the JSON, which is also a C++ literal.
    literal = json.dumps(json.dumps(facts, sort_keys=True))
    text = f"// Written by the build. Do not edit.\n#define REID_OPS_BUILD_FACTS {literal}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _toolkit_at(home: Path) -> tuple[Toolkit | None, str]:
    match = re.search(r"release (\d+\.\d+)", _run([str(home / "bin" / "nvcc"), "--version"]))
    if match is None:
        return None, f"{home / 'bin' / 'nvcc'} does not run"
    return Toolkit(home, match.group(1)), ""


def _run(command: Sequence[str]) -> str:
    """Standard output and error of a command together, or nothing when it can't run."""
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""
