"""From images of known identities to training images and a retrieval split, whatever cameras are known."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..records import (
    JUNK,
    UNKNOWN_CAMERA,
    ImageRecord,
    ReidDataset,
    RetrievalSplit,
    have_positive,
    identities,
)
from .naming import is_unknown, known_only, not_asked


@dataclass(frozen=True)
class SplitRule:
    """How images are split, where they don't say it themselves; the arguments of :func:`read_folder`.

    Attributes:
        train_fraction: share of identities for training, in (0, 1); of images, of a closed set.
        seed: of the random choice.
        closed_set: the same identities in training and test.
        leave_one_out: every test image is searched for among all others.
        same_camera_counts: whether right images by the query's own camera count; None: they do where there is
            but one camera, and where images that are split here leave no query any other.
    """

    train_fraction: float = 0.5
    seed: int = 0
    closed_set: bool = False
    leave_one_out: bool = False
    same_camera_counts: bool | None = None


def split_at_random(
    records: Iterable[ImageRecord],
    rule: SplitRule,
    name: str,
    root: str,
    dates: Mapping[str, str] | None = None,
) -> ReidDataset:
    """A dataset of images that say nothing of splits.

    Args:
        records: images, those of unknown identities among them.
        rule: how.
        name: of the reader.
        root: where it was read from.
        dates: of images by name: the earlier ones of each individual of a closed set are for training.

    Raises:
        ValueError: there are too few identities, or no identity has two images that are not for training.
    """
    check_fraction(rule.train_fraction, name)
    records = tuple(records)
    strangers = tuple(r for r in records if r.identity == JUNK or is_unknown(r.who))
    known = known_only(records)
    random = np.random.default_rng(rule.seed)
    if rule.closed_set:
        train, test = _split_images(known, rule.train_fraction, random, dates or {})
        if rule.leave_one_out:
            gallery: tuple[ImageRecord, ...] = (*test, *strangers)
            query = test
        else:
            gallery, query = (*train, *strangers), test
        draw = RetrievalSplit(query, gallery)
    else:
        train, test = choose_identities(known, rule.train_fraction, random, name, root)
        query, gallery = (test, test) if rule.leave_one_out else _ask(test, random, rule.same_camera_counts)
        draw = RetrievalSplit(query, (*gallery, *strangers))
    if not draw.query:
        raise ValueError(f"{name}: no test identity has two images, so there are no queries ({root})")
    counts = rule.same_camera_counts
    if counts is None and _cameras(draw):
        counts = not any(have_positive(not_asked(draw.query), draw.gallery, True, rule.leave_one_out))
    return with_protocol(name, root, train, draw, replace(rule, same_camera_counts=counts))


def with_protocol(
    name: str, root: str, train: Sequence[ImageRecord], draw: RetrievalSplit, rule: SplitRule
) -> ReidDataset:
    """A dataset of given splits, with the rule of cameras that its images allow.

    Raises:
        ValueError: a split is empty, training and test share identities, or no query has a right image that
            counts; the message says which setting helps.
    """
    query, gallery = not_asked(draw.query), draw.gallery
    names = {record.name for record in gallery}
    inside = any(record.name in names for record in query)
    counts = rule.same_camera_counts
    if counts is None:
        counts = len(_cameras(draw)) < 2  # one camera, or none: what is the same everywhere tells nothing
    # A query of a known camera leaves its own image out with that camera.
    alone = inside and (counts or any(record.camera == UNKNOWN_CAMERA for record in query))
    dataset = ReidDataset(
        name,
        root,
        known_only(train),
        (RetrievalSplit(query, gallery),),
        same_camera_is_junk=not counts,
        exclude_self=alone,
        closed_set=rule.closed_set,
    )
    check_answerable(dataset)
    return dataset


def check_answerable(dataset: ReidDataset) -> None:
    """Raises ``ValueError``, which says what helps, unless every draw has a query with a positive."""
    for number, draw in enumerate(dataset.draws):
        if any(dataset.answerable(number)):
            continue
        asked = next((record for record in draw.query if record.identity != JUNK), None)
        if asked is None:
            problem = "no query has a known identity"
        elif not any(have_positive(draw.query, draw.gallery, False, dataset.exclude_self)):
            problem = f"no query has another image of its identity in the gallery, such as one of {asked.who}"
        else:
            camera = f" (camera {asked.where})" if asked.where else ""
            problem = (
                f"the gallery shows no query's identity by another camera than the query's, such as "
                f"{asked.who}'s{camera}: same_camera_counts true, where the reader has it, counts images of "
                "one camera"
            )
        raise ValueError(f"{dataset.name}: nothing can be measured: {problem} ({dataset.root})")


def choose_identities(
    records: Sequence[ImageRecord], train_fraction: float, random: np.random.Generator, name: str, root: str
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Images of identities for training, at random, and those of the others."""
    shuffled = random.permutation(sorted(identities(records)))
    if len(shuffled) < 2:
        raise ValueError(f"{name}: a split needs at least 2 identities, got {len(shuffled)} ({root})")
    count = min(max(round(train_fraction * len(shuffled)), 1), len(shuffled) - 1)
    chosen = {int(identity) for identity in shuffled[:count]}
    train = tuple(record for record in records if record.identity in chosen)
    return train, tuple(record for record in records if record.identity not in chosen)


def check_fraction(value: float, name: str) -> None:
    """Raises ``ValueError`` for a train_fraction outside (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: train_fraction must be in (0, 1), got {value}")


def _split_images(
    records: Sequence[ImageRecord], fraction: float, random: np.random.Generator, dates: Mapping[str, str]
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Of each identity a share of the images for training, at least one, and the others."""
    train: set[ImageRecord] = set()
    for _, images in sorted(_by_identity(records).items()):
        order = [images[place] for place in random.permutation(len(images))]
        if any(dates.get(image.name) for image in order):
            order.sort(key=lambda image: dates.get(image.name, ""))
        train.update(order[: max(1, math.ceil(fraction * len(order) - 1e-9))])
    return (
        tuple(record for record in records if record in train),
        tuple(record for record in records if record not in train),
    )


def _ask(
    test: Sequence[ImageRecord], random: np.random.Generator, same_camera_counts: bool | None
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Queries and the gallery.

    One image by each camera of every identity that two have seen, all in the gallery; or, where no two have
    or their images count all the same, half of every identity's images, which are then not in the gallery.
    """
    groups: dict[int, dict[int, list[ImageRecord]]] = {}
    for identity, images in _by_identity(test).items():
        cameras = groups.setdefault(identity, defaultdict(list))
        for image in images:
            cameras[image.camera].append(image)
    query = tuple(
        images[int(random.integers(len(images)))]
        for _, cameras in sorted(groups.items())
        if len(cameras.keys() - {UNKNOWN_CAMERA}) > 1
        for camera, images in sorted(cameras.items())
        if camera != UNKNOWN_CAMERA
    )
    if query and not same_camera_counts:
        return query, tuple(test)
    asked: set[ImageRecord] = set()
    for _, images in sorted(_by_identity(test).items()):
        order = [images[place] for place in random.permutation(len(images))]
        asked.update(order[: len(order) // 2])
    rest = tuple(record for record in test if record not in asked)
    return tuple(record for record in test if record in asked), rest


def _cameras(draw: RetrievalSplit) -> set[int]:
    """Those that are known."""
    return {record.camera for record in (*draw.query, *draw.gallery)} - {UNKNOWN_CAMERA}


def _by_identity(records: Iterable[ImageRecord]) -> dict[int, list[ImageRecord]]:
    groups: dict[int, list[ImageRecord]] = defaultdict(list)
    for record in records:
        groups[record.identity].append(record)
    return groups
