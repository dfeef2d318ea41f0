"""Features of several sets under one numbering of identities and cameras."""

from __future__ import annotations

from dataclasses import replace

import torch

from .features import Features
from .labels import Names, Numbering


class Alignment:
    """Brings features of several sets to one numbering of identities and cameras."""

    def __init__(self) -> None:
        self._identities, self._cameras = Numbering(), Numbering()

    def add(self, part: Features) -> Features:
        """The features with labels in the common numbering."""
        identities = self._identities.add(part.identities.numpy(), part.names.identities)
        cameras = self._cameras.add(part.cameras.numpy(), part.names.cameras)
        return replace(
            part, identities=torch.from_numpy(identities), cameras=torch.from_numpy(cameras), names=self.names
        )

    @property
    def names(self) -> Names:
        """Of all sets so far."""
        return Names(dict(self._identities.names), dict(self._cameras.names))


def align(query: Features, gallery: Features) -> tuple[Features, Features]:
    """Queries and gallery with one numbering: what has one name has one number.

    Example:
        >>> query, gallery = align(load_features("query.npz"), load_features("gallery.npz"))
    """
    common = Alignment()
    return common.add(query), common.add(gallery)
