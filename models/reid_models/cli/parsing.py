"""How a command's words are read."""

from __future__ import annotations

import re
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from .._words import parse
from .command import Command

__all__ = ["ArgumentParser", "Namespace", "make_parser", "read"]

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
