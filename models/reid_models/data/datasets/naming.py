"""Images under the user's own names of identities and cameras, and the records that they become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..records import JUNK, UNKNOWN_CAMERA, Box, ImageRecord

#: What stands where an individual, or a camera, is not known; in any mixture of capitals.
UNKNOWN_NAMES = ("unknown", "unidentified", "nan", "none", "")


class Named(NamedTuple):
    """An image before its names become numbers."""

    path: str
    identity: str
    camera: str = ""
    box: Box | None = None
    date: str = ""


def is_unknown(name: str) -> bool:
    """Whether a name says that nobody knows: ``unknown``, ``nan``, nothing ..."""
    return name.strip().lower() in UNKNOWN_NAMES


def number_records(splits: Sequence[Iterable[Named]]) -> list[tuple[ImageRecord, ...]]:
    """Records with numbers for the names of identities and cameras, in the names' order.

    Identity ``-1`` is junk. One that is not known (:data:`UNKNOWN_NAMES`) gets a number behind all others,
    the same for all of them: in a gallery they are distractors. Cameras ``-1`` and not known ones are -1.
    """
    rows = [list(split) for split in splits]
    every = [image for split in rows for image in split]
    names = sorted({image.identity for image in every if not is_unknown(image.identity)} - {str(JUNK)})
    numbers = {name: number for number, name in enumerate(names)} | {str(JUNK): JUNK}
    cameras = sorted(
        {image.camera for image in every if not is_unknown(image.camera)} - {str(UNKNOWN_CAMERA)}
    )
    places = {name: number for number, name in enumerate(cameras)}

    def record(image: Named) -> ImageRecord:
        known, seen = image.identity in numbers, places.get(image.camera, UNKNOWN_CAMERA)
        return ImageRecord(
            image.path,
            numbers[image.identity] if known else len(names),
            seen,
            box=image.box,
            identity_name="" if image.identity == str(JUNK) else image.identity if known else "unknown",
            camera_name="" if seen == UNKNOWN_CAMERA else image.camera,
        )

    return [tuple(record(image) for image in split) for split in rows]


def known_only(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Records of identities that are known: what can be trained on."""
    return tuple(record for record in records if record.identity != JUNK and not is_unknown(record.who))


def not_asked(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Queries, those of unknown identities as junk, which nobody asks for."""
    return tuple(
        ImageRecord(r.path, JUNK, r.camera, r.content, r.box, camera_name=r.camera_name)
        if is_unknown(r.who)
        else r
        for r in records
    )
