"""Names of identities and cameras beside their numbers, so that results come back under the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from ..data.records import ImageRecord, split_name

UNKNOWN = -1  # identity or camera of an image of which nothing is known


@dataclass(frozen=True)
class Names:
    """The user's own names; a number without one is its own name.

    Attributes:
        identities: number -> name.
        cameras: number -> name.
    """

    identities: Mapping[int, str] = field(default_factory=dict)
    cameras: Mapping[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.identities or self.cameras)

    @staticmethod
    def of(records: Iterable[ImageRecord]) -> Names:
        """Those that records carry."""
        identities: dict[int, str] = {}
        cameras: dict[int, str] = {}
        for record in records:
            if record.identity_name:
                identities.setdefault(record.identity, record.identity_name)
            if record.camera_name:
                cameras.setdefault(record.camera, record.camera_name)
        return Names(identities, cameras)

    def record(self, name: str, identity: int, camera: int) -> ImageRecord:
        """An image of which these labels are known, by its :attr:`ImageRecord.name`."""
        path, box = split_name(name)
        who, where = self.identities.get(identity, ""), self.cameras.get(camera, "")
        return ImageRecord(path, identity, camera, box=box, identity_name=who, camera_name=where)

    def to_json(self) -> str:
        """As text for a file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Names:
        """The inverse of :meth:`to_json`; KeyError, TypeError or ValueError if it is none."""
        values = json.loads(text)
        return Names(*({int(number): str(name) for number, name in values[kind].items()} for kind in KINDS))


KINDS = ("identities", "cameras")


class Numbering:
    """One numbering for labels of several sets: what has one name gets one number.

    The first set keeps its numbers, and so do all where none has names.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._used: set[int] = set()

    def add(self, labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
        """Labels int64 (N,) of a set in this numbering; -1 stays."""
        values, places = np.unique(labels, return_inverse=True)
        moved = np.array([self._number(int(value), names) for value in values], dtype=np.int64)
        return moved[places.reshape(-1)] if len(values) else labels

    def _number(self, value: int, names: Mapping[int, str]) -> int:
        if value < 0:
            return value
        name = names.get(value, str(value))
        if name not in self._numbers:
            number = value if value not in self._used else max(self._used) + 1
            self._numbers[name] = number
            self._used.add(number)
            if name != str(number):
                self.names[number] = name
        return self._numbers[name]
