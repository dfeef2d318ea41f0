"""A bounded part of the fuzzing in every run; `python -m tests.robustness.fuzz` makes as many as asked."""

from __future__ import annotations

from tests.robustness import fuzz


def test_an_answer_or_an_error() -> None:
    wrong, made = fuzz.run("public", seed=20261128, first=0, calls=1500)
    assert made == 1500 and not wrong, "\n".join(wrong)
