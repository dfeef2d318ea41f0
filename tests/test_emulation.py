"""The emulated CUDA runtime catches planted mistakes, and its build is incremental and safe.

Its primitives are tested one by one in tests/emulation/checks/.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.emulation import build as emulation
from tests.emulation.support import ILLEGAL_ADDRESS, LAUNCH_FAILURE, SCHEDULES, SUCCESS, UNKNOWN, Library

PLANTED = sorted((emulation.FOLDER / "planted").glob("*.cu"))
PLANTED_SOURCES = [*PLANTED, emulation.FOLDER / "planted" / "main.cpp"]
# Faults the emulation itself reports: the launch's error and the line it prints.
REPORTED = {
    "barrier_after_exit": (
        LAUNCH_FAILURE,
        r"barrier not reached by all threads: .*__syncthreads.*thread \(100, 0, 0\)",
    ),
    "barrier_before_exit": (
        LAUNCH_FAILURE,
        r"barrier not reached by all threads: .* exited .*thread \(40, 0, 0\)",
    ),
    "barrier_kinds": (LAUNCH_FAILURE, r"waits at __syncthreads_or but another at __syncthreads"),
    "barrier_against_shuffle": (
        LAUNCH_FAILURE,
        r"deadlock: .*__shfl_xor_sync with mask 0xffffffff, but thread \(7, 0, 0\) waits at __syncthreads",
    ),
    "shuffle_exited_lane": (LAUNCH_FAILURE, r"names a lane that is not there: .*lane 20\) exited"),
    "shuffle_beyond_block": (LAUNCH_FAILURE, r"lane 16 is beyond the end of the block.*thread \(32, 0, 0\)"),
    "shuffle_caller_outside_mask": (LAUNCH_FAILURE, r"mask does not name: lane 16 with mask 0x0000ffff"),
    "shuffle_reads_outside_mask": (
        LAUNCH_FAILURE,
        r"__shfl_xor_sync reads a lane outside its mask: lane 0 reads lane 16",
    ),
    "shuffle_width": (LAUNCH_FAILURE, r"width must be a power of two from 1 to 32, got 24"),
    "different_primitives": (
        LAUNCH_FAILURE,
        r"deadlock: .*__ballot_sync.*, but thread \(16, 0, 0\) waits at __syncwarp",
    ),
    "cluster_block_ends_too_early": (
        LAUNCH_FAILURE,
        r"not in shared memory, or the cluster has no such block any more \[block \(1, 0, 0\)",
    ),
    "cluster_barrier_without_a_block": (
        LAUNCH_FAILURE,
        r"barrier not reached by all blocks of the cluster: another one has ended \[block \(0, 0, 0\)",
    ),
    "trap": (LAUNCH_FAILURE, r"__trap\(\) was called \[block \(1, 0, 0\), thread \(3, 0, 0\)\]"),
    "dynamic_shared_write_overrun": (
        ILLEGAL_ADDRESS,
        r"write past the end of dynamic shared memory \(100 bytes\)",
    ),
}
# Mistakes that show in the result: NaN from memory nobody wrote.
WRONG_RESULT = [
    *("unwritten_dynamic_shared", "unwritten_static_shared", "dynamic_shared_read_overrun"),
    "cluster_reads_too_early",
]
# Mistakes that show when the order of threads or blocks changes, and an order that hides them.
ORDER_DEPENDENT = {
    "missing_barrier_to_the_left": ("forward", "reverse"),
    "missing_barrier_to_the_right": ("reverse", "forward"),
    "block_order": ("reverse", "forward"),  # the ones survive only when added first
}
# Mistakes that only the sanitizers see.
SANITIZED = {
    "dynamic_shared_write_overrun": r"heap-buffer-overflow[\s\S]*WRITE of size 4",
    "dynamic_shared_read_overrun": r"heap-buffer-overflow[\s\S]*READ of size 4",
    "static_shared_overrun": r"index 32 out of bounds for type 'float \[32\]'",
    "global_overrun": r"heap-buffer-overflow[\s\S]*WRITE of size 4",
    "misaligned_vector": r"misaligned address .* requires 16 byte alignment",
}


@pytest.fixture(scope="module")
def planted() -> ctypes.CDLL:
    """The planted mistakes as a library."""
    handle = ctypes.CDLL(str(emulation.build("planted", PLANTED_SOURCES, torch=False)))
    handle.reid_ops_emulation_last_fault.restype = ctypes.c_char_p
    return handle


@pytest.fixture(scope="module")
def ucontext_planted() -> Path:
    """The planted mistakes as a program that switches fibers as machines other than x86-64 do."""
    sources = [
        source
        for source in PLANTED_SOURCES
        if source.stem in {"main", "barrier_after_exit", "different_primitives"}
    ]
    defines = ["REID_OPS_EMULATION_UCONTEXT"]
    return emulation.build("planted_ucontext", sources, torch=False, executable=True, defines=defines)


@pytest.fixture(scope="module")
def sanitized_planted() -> Path:
    """The planted mistakes as a program with sanitizers."""
    return emulation.build("planted", PLANTED_SOURCES, torch=False, executable=True, sanitize=True)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each order of threads and blocks in turn."""
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", request.param)
    return str(request.param)


def planted_names() -> list[str]:
    """Every planted mistake, from the sources."""
    return [name for file in PLANTED for name in re.findall(r"^PLANTED\((\w+)\)", file.read_text(), re.M)]


def test_every_planted_mistake_is_expected_somewhere() -> None:
    """A kernel added to planted/ must be added to a table here."""
    assert {*REPORTED, *WRONG_RESULT, *ORDER_DEPENDENT, *SANITIZED} == set(planted_names())


@pytest.mark.parametrize("name", sorted(REPORTED))
def test_mistake_is_reported(name: str, planted: ctypes.CDLL, capfd: pytest.CaptureFixture[str]) -> None:
    """The launch fails with one clear line, and the next launches work."""
    error, message = REPORTED[name]
    planted.reid_ops_emulation_clear_last_fault()
    assert planted.run_planted(name.encode(), 0) == error
    fault = planted.reid_ops_emulation_last_fault().decode()
    assert re.search(message, fault)
    assert re.search(r"\[block \(\d+, \d+, \d+\)", fault)
    assert capfd.readouterr().err == f"reid_ops emulation: {fault}\n"
    assert planted.run_planted(name.encode(), 1) == SUCCESS


@pytest.mark.parametrize("name", WRONG_RESULT)
def test_unwritten_memory_shows(name: str, planted: ctypes.CDLL) -> None:
    """Nothing is reported, but the result is NaN."""
    assert planted.run_planted(name.encode(), 0) == UNKNOWN


@pytest.mark.parametrize("name", sorted(ORDER_DEPENDENT))
def test_order_dependence_shows(name: str, planted: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """One order hides the mistake, another shows it."""
    hides, shows = ORDER_DEPENDENT[name]
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", hides)
    assert planted.run_planted(name.encode(), 0) == SUCCESS
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", shows)
    assert planted.run_planted(name.encode(), 0) == UNKNOWN


def test_corrected_twins_pass(planted: ctypes.CDLL, schedule: str) -> None:
    """Every corrected kernel passes in every order."""
    for name in planted_names():
        assert planted.run_planted(name.encode(), 1) == SUCCESS, name


@pytest.mark.parametrize("name", sorted(SANITIZED))
def test_sanitizers_see(name: str, sanitized_planted: Path) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer stop the program at the mistake."""
    done = subprocess.run([sanitized_planted, name, "buggy"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "cuda" not in done.stdout
    assert re.search(SANITIZED[name], done.stderr)
    assert f"{'overruns' if 'overrun' in name else name}.cu" in done.stderr


@pytest.mark.parametrize("schedule_name", ["forward", "shuffled:3"])
def test_sanitizers_accept_the_rest(schedule_name: str, sanitized_planted: Path) -> None:
    """Fiber switches and abandoned fibers leave no false reports, and leak nothing."""
    variables = {**os.environ, "REID_OPS_EMULATION_SCHEDULE": schedule_name}
    for name in planted_names():
        done = subprocess.run(
            [sanitized_planted, name, "corrected"], capture_output=True, text=True, env=variables
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "cudaSuccess\n", ""), name
    for name in sorted(set(REPORTED) - set(SANITIZED)):
        done = subprocess.run(
            [sanitized_planted, name, "buggy"], capture_output=True, text=True, env=variables
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("name", ["barrier_after_exit", "different_primitives"])
def test_portable_fibers(name: str, ucontext_planted: Path) -> None:
    """The switch for other machines finds the same."""
    buggy = subprocess.run([ucontext_planted, name, "buggy"], capture_output=True, text=True)
    assert re.search(REPORTED[name][1], buggy.stderr)
    corrected = subprocess.run([ucontext_planted, name, "corrected"], capture_output=True, text=True)
    assert (corrected.returncode, corrected.stdout, corrected.stderr) == (0, "cudaSuccess\n", "")


def test_unknown_schedule_is_refused(sanitized_planted: Path) -> None:
    """A misspelt variable must not silently mean `forward`."""
    variables = {**os.environ, "REID_OPS_EMULATION_SCHEDULE": "backward"}
    done = subprocess.run(
        [sanitized_planted, "trap", "corrected"], capture_output=True, text=True, env=variables
    )
    assert done.returncode != 0
    assert "must be forward, reverse or shuffled[:seed], got 'backward'" in done.stderr


SMALL_KERNEL = """
#include "value.h"
#include "common/launch.h"
__global__ void put(int* out) { *out = VALUE; }
extern "C" int run_put(int* out) { return reid_ops::launch(put, dim3(1), dim3(1), 0, nullptr, out); }
"""


def test_build_is_incremental(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changed: nothing is compiled. A header changed: what includes it is."""
    monkeypatch.setattr(emulation, "BUILD", tmp_path / "build")
    compiled: list[str] = []
    real_run = emulation.run

    def counting_run(command: Sequence[str], what: str) -> None:
        compiled.append(what)
        real_run(command, what)

    monkeypatch.setattr(emulation, "run", counting_run)
    source, header = tmp_path / "put.cu", tmp_path / "value.h"
    source.write_text(SMALL_KERNEL)

    def value() -> int:
        compiled.clear()
        path = emulation.build("put", [source], torch=False)
        # A copy, as dlopen gives back what is already loaded from the same path.
        copy = tmp_path / f"{time.monotonic_ns()}.so"
        copy.write_bytes(path.read_bytes())
        out = np.zeros(1, np.int32)
        assert Library(copy)("run_put", out) == 0
        return int(out[0])

    header.write_text("#define VALUE 5\n")
    assert value() == 5
    assert len(compiled) == 2 + len(emulation.RUNTIME)
    assert value() == 5
    assert compiled == []
    header.write_text("#define VALUE 6\n")
    assert value() == 6
    assert compiled == [f"compiling {source}", "linking put.so"]


def test_build_errors_carry_the_compilers_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not compile says where."""
    monkeypatch.setattr(emulation, "BUILD", tmp_path / "build")
    source = tmp_path / "broken.cu"
    source.write_text("#include <cuda_runtime.h>\n__global__ void broken() { undeclared = 1; }\n")
    with pytest.raises(emulation.BuildError, match=r"compiling .*broken\.cu failed:[\s\S]*undeclared"):
        emulation.build("broken", [source], torch=False)


def test_build_keeps_torchs_restrictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Implicit half conversions fail here as they do in the package's own build."""
    monkeypatch.setattr(emulation, "BUILD", tmp_path / "build")
    source = tmp_path / "implicit.cu"
    source.write_text("#include <cuda_fp16.h>\nfloat implicit(__half value) { return value; }\n")
    with pytest.raises(emulation.BuildError, match="cannot convert"):
        emulation.build("implicit", [source], torch=False)


def test_two_builds_at_once(tmp_path: Path) -> None:
    """The second waits for the first and finds its work done."""
    (tmp_path / "value.h").write_text("#define VALUE 1\n")
    (tmp_path / "put.cu").write_text(SMALL_KERNEL)
    script = (
        "import pathlib, sys; from tests.emulation import build as b; "
        f"b.BUILD = pathlib.Path({str(tmp_path / 'build')!r}); "
        f"print(b.build('put', [{str(tmp_path / 'put.cu')!r}], torch=False))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=emulation.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0] == outputs[1]
