"""What options of readers must be."""

from __future__ import annotations

from collections.abc import Sequence


def check_integers(name: str, *given: tuple[int, str, int]) -> None:
    """Raises ``ValueError`` unless each ``(value, argument, least)`` is an int of at least ``least``."""
    for value, argument, least in given:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: {argument} must be an int of at least {least}, got {value!r}")


def check_choice(name: str, value: str, argument: str, choices: Sequence[str]) -> None:
    """Raises ``ValueError`` unless the value is one of ``choices``."""
    if value not in choices:
        known = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name}: {argument} must be {known}, got {value!r}")
