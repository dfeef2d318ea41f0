"""Fixtures: the backends every op is tested on, and reproducible random numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Waiting threads sleep instead of spinning: the references run thousands of tiny parallel regions, and
# spinning makes each take milliseconds as soon as anything else runs on the machine. Before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from reid_ops import _dispatch

try:
    import hypothesis
except ModuleNotFoundError:  # machines with no more than torch, numpy and pytest
    pass
else:
    # The same examples in every run: a law fails by a change, never by chance or for the machine being busy.
    # `pytest --hypothesis-profile=default` looks for new ones.
    hypothesis.settings.register_profile(
        "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("repeatable")

EMULATED = "reid_ops_emulated"


@dataclass(frozen=True)
class Backend:
    """Where an op runs: its kernels' name, the device of its tensors and the operator library."""

    name: str
    device: str
    library: str

    @property
    def is_emulated(self) -> bool:
        return self.name == "emulated"


@pytest.fixture(scope="session")
def emulated_library() -> str:
    """Builds (or takes from REID_OPS_EMULATED_LIBRARY) the CUDA kernels compiled for the CPU."""
    path = os.environ.get("REID_OPS_EMULATED_LIBRARY")
    if path is None:
        from tests.emulation.build import build_operators

        path = str(build_operators())
    torch.ops.load_library(path)
    _dispatch.add_library(EMULATED)
    return EMULATED


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests on CUDA, the backend's and others, need a device."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("emulated", marks=pytest.mark.emulated),
        pytest.param("cuda", marks=pytest.mark.cuda),
    ]
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Runs a test once per backend; the public functions call its operators."""
    name = request.param
    library = request.getfixturevalue("emulated_library") if name == "emulated" else "reid_ops"
    with _dispatch.use_library(library):
        yield Backend(name, "cuda" if name == "cuda" else "cpu", library)


@contextmanager
def other_thread_count() -> Iterator[None]:
    """Another number of torch's threads than outside: results must not depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
