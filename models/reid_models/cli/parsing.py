"""How a command's words are read."""

from __future__ import annotations

import re
from argparse import Action, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from .._suggest import unknown
from .command import Command

__all__ = ["ArgumentParser", "Namespace", "make_parser", "parse", "read"]

UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<first>\S+)", re.IGNORECASE)
TYPE = re.compile(r"(?:a )?<class '(?:\w+\.)*(\w+)'>")
NO_DEFAULT = re.compile(r" \(default: (null|False|\{\}|\[\])\)|, default: null(?=\))")  # "none" says nothing


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Types and defaults behind every argument; the examples as they are written."""

    def _expand_help(self, action: Action) -> str:
        return NO_DEFAULT.sub("", super()._expand_help(action))


# jsonargparse rather than argparse: values are checked by their types, mappings are given as
# `--options.test_size 1600`, and training reads its whole configuration with the same parser. Its
# subcommands are not used: they would have every command import what it stands on.
def make_parser(command: Command) -> ArgumentParser:
    """The parser of a command's words."""
    example = "\n".join(f"  {line}" for line in command.example.strip().splitlines())
    parser = ArgumentParser(
        prog=f"reid {command.name}",
        description=command.summary,
        epilog=f"example:\n{example}",
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    command.configure(parser)
    return parser


def read(command: Command, words: Sequence[str]) -> Namespace:
    """The values of a command's words; as :func:`parse`."""
    if command.passes_on and not {"-h", "--help"} & set(words[:1]):
        return Namespace(words=list(words))
    return parse(make_parser(command), words)


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The values of words.

    Raises:
        ValueError: a word is not known (the nearest option is suggested), missing, or has a wrong value.
        SystemExit: of ``--help``.
    """
    try:
        return parser.parse_args(list(words))
    except ArgumentError as error:
        message = TYPE.sub(r"\1", " ".join(str(error).split())).replace("Parser key", "argument")
        found = UNRECOGNIZED.search(message)
        if found is None:
            raise ValueError(message) from None
        word = found["first"].split("=")[0]
        if not word.startswith("-"):
            raise ValueError(f"unexpected argument {word!r}") from None
        options = [
            option
            for option in parser._option_string_actions
            if option.startswith("--") and "print_" not in option
        ]
        raise unknown("option", word, options) from None
