"""Completion in shells."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reid_models.cli import main


def test_shells_complete_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script for bash, asked as bash asks it."""
    assert main(["completion", "bash"]) == 0
    (tmp_path / "reid.bash").write_text(capsys.readouterr().out)
    asked = {"reid se": "search", "reid index --skip": "--skip-damaged", "reid train x --ep": "--epochs"}
    for line, wanted in asked.items():
        words = line.split()
        script = (
            f"source {tmp_path / 'reid.bash'}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_shtab_reid; echo "${COMPREPLY[@]}"'
        )
        said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert wanted in said.stdout.split(), line
