"""tools/torch_matrix.sh, with stand-ins for Python and pip: what is run, skipped and reported."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A "python9.1" whose environments have a "python" that answers by the release of torch and notes its calls.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exit 0; fi
mkdir -p "$3/bin" && cp "$STAND_IN" "$3/bin/python"
"""
STAND_IN = """#!/bin/sh
echo "$*" >>"$CALLS"
version=$(cat "$CALLS.torch" 2>/dev/null)
case "$*" in
  *"pip install"*)
    version=$(echo "$*" | sed 's/.*torch==\\([0-9.]*\\)\\.\\*.*/\\1/')
    [ "$version" = 9.9 ] && echo "ERROR: No matching distribution found for torch==9.9.*" && exit 1
    echo "$version" >"$CALLS.torch" ;;
  -c*) echo "$version.0+stand" ;;
  *build_ext*) [ "$version" != 7.7 ] ;;
  *emulation.build*) echo /emulated-$version.so ;;
  *pytest*)
    echo "$REID_OPS_EMULATED_LIBRARY" >>"$CALLS"
    [ "$version" = 8.8 ] && echo "1 failed, 2 passed in 3.00s" && exit 1
    echo "3 passed in 1.00s" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the script in it and the stand-ins beside it."""
    folder = tmp_path / "checkout"
    (folder / "tools").mkdir(parents=True)
    (folder / "tests" / "metrics").mkdir(parents=True)
    (folder / "tests" / "models").mkdir()
    for name in ("tests/metrics/test_a.py", "tests/models/test_b.py", "requirements-build.txt"):
        (folder / name).write_text("\n")
    shutil.copy(ROOT / "tools" / "torch_matrix.sh", folder / "tools")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (tmp_path / "bin").mkdir()
    for path, text in ((tmp_path / "bin" / "python9.1", PYTHON), (tmp_path / "stand-in", STAND_IN)):
        path.write_text(text)
        path.chmod(0o755)
    return folder


def run(checkout: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """The script's outcome, and the calls of Python in the environments."""
    calls = checkout.parent / "calls"
    environment = {
        **os.environ,
        "PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "STAND_IN": str(checkout.parent / "stand-in"),
    }
    command = ["bash", "tools/torch_matrix.sh", *arguments]
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    return ran, calls.read_text().splitlines() if calls.exists() else []


def table_of(ran: subprocess.CompletedProcess) -> list[str]:
    return ran.stdout[ran.stdout.index("\nPython ") + 1 :].splitlines()


def test_all_that_can_be_installed_is_run(checkout: Path) -> None:
    ran, calls = run(checkout, "--python", "9.1 9.2", "--torch", "6.6 9.9")
    assert ran.returncode == 0, ran.stderr
    _, first, second, third, fourth, last = table_of(ran)
    assert first == "9.1      6.6.0+stand 3 passed in 1.00s, built with 6.6.0+stand"
    assert second.endswith("skipped: ERROR: No matching distribution found for torch==9.9.*")
    assert third.endswith("skipped: no python9.2 that makes environments") and fourth.startswith("9.2 ")
    assert last == "1 passed, 0 failed"
    tests = next(call for call in calls if call.startswith("-m pytest"))
    assert (
        "tests/metrics/" in tests and "tests/models" not in tests and " -m " not in tests[len("-m pytest") :]
    )
    assert not (checkout / "build" / "matrix" / "environment").exists()


def test_a_failure_is_in_the_table_and_in_the_status(checkout: Path) -> None:
    ran, _ = run(checkout, "--python", "9.1", "--torch", "6.6 7.7 8.8")
    assert ran.returncode == 1
    _, first, second, third, last = table_of(ran)
    assert "3 passed" in first
    assert "FAILED: does not build, see build/matrix/python9.1-torch7.7-build.log" in second
    assert "FAILED: 1 failed, 2 passed" in third and "python9.1-torch8.8-tests.log" in third
    assert last == "1 passed, 2 failed"


def test_once_builds_once(checkout: Path) -> None:
    ran, calls = run(checkout, "--python", "9.1", "--torch", "5.5 6.6", "--once", "--small")
    assert ran.returncode == 0
    assert sum("build_ext" in call for call in calls) == 1
    assert calls.count("/emulated-5.5.so") == 2  # the first's kernels under both
    assert all("-m sanitize and not cuda" in call for call in calls if call.startswith("-m pytest"))
    assert table_of(ran)[2] == "9.1      6.6.0+stand 3 passed in 1.00s, built with 5.5.0+stand"


def test_nothing_run_is_no_success(checkout: Path) -> None:
    ran, _ = run(checkout, "--python", "9.2", "--torch", "6.6")
    assert ran.returncode == 1 and table_of(ran)[-1] == "0 passed, 0 failed"


@pytest.mark.parametrize("arguments", [["--torch"], ["--unknown"]])
def test_bad_arguments_show_how_to_call_it(checkout: Path, arguments: list[str]) -> None:
    ran, calls = run(checkout, *arguments)
    assert ran.returncode == 2 and "--once" in ran.stderr and not calls
