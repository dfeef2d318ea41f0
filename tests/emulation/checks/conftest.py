"""The library of primitives, and each order of threads and blocks in turn."""

from __future__ import annotations

import pytest

from tests.emulation import build as emulation
from tests.emulation.support import SCHEDULES, Library


@pytest.fixture(scope="session")
def library() -> Library:
    """Launchers of the primitives."""
    sources = sorted((emulation.FOLDER / "primitives").glob("*.cu"))
    return Library(emulation.build("primitives", sources, torch=False))


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each order of threads and blocks in turn."""
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", request.param)
    return str(request.param)
