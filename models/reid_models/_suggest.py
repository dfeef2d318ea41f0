"""The one form of error for a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 24


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """``ValueError``: the name, the nearest known one, and the known ones where they are few."""
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f'; did you mean "{nearest[0]}"?' if nearest else ""
    shown = ", ".join(names) if len(names) <= SHOWN else f"{len(names)} names"
    return ValueError(f"unknown {what} {name!r}{hint} (known: {shown})")
