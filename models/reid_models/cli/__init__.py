"""The command line ``reid``: one module per command, each imported when it is asked for."""

from __future__ import annotations

import codecs
import contextlib
import csv
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from .._output import check_not_input
from .._suggest import unknown
from .._text import visible
from .command import Command

#: Commands in the order of ``reid --help``; each is the module of that name in this package.
COMMANDS = (
    "train",
    "evaluate",
    "extract",
    "index",
    "search",
    "rerank",
    "cluster",
    "visualize",
    "export",
    "recipes",
    "datasets",
    "benchmark",
    "completion",
)

USAGE = 2  # exit status of bad input
INTERRUPTED = 130  # of Ctrl-C, as shells have it
CLOSED = 141  # of writing to a pipe whose reader has gone
TRACEBACK = "REID_TRACEBACK"
LONGEST = 600  # characters of an error of several lines that are put into one; of a longer one the first


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``reid``.

    Args:
        arguments: the words after ``reid``; None takes those of the process.

    Returns:
        The exit status: 0, 2 on bad input (one line on stderr says what is wrong; with ``REID_TRACEBACK=1``
        the error is raised instead), 130 on Ctrl-C, 143 on SIGTERM in training.

    Example:
        >>> main(["datasets"])
        0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    prefix = "reid"
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names that are not UTF-8 as they are; what a console of another encoding lacks as its number.
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_overview())
            return 0
        if words[0] == "--version":
            print(f"reid {importlib.import_module('reid_ops._version').__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        prefix = f"reid {words[0]}"
        _run(words[0], words[1:])
        if sys.stdout is not None:  # it was closed before the process began
            sys.stdout.flush()
    except SystemExit as stop:  # of --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_status", INTERRUPTED)
    except BrokenPipeError:
        # As Python's documentation has it: the interpreter's own flush at its end must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "reid_ops", "reid_models"):
            raise
        extra = "onnx" if package.startswith("onnx") else "models"
        return _fail(prefix, f'needs the package {package}: pip install "reid-ops[{extra}]"', error)
    except (ValueError, TypeError, OSError, RuntimeError, csv.Error) as error:
        return _fail(prefix, str(error), error)
    return 0


def _run(name: str, words: Sequence[str]) -> None:
    command = _module(name).COMMAND
    options = _module("parsing").read(command, words)
    output = vars(options).get("output")
    if isinstance(output, str):
        check_not_input(output, "--output", _words_of(options))
    command.run(options)


def _words_of(options: Any) -> Iterator[str]:
    """Every word of a command but its output: some of them are files that it reads."""
    for name, value in vars(options).items():
        words = value if isinstance(value, list) else [value]
        yield from (word for word in words if name != "output" and isinstance(word, str))


def find_command(name: str) -> Command:
    """One of :data:`COMMANDS`."""
    found: Command = _module(name).COMMAND
    return found


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


def _overview() -> str:
    """The text of ``reid --help``."""
    summaries = {name: _module(name).COMMAND.summary for name in COMMANDS}
    width = max(map(len, summaries))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in summaries.items())
    return (
        "usage: reid COMMAND ...\n\nRe-identification: train models, search galleries, measure.\n\n"
        f"commands:\n{commands}\n\n`reid COMMAND --help` shows a command's arguments and an example.\n"
        f"With {TRACEBACK}=1 in the environment an error is shown with where it came from."
    )


def _fail(prefix: str, message: str, error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        raise error
    text = visible(_one_line(message) or type(error).__name__)
    with contextlib.suppress(OSError):  # stderr may be closed or full as well; the status says it
        print(f"{prefix}: {text}", file=sys.stderr)
    return USAGE


def _one_line(message: str) -> str:
    """Lines in one, or the first of a long message."""
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    joined = "; ".join(lines).replace(":; ", ": ").replace(",; ", ", ")
    if len(lines) < 2 or len(joined) <= LONGEST:
        return joined
    return f"{lines[0]} ({TRACEBACK}=1 shows all)"
