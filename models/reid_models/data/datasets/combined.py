"""Several datasets as one: their training images with labels side by side, for one classifier."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..._suggest import unknown
from ..records import JUNK, ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .options import check_integers
from .registry import read_any

FIELDS = ("name", "root", "options", "first_label", "same_persons_as")


def read_combined(
    root: str | os.PathLike[str] | None = None,
    *,
    datasets: Sequence[Mapping[str, Any]],
    test: str | None = None,
) -> ReidDataset:
    """Combines datasets for training (HCN, section 3.3: three datasets, one label space of 2,489 persons).

    Identities of the training images become their labels: 0 to M1 - 1 for the first dataset, then M1 to
    M1 + M2 - 1, and so on; cameras are numbered through as well. The protocol and test images are those of
    one of the datasets; of the others evaluate the trained model on the dataset itself.

    Args:
        root: the folder in which relative roots of the datasets lie.
        datasets: at least one, each with ``name``, ``root`` and ``options`` as for :func:`read_dataset`, and
            ``first_label``: where its labels begin, by default where the last one's end;
            ``same_persons_as``: the place in the list, from 0, of an earlier dataset that shows the same
            persons by the same identities and so has the same labels (boxes of CUHK03 by hand and detected).
        test: the dataset whose test images are taken, by :attr:`ReidDataset.name`; None: the first that has
            any.

    Raises:
        ValueError: an unknown field or name, two datasets whose labels overlap, labels that leave a gap, no
            test images, or as the readers.
        FileNotFoundError: as the readers.

    Example:
        >>> parts = [{"name": "cuhk01", "root": "CUHK01", "options": {"test_identities": 0}},
        ...          {"name": "market1501", "root": "Market-1501-v15.09.15"}]
        >>> read_combined("/data", datasets=parts, test="market1501").num_classes
        1722
    """
    name = "combined"
    if not datasets:
        raise ValueError(f"{name}: datasets must hold at least one, got none")
    parts: list[_Part] = []
    for given in datasets:
        parts.append(_read_part(given, None if root is None else Path(root), parts, name))
    _check_labels(parts, name)
    tested = _find_tested(parts, test, name)
    number = max(part.end for part in parts)  # identities of test images come after all labels
    moved = tuple(_moved(split, tested, number) for split in tested.dataset.draws)
    train = tuple(record for part in parts for record in part.training())
    names = dict.fromkeys(part.dataset.name for part in parts)
    return ReidDataset(
        f"{name}_{tested.dataset.name}",
        ", ".join(names) if root is None else str(root),
        train,
        moved,
        same_camera_is_junk=tested.dataset.same_camera_is_junk,
        published=_published(parts, tested),
        exclude_self=tested.dataset.exclude_self,
    )


@dataclass(frozen=True)
class _Part:
    """One of the datasets, the label of its first identity, and the number of its first camera."""

    dataset: ReidDataset
    labels: Mapping[int, int]  # identity to label
    first_camera: int
    shares: bool  # its persons are an earlier dataset's

    @property
    def end(self) -> int:
        return max(self.labels.values()) + 1

    @property
    def end_camera(self) -> int:
        tests = (r for draw in self.dataset.draws for r in (*draw.query, *draw.gallery))
        return self.first_camera + max(r.camera for r in (*self.dataset.train, *tests)) + 1

    def training(self) -> Iterable[ImageRecord]:
        for record in self.dataset.train:
            if record.identity != JUNK:
                yield self.moved(record, self.labels[record.identity])

    def moved(self, record: ImageRecord, identity: int) -> ImageRecord:
        camera = record.camera if record.camera < 0 else record.camera + self.first_camera
        return replace(record, identity=identity, camera=camera)


def _read_part(given: Mapping[str, Any], root: Path | None, before: Sequence[_Part], name: str) -> _Part:
    for field in given:
        if field not in FIELDS:
            raise unknown(f"field of a dataset of {name}", field, FIELDS)
    if "name" not in given:
        raise ValueError(f"{name}: each of datasets must have a name, got {dict(given)}")
    own = given.get("root")
    if own is not None and root is not None:
        own = root / own  # an absolute one stays
    dataset = read_any(given["name"], own, **(given.get("options") or {}))
    same, first = given.get("same_persons_as"), given.get("first_label")
    camera = max((part.end_camera for part in before), default=0)
    if same is None:
        start = max((part.end for part in before), default=0) if first is None else first
        check_integers(name, (start, "first_label", 0))
        labels = {identity: start + label for identity, label in dataset.train_labels.items()}
        return _Part(dataset, labels, camera, shares=False)
    if first is not None:
        raise ValueError(f"{name}: {dataset.name} must have first_label or same_persons_as, got both")
    if isinstance(same, bool) or not isinstance(same, int) or not 0 <= same < len(before):
        raise ValueError(
            f"{name}: same_persons_as must be the place of an earlier dataset, in [0, {len(before)}), "
            f"got {same!r}"
        )
    other = before[same]
    alone = dataset.train_labels.keys() - other.labels.keys()
    if alone:
        raise ValueError(
            f"{name}: {dataset.name} must show the same persons as {other.dataset.name}, but "
            f"{len(alone)} are its own, such as {min(alone)}"
        )
    return _Part(dataset, {i: other.labels[i] for i in dataset.train_labels}, camera, shares=True)


def _check_labels(parts: Sequence[_Part], name: str) -> None:
    """Every label is one person's, and every row of the classifier has a label."""
    own = sorted((part for part in parts if not part.shares), key=lambda part: min(part.labels.values()))
    end, last = 0, ""
    for part in own:
        first = min(part.labels.values())
        if first < end:
            raise ValueError(
                f"{name}: labels overlap: {last}'s end at {end - 1}, {part.dataset.name}'s begin at {first}"
            )
        if first > end:
            raise ValueError(
                f"{name}: labels must leave no gap, but {end} to {first - 1} are nobody's, before "
                f"{part.dataset.name}'s"
            )
        end, last = part.end, part.dataset.name


def _find_tested(parts: Sequence[_Part], test: str | None, name: str) -> _Part:
    known = [part.dataset.name for part in parts if part.dataset.draws]
    if not known:
        raise ValueError(f"{name}: one of datasets must have test images, got none that has")
    if test is not None and test not in known:
        raise unknown(f"test of {name}", test, known)
    wanted = known[0] if test is None else test
    return next(part for part in parts if part.dataset.name == wanted and part.dataset.draws)


def _moved(split: RetrievalSplit, part: _Part, number: int) -> RetrievalSplit:
    def records(given: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
        return tuple(part.moved(r, JUNK if r.identity == JUNK else number + r.identity) for r in given)

    return RetrievalSplit(records(split.query), records(split.gallery))


def _published(parts: Sequence[_Part], tested: _Part) -> SplitCounts | None:
    """Sums over the parts, where all are known; persons shown twice count once."""
    counts = [part.dataset.published or SplitCounts() for part in parts]
    identities = [c.train_identities for c, part in zip(counts, parts, strict=True) if not part.shares]
    images = [c.train_images for c in counts]
    test = tested.dataset.published or SplitCounts()
    total = SplitCounts(
        _sum(identities), _sum(images), test.test_identities, test.query_images, test.gallery_images
    )
    return None if total == SplitCounts() else total


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
