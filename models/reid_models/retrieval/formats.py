"""Which files are features."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".safetensors",)


def is_features(path: str) -> bool:
    """Whether a path is that of a file of features, by its ending."""
    return Path(path).suffix.lower() in SUFFIXES
