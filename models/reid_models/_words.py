"""How words of a command line are read, by jsonargparse."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from ._suggest import unknown

UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<first>\S+)", re.IGNORECASE)
TYPE = re.compile(r"(?:a )?<class '(?:\w+\.)*(\w+)'>")


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
