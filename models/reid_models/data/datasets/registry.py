"""Datasets by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from ..._registry import Registry, table
from ..._suggest import unknown
from ..records import ReidDataset
from .cuhk01 import read_cuhk01
from .cuhk03 import read_cuhk03
from .cuhk03_old import read_cuhk03_old
from .dukemtmc_reid import read_dukemtmc_reid
from .folder import read_folder
from .market1501 import read_market1501
from .market_layout import read_market_layout
from .msmt17 import read_msmt17
from .omniglot import read_omniglot
from .splitting import check_answerable
from .synthetic import make_synthetic
from .tables import read_csv, read_wildlife
from .vehicleid import read_vehicleid
from .veri776 import read_veri776
from .viper import read_viper


def _check(thing: object) -> None:
    if not callable(thing):
        raise TypeError(f"must be a function that gives a ReidDataset, got {thing!r}")


#: Readers by name, with those of papers (``READERS`` in ``datasets.py``). Their argument ``root`` or ``path``
#: is where the dataset is; one that has neither is in memory.
READERS: Registry[Callable[..., ReidDataset]] = Registry(
    "dataset",
    {
        "combined": f"{__package__}.combined:read_combined",  # which reads others by their names
        "csv": read_csv,
        "cuhk01": read_cuhk01,
        "cuhk03": read_cuhk03,
        "cuhk03_old": read_cuhk03_old,
        "dukemtmc_reid": read_dukemtmc_reid,
        "folder": read_folder,
        "market1501": read_market1501,
        "market_layout": read_market_layout,
        "msmt17": read_msmt17,
        "omniglot": read_omniglot,
        "synthetic": make_synthetic,
        "vehicleid": read_vehicleid,
        "veri776": read_veri776,
        "viper": read_viper,
        "wildlife": read_wildlife,
    },
    "datasets",
    table("READERS"),
    _check,
)


def list_datasets() -> list[str]:
    """Names that :func:`read_dataset` knows.

    Example:
        >>> list_datasets()
        ['combined', 'csv', 'cuhk01', 'cuhk03', 'cuhk03_old', 'folder', 'market1501', ...]
    """
    return sorted(READERS)


def read_dataset(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> ReidDataset:
    """Reads a dataset by name, for training and test.

    Args:
        name: one of :func:`list_datasets`, or ``package.module:function`` of a reader of one's own.
        root: its folder (for ``"csv"`` the file); None for those that are in memory.
        **options: of the reader.

    Raises:
        ValueError: unknown name or option, a root too many or too few, a dataset that has no test images as
            it is read, or none that a query could find, or as the reader.
        FileNotFoundError: as the reader.

    Example:
        >>> dataset = read_dataset("vehicleid", "/data/VehicleID_V1.0", test_size=2400)
    """
    dataset = read_any(name, root, **options)
    if not dataset.draws:
        raise ValueError(
            f"read_dataset: {dataset.name} ({dataset.root}) as it is read has training images alone, which "
            "can only be added to another dataset's, by `combined`"
        )
    check_answerable(dataset)
    return dataset


def read_any(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> ReidDataset:
    """As :func:`read_dataset`, but also gives datasets that have training images alone."""
    reader = READERS.find(name)
    parameters = inspect.signature(reader).parameters
    known = [p.name for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    place = parameters.get("root") or parameters.get("path")  # none: a dataset in memory
    if root is None and place is not None and place.default is inspect.Parameter.empty:
        raise ValueError(f"read_dataset: root must be a path for {name}, got None")
    if root is not None and place is None:
        raise ValueError(f"read_dataset: root must be None for {name}, got {root!r}")
    return reader(**options) if root is None else reader(root, **options)
