"""A bounded part of the fuzzing in every run; `python -m tests.robustness.fuzz` makes as many as asked."""

from __future__ import annotations

import os

import pytest
import torch

from tests.conftest import EMULATED
from tests.emulation.build import build_operators
from tests.robustness.fuzz import driver, raw


def test_public_functions() -> None:
    found = driver.run("public", seed=20261128, first=0, calls=1500)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.outcomes.total() == 1500 and found.outcomes["answer"] > 400, found.outcomes


@pytest.mark.parametrize("library", ["reid_ops", pytest.param(EMULATED, marks=pytest.mark.emulated)])
def test_raw_operators(library: str) -> None:
    calls, load = 1500, None
    if library == EMULATED:
        calls, load = 250, os.environ.get("REID_OPS_EMULATED_LIBRARY") or str(build_operators())
    found = driver.run("raw", seed=0, first=0, calls=calls, library=library, load=load)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.outcomes.total() == calls
    assert calls // 10 < found.outcomes["answer"] < calls * 9 // 10, found.outcomes


def test_every_operator_is_called() -> None:
    everything = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith("reid_ops::"))
    assert {name.split("::")[1].split(".")[0] for name in everything} == set(raw.CALLS)
