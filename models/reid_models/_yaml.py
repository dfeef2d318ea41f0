"""YAML from files that anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

MOST_VALUES = 100_000  # in a file of settings, with what aliases repeat; recipes have some hundred


def parse_yaml(text: str) -> Any:
    """What a text in YAML says: plain values, lists and mappings. No code is run and no object made.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: by aliases a few bytes become more than :data:`MOST_VALUES` values, or no end of them; or
            values are in each other some hundred times.
    """
    try:
        content = yaml.safe_load(text)
        count = _count(content, {})
    except RecursionError:
        raise ValueError("it must not nest so deep that it can't be read") from None
    if count > MOST_VALUES:
        raise ValueError(f"it must hold at most {MOST_VALUES} values, those that its aliases repeat included")
    return content


def _count(value: Any, known: dict[int, float]) -> float:
    """Values in a value. An alias is the same object again, so each is counted once and added as often."""
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, (list, tuple, set)):
        inner = list(value)
    else:
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # met again from within: it has no end
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]
