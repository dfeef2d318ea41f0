"""Cross-domain tests: the training images of one dataset, the test images of another (Table VIII)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..._suggest import unknown
from ...data.datasets.registry import read_dataset
from ...data.records import JUNK, ImageRecord, ReidDataset, RetrievalSplit, SplitCounts

FIELDS = ("name", "root", "options")


def read_cross_domain(
    root: str | os.PathLike[str] | None = None, *, train: Mapping[str, Any], test: Mapping[str, Any]
) -> ReidDataset:
    """Reads one dataset for training and another for test (hybrid attention, Table VIII).

    Test identities are numbered behind the training's, so that no two persons share a number; the protocol is
    the test's.

    Args:
        root: the folder in which relative roots of the two lie.
        train: whose training images are taken: ``name``, ``root`` and ``options`` as for
            :func:`reid_models.data.read_dataset`.
        test: whose test images are taken, likewise.

    Raises:
        ValueError: an unknown field, a name that is missing, or as the readers.
        FileNotFoundError: as the readers.

    Example:
        >>> read_cross_domain("/data", train={"name": "dukemtmc_reid", "root": "DukeMTMC-reID"},
        ...                   test={"name": "market1501", "root": "Market-1501-v15.09.15"}).name
        'dukemtmc_reid_to_market1501'
    """
    folder = None if root is None else Path(root)
    source, target = _read(train, "train", folder), _read(test, "test", folder)
    first = max(record.identity for record in source.train) + 1

    def moved(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
        return tuple(r if r.identity == JUNK else replace(r, identity=first + r.identity) for r in records)

    draws = tuple(RetrievalSplit(moved(draw.query), moved(draw.gallery)) for draw in target.draws)
    counts, other = source.published or SplitCounts(), target.published or SplitCounts()
    published = replace(other, train_identities=counts.train_identities, train_images=counts.train_images)
    return ReidDataset(
        f"{source.name}_to_{target.name}",
        f"{source.root}, {target.root}" if root is None else str(root),
        source.train,
        draws,
        same_camera_is_junk=target.same_camera_is_junk,
        published=None if published == SplitCounts() else published,
    )


def _read(given: Mapping[str, Any], argument: str, root: Path | None) -> ReidDataset:
    for field in given:
        if field not in FIELDS:
            raise unknown(f"field of {argument} of cross_domain", field, FIELDS)
    if "name" not in given:
        raise ValueError(f"cross_domain: {argument} must have a name, got {dict(given)}")
    own = given.get("root")
    place = own if own is None or root is None else root / own  # an absolute one stays
    return read_dataset(given["name"], place, **(given.get("options") or {}))


READERS = {"cross_domain": read_cross_domain}
