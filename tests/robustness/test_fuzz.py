"""A bounded part of the fuzzing in every run; `python -m tests.robustness.fuzz` makes as many as asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.robustness import fuzz


@pytest.mark.parametrize(("kind", "calls"), [("public", 1500), ("raw", 800)])
def test_an_answer_or_an_error(kind: str, calls: int) -> None:
    wrong, made = fuzz.run(kind, seed=20261128, first=0, calls=calls)
    assert made == calls and not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ends the process (-11)"),
        ("raise KeyError('leaks')", "KeyError: 'leaks'"),
        ("import time; time.sleep(60)", "hangs"),
        ("return torch.tensor([float('nan')])", "NaN from finite numbers"),
    ],
)
def test_what_is_wrong_is_seen(body: str, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Planted in a copy of the module, in the third of five calls."""
    planted = f"""
def public(chance):
    def call():
        {body}
    Chance.number = getattr(Chance, "number", -1) + 1
    return "planted", (call if START + Chance.number == 2 else (lambda: None)), [], {{}}
"""
    source = (fuzz.ROOT / "tests/robustness/fuzz.py").read_text()
    source = source.replace("\ndef raw(", f"{planted}\n\ndef raw(", 1)
    source = source.replace(
        "    outcomes: Counter[str] = Counter()\n",
        "    globals()['START'] = first\n    outcomes: Counter[str] = Counter()\n",
    )
    (tmp_path / "planted_fuzz.py").write_text(source.replace("HANG = 20.0", "HANG = 1.5"))
    monkeypatch.setattr(fuzz, "MODULE", "planted_fuzz")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{fuzz.ROOT}:{fuzz.ROOT}/models")
    monkeypatch.setattr(fuzz, "HANG", 1.5)
    wrong, _ = fuzz.run("public", seed=0, first=0, calls=5)
    assert len(wrong) == 1 and wrong[0].startswith("call 2: ") and seen in wrong[0]
