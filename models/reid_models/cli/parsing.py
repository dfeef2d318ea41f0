"""How a command's words are read."""

from __future__ import annotations

import math
import re
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from .._words import parse
from .command import Command

__all__ = ["ArgumentParser", "Namespace", "make_parser", "read", "separate"]

NUMBER = re.compile(r"-\d|-\.\d")  # a word that begins with a minus and is no option
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
    """The values of a command's words, options and others in any order; as :func:`parse`."""
    if command.passes_on and not {"-h", "--help"} & set(words[:1]):
        return Namespace(words=list(words))
    parser = make_parser(command)
    if "--" not in words:  # argparse gives words of several arguments to the first, unless they come together
        plain, options = separate(parser, words)
        words = [*plain, *options]
    return parse(parser, words)


def separate(parser: ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that belong to no option, and the options with their values; each in the order given."""
    plain: list[str] = []
    options: list[str] = []
    wanted = 0.0  # words that the option before still takes
    for word in words:
        if _is_option(word):
            options.append(word)
            wanted = 0 if "=" in word else _values(parser, word)
        elif wanted > 0:
            options.append(word)
            wanted -= 1
        else:
            plain.append(word)
    return plain, options


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and NUMBER.match(word) is None


def _values(parser: ArgumentParser, option: str) -> float:
    """How many words an option takes; of ``--options.size`` that is said of ``--options``."""
    key = option.removesuffix("+")
    while key and key not in parser._option_string_actions:
        key = key.rpartition(".")[0]
    if not key:  # unknown, and said to be so; a word behind it is most likely its value
        return 1
    count = parser._option_string_actions[key].nargs
    if isinstance(count, int):
        return count
    return 1 if count in (None, "?") else math.inf
