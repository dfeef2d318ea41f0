"""What the tests of the retrieval commands share: their images, and calling a command."""

from __future__ import annotations

import pytest

from reid_models.cli import main

SIZE = (32, 32)
MEAN = [0.4, 0.5, 0.6]


def reid(*words: object) -> int:
    return main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert reid(*words) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.out == ""
    return shown.err.removesuffix("\n")
