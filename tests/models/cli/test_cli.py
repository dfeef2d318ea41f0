"""The frame of `reid`: finding commands, help, and errors."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reid_models import cli
from reid_models.cli import COMMANDS, main
from reid_models.cli.command import Command
from reid_models.cli.parsing import Namespace

ROOT = Path(__file__).parents[3]


def add_command(monkeypatch: pytest.MonkeyPatch, run: Callable[[Namespace], None]) -> None:
    """`reid probe NAME --size N`."""

    def configure(parser: object) -> None:
        parser.add_argument("name")  # type: ignore[attr-defined]
        parser.add_argument("--size", type=int, default=3)  # type: ignore[attr-defined]
        parser.add_argument("--kind", choices=["flat", "ivf"], default="flat")  # type: ignore[attr-defined]

    module = ModuleType("reid_models.cli.probe")
    module.COMMAND = Command("probe", "tries things", "reid probe x", configure, run)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reid_models.cli.probe", module)
    monkeypatch.setattr(cli, "COMMANDS", (*COMMANDS, "probe"))


def test_overview_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        overview = capsys.readouterr().out
        assert all(f"\n  {name} " in overview for name in COMMANDS)
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: reid {name}") and f"example:\n  reid {name}" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("reid 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset"], "reid: unknown command 'dataset'; did you mean \"datasets\"?"),
        (["probe"], "reid probe: the following arguments are required: name"),
        (["probe", "x", "--sise", "4"], "reid probe: unknown option '--sise'; did you mean \"--size\"?"),
        (["probe", "x", "--siz=4"], "reid probe: unknown option '--siz'; did you mean \"--size\"?"),
        (["probe", "x", "y"], "reid probe: unexpected argument 'y'"),
        (["probe", "x", "--size", "big"], 'reid probe: argument "size": Expected int. Got value: big'),
        (["probe", "x", "--kind", "hnsw"], "reid probe: argument --kind: invalid choice: 'hnsw'"),
    ],
)
def test_wrong_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_command(monkeypatch, lambda options: None)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(message) and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, RuntimeError])
def test_errors_of_a_command(
    error: type[Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Namespace) -> None:
        raise error(f"name must be short, got {options.name}")

    add_command(monkeypatch, fail)
    assert main(["probe", "elephant"]) == 2
    assert capsys.readouterr().err == "reid probe: name must be short, got elephant\n"
    monkeypatch.setenv("REID_TRACEBACK", "1")
    with pytest.raises(error, match="elephant"):
        main(["probe", "elephant"])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("root must be a folder. Looked for:\n  ROOT/train/*,\n  or ROOT/*", "ROOT/train/*, or ROOT/*"),
        ("2 images:\n  a is damaged\n  b is gone\n", "2 images: a is damaged; b is gone"),
        (
            "CUDA error: unknown\n" + "For debugging\n" * 99,
            "CUDA error: unknown (REID_TRACEBACK=1 shows all)",
        ),
        ("", "Error"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError, csv.Error])
def test_errors_are_one_line(
    error: type[Exception],
    message: str,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(options: Namespace) -> None:
        raise error(message)

    add_command(monkeypatch, fail)
    assert main(["probe", "x"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("reid probe: ") and line.endswith(f"{shown}\n") and line.count("\n") == 1


def test_names_that_are_not_utf_8_are_printed_as_they_are(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_command(monkeypatch, lambda options: print(os.fsdecode(b"caf\xe9.png")))
    assert main(["probe", "x"]) == 0
    assert capfdbinary.readouterr().out == b"caf\xe9.png\n"


def test_an_error_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: Namespace) -> None:
        raise AssertionError("a mistake of ours")

    add_command(monkeypatch, fail)
    with pytest.raises(AssertionError):
        main(["probe", "x"])


def test_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: Namespace) -> None:
        raise KeyboardInterrupt

    add_command(monkeypatch, interrupt)
    assert main(["probe", "x"]) == 130
    assert capsys.readouterr().err == ""


def test_a_missing_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Namespace) -> None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    add_command(monkeypatch, fail)
    assert main(["probe", "x"]) == 2
    assert "needs the package timm: pip install" in capsys.readouterr().err


def test_as_a_program() -> None:
    """One process: `--help` is quick because nothing heavy is imported, and a closed pipe is no error."""
    program = (
        "import sys; from reid_models.cli import main; status = main(['--help']); "
        "heavy = {'torch', 'timm', 'lightning', 'matplotlib'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr); sys.exit(status)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'models'}", "PATH": "/usr/bin:/bin"},
    )
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
    assert "datasets" in ran.stdout


@pytest.mark.parametrize(
    ("missing", "words", "named"),
    [
        (("yaml", "jsonargparse", "timm", "lightning", "rich"), "recipes", "jsonargparse"),
        (("yaml", "jsonargparse", "timm", "lightning", "rich"), "recipes --help", "jsonargparse"),
        (("yaml",), "recipes", "yaml"),
        (("timm",), "evaluate weights.safetensors --dataset omniglot", "timm"),
        (("lightning",), "train omniglot_hsgnet", "lightning"),
    ],
)
def test_without_the_packages_of_the_extra(missing: tuple[str, ...], words: str, named: str) -> None:
    """As after `pip install reid-ops`: help works, commands say in one line what to install."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); from reid_models.cli import main; "
        f"assert main(['--help']) == 0; sys.exit(main({words.split()!r}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'models'}", "PATH": "/usr/bin:/bin"},
    )
    message = f'reid {words.split()[0]}: needs the package {named}: pip install "reid-ops[models]"\n'
    assert (ran.returncode, ran.stderr) == (2, message)
    assert ran.stdout.startswith("usage: reid COMMAND")


def test_control_characters_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Namespace) -> None:
        raise ValueError(f"name must be a file, got {options.name}")

    add_command(monkeypatch, run)
    assert main(["probe", "a\x1b[2J\x9b.png"]) == 2
    assert capsys.readouterr().err == "reid probe: name must be a file, got a\\x1b[2J\\x9b.png\n"


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.json"
    image.write_text("precious")
    for words in ([str(image), "--index", "i"], ["b", "--index", str(image)]):
        assert main(["search", *words, "--output", str(image)]) == 2
        expected = f"reid search: --output must not be one of the files that are read, got {image}\n"
        assert capsys.readouterr().err == expected
    assert image.read_text() == "precious"


def python(
    *words: str, stdout: Any = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}/models:{ROOT}", **environment}
    return subprocess.run([sys.executable, *words], stdout=stdout, stderr=subprocess.PIPE, env=variables)


def test_closed_and_full_outputs_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = python("-m", "reid_models", "--version", stdout=full)
    assert ran.returncode == 2 and ran.stderr.startswith(b"reid: ") and ran.stderr.count(b"\n") == 1
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where the descriptor is closed
    assert main(["--version"]) == 0
    assert capsys.readouterr().err == ""


def test_consoles_of_other_encodings_show_what_they_can() -> None:
    program = "from reid_models import cli; cli._run = lambda *_: print(chr(0x732b)); cli.main(['search'])"
    ran = python("-c", program, PYTHONIOENCODING="cp1252")
    assert (ran.returncode, ran.stdout) == (0, b"\\u732b\n")
