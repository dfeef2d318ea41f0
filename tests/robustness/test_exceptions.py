"""What is thrown in C++ reaches the user as one type, whichever version of torch carries it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# `host/` is a pybind11 module, without torch between it and Python. What the other two throw below an
# operator is caught, in another thread too, by what torch_glue.h has for that.
MAY_THROW = {"common/torch_glue.h", "common/instruction_set.h", "common/cpu_scratch.h"}
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def sources() -> dict[str, str]:
    """Every file of the operators, without comments."""
    files = [path for ending in ("h", "cpp", "cu") for path in CSRC.rglob(f"*.{ending}")]
    names = [path.relative_to(CSRC).as_posix() for path in files]
    texts = [COMMENT.sub("", path.read_text(encoding="utf-8")) for path in files]
    return {name: text for name, text in zip(names, texts, strict=True) if not name.startswith("host/")}


def containing(pattern: str) -> set[str]:
    return {name for name, text in sources().items() if re.search(pattern, text)}


def test_exceptions_are_thrown_where_they_are_caught() -> None:
    assert containing(r"\bthrow\b") == MAY_THROW


def test_operators_and_threads_are_started_where_exceptions_are_caught() -> None:
    """TORCH_BOX and parallel_for themselves would let anything through."""
    assert containing(r"\bTORCH_BOX\b|\bstable::parallel_for\b") == {"common/torch_glue.h"}
    registered = [text.count("REID_OPS_BOX") for name, text in sources().items() if name.endswith("ops.cpp")]
    assert len(registered) >= 5 and all(registered)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_a_kernel_is_a_runtime_error(threads: int) -> None:
    """std::invalid_argument, thrown in this thread or in one of the pool; the next call works again."""
    program = f"""
import os, torch, reid_ops
torch.set_num_threads({threads})
os.environ["REID_OPS_CPU"] = "sse9"
signal, parts = torch.rand(64, 8, 9, 9), torch.rand(64, 3, 8, 3, 3)
for _ in range(3):
    try:
        reid_ops.part_correlation(signal, parts)
    except Exception as error:
        print(type(error).__name__, str(error).split("\\n")[0])
del os.environ["REID_OPS_CPU"]
print(tuple(reid_ops.part_correlation(signal, parts).shape))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    refused = "RuntimeError REID_OPS_CPU must be baseline, avx2 or avx512, got sse9"
    assert ran.stdout.splitlines() == [refused] * 3 + ["(64, 24, 9, 9)"]
