"""Datasets by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..._suggest import unknown
from ..records import ReidDataset
from .folder import read_csv, read_folder
from .market1501 import read_market1501
from .omniglot import read_omniglot
from .synthetic import make_synthetic
from .vehicleid import read_vehicleid
from .veri776 import read_veri776

READERS: Mapping[str, Callable[..., ReidDataset]] = MappingProxyType(
    {
        "csv": read_csv,
        "folder": read_folder,
        "market1501": read_market1501,
        "omniglot": read_omniglot,
        "synthetic": make_synthetic,
        "vehicleid": read_vehicleid,
        "veri776": read_veri776,
    }
)
IN_MEMORY = ("omniglot", "synthetic")  # these are read from nowhere


def list_datasets() -> list[str]:
    """Names that :func:`read_dataset` knows.

    Example:
        >>> list_datasets()
        ['csv', 'folder', 'market1501', 'omniglot', 'synthetic', 'vehicleid', 'veri776']
    """
    return sorted(READERS)


def read_dataset(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> ReidDataset:
    """Reads a dataset by name.

    Args:
        name: one of :func:`list_datasets`.
        root: its folder (for ``"csv"`` the file); None for ``"omniglot"`` and ``"synthetic"``.
        **options: of the reader.

    Raises:
        ValueError: unknown name or option, a root too many or too few, or as the reader.
        FileNotFoundError: as the reader.

    Example:
        >>> dataset = read_dataset("vehicleid", "/data/VehicleID_V1.0", test_size=2400)
    """
    if name not in READERS:
        raise unknown("dataset", name, READERS)
    reader = READERS[name]
    parameters = inspect.signature(reader).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if (root is None) != (name in IN_MEMORY):
        expected = "None" if name in IN_MEMORY else "a path"
        raise ValueError(f"read_dataset: root must be {expected} for {name}, got {root!r}")
    return reader(**options) if root is None else reader(root, **options)
