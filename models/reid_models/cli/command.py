"""What a command of ``reid`` is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


@dataclass(frozen=True)
class Command:
    """One command: a module of this package holds one as ``COMMAND``.

    The module must import nothing but the standard library when it is imported, so that ``reid --help`` is
    quick and needs no other package; what ``run`` needs is imported there.

    Attributes:
        name: the word after ``reid``, and the module's name.
        summary: one line, for the list of commands.
        example: command lines for ``--help``.
        configure: adds the arguments to a parser.
        run: does it. Errors that it raises are shown in one line: they name the argument, what was expected
            and what came.
        passes_on: the words are another program's: ``run`` gets them unread, as ``options.words``.
    """

    name: str
    summary: str
    example: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    passes_on: bool = False
