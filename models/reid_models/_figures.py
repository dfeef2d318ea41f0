"""Figures of papers' rooms: kinds of ``reid visualize`` beside its own.

Imports nothing but the standard library, and so should a room's ``figures.py`` at its top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._registry import Registry, table


@dataclass(frozen=True)
class PaperFigure:
    """A kind of figure that a paper has.

    Attributes:
        summary: what it shows, for ``--help``.
        options: those of ``reid visualize`` that it takes, of ``count``, ``top``, ``seed``.
        draw: called with the networks by name (:class:`reid_models.runs.models.Trained`) and the dataset, and
            by keyword with those options that were given, ``title`` and ``device``; gives a figure of
            matplotlib's.
    """

    summary: str
    options: tuple[str, ...]
    draw: Callable[..., Any]


def check_figure(thing: object) -> None:
    """Raises TypeError unless that is a :class:`PaperFigure`."""
    if not isinstance(thing, PaperFigure):
        raise TypeError(f"must be a PaperFigure, got {type(thing).__name__}")


FIGURES: Registry[PaperFigure] = Registry("kind of figure", {}, "figures", table("FIGURES"), check_figure)
