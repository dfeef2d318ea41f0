"""Running an operator's tests with an older instruction set than the processor has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]


def run_with(instruction_set: str, code: str) -> None:
    """Runs the code in a process of its own, for the choice is made once."""
    code += "import reid_ops; print(reid_ops.build_info()['cpu_capability'])\n"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "REID_OPS_CPU": instruction_set},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if result.stdout.strip() != instruction_set:
        pytest.skip(f"this processor has no {instruction_set}; ran {result.stdout.strip()}")
