"""Numbers that arguments must be."""

from __future__ import annotations


def check_integer(value: int, argument: str, owner: str, least: int = 0) -> None:
    """Raises TypeError or ValueError unless an argument is an int, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {argument} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{owner}: {argument} must be at least {least}, got {value}")


def check_number(value: float, argument: str, owner: str) -> None:
    """Raises TypeError unless the argument is an int or a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {argument} must be a number, got {type(value).__name__}")
