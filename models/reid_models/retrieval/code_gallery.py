"""Galleries of networks that compare pairs, searched in two stages: an index of embeddings, then codes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reid_ops import GalleryIndex
from reid_ops.search import RecallReport

from .._checksum import read_seal
from .features import Features, check_comparable, load_features
from .gallery import Gallery
from .pair_scores import CODES, PairScores, Shortlisted

ATTACHMENT = "reid_models codes"


@dataclass(frozen=True)
class CodeGallery:
    """A gallery whose images a network compares with a query's, pair by pair.

    A query's shortlist comes from the index; of the codes only rows on shortlists are read, so that they may
    be larger than memory.

    Attributes:
        gallery: the embeddings' index, with the images' names.
        codes: of the same images in the same order, mapped from ``file``.
        file: of :func:`save_features`, with the codes.

    Example:
        >>> extract_to_file("vans.codes.safetensors", network, records, image_size=network.image_size)
        >>> CodeGallery.build(network, "vans.codes.safetensors")[0].save("vans.index")
        >>> gallery = CodeGallery.load("vans.index")
        >>> scores, rows = gallery.search(Shortlisted(network, 100), query)
    """

    gallery: Gallery
    codes: Features
    file: Path

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def build(
        network: nn.Module,
        file: str | os.PathLike[str],
        *,
        kind: str = "flat",
        recall: float = 0.99,
        device: str = "auto",
    ) -> tuple[CodeGallery, RecallReport | None]:
        """A gallery of a file of codes, and for approximate kinds what the index's search is worth.

        Args:
            network: that made the codes; it has ``match`` and ``embed``.
            file: of :func:`save_features`.
            kind: as in :class:`reid_ops.GalleryIndex`, like the next two.
            recall: as there.
            device: as there.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or another one, or its codes are another network's, or the network
                has no ``match`` or ``embed``, or as ``GalleryIndex``.
        """
        check_embeds(network)
        codes = load_features(file)
        PairScores(network).prepare(codes)
        gallery, report = Gallery.build(_embedded(network, codes), kind=kind, recall=recall, device=device)
        return CodeGallery(gallery, codes, Path(file)), report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index; with it goes where the codes are, seen from its folder, and their checksum."""
        there = os.path.relpath(self.file.resolve(), Path(path).resolve().parent)
        known = {"file": there, "checksum": read_seal(self.file)}
        self.gallery.index.attachments[ATTACHMENT] = json.dumps(known).encode()
        self.gallery.save(path)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        codes: str | os.PathLike[str] | None = None,
        verify: bool = True,
        **options: Any,
    ) -> CodeGallery:
        """Reads a file of :meth:`save`.

        Args:
            path: the index.
            codes: where the codes are now; None: where they were when the index was written.
            verify: compare the codes' checksum, for which all of them are read.
            **options: of ``GalleryIndex.load``.

        Raises:
            FileNotFoundError: no such file, or the codes' is gone.
            ValueError: a file is damaged or another one, or the index is not one of codes.
        """
        return CodeGallery.of(Gallery.load(path, **options), path, codes=codes, verify=verify)

    @staticmethod
    def of(
        gallery: Gallery,
        path: str | os.PathLike[str],
        *,
        codes: str | os.PathLike[str] | None = None,
        verify: bool = True,
    ) -> CodeGallery:
        """As :meth:`load`, of an index that was read from ``path`` already."""
        if not has_codes(gallery):
            raise ValueError(f"{path} is an index of features: it has no codes of a network that compares")
        try:
            known = json.loads(gallery.index.attachments[ATTACHMENT])
            there, checksum = str(known["file"]), str(known["checksum"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: where its codes are can't be read ({error!r})") from None
        file = Path(path).resolve().parent / there if codes is None else Path(codes)
        if not file.is_file():
            raise FileNotFoundError(
                f"codes of {path} must be a file, got {file}; --codes says where they are"
            )
        found = load_features(file, verify=verify)
        if read_seal(file) != checksum or len(found) != len(gallery):
            raise ValueError(f"{file} must have the codes that {path} was made from, but has others")
        return CodeGallery(gallery, found, file)

    def search(self, comparison: Shortlisted, query: Features) -> tuple[Tensor, Tensor]:
        """Each query's shortlist, best first: similarities (Q, K) and rows (Q, K) of the gallery.

        Args:
            comparison: with the network, and K.
            query: its codes.

        Raises:
            ValueError: codes of another network, or a shortlist longer than the gallery.
        """
        check_comparable(query, self.codes, "search")
        gallery = comparison.prepare(self.codes)
        return comparison.best(comparison.prepare(query), gallery, self.gallery.index)


def has_codes(gallery: Gallery) -> bool:
    """Whether an index is that of a :class:`CodeGallery`."""
    return ATTACHMENT in gallery.index.attachments


def embeds(network: nn.Module) -> bool:
    """Whether a network compares pairs and embeds its codes, so that it can be searched in two stages."""
    return bool(getattr(network, "compares_pairs", False)) and hasattr(network, "embed")


def check_embeds(network: nn.Module) -> None:
    """Raises ``ValueError`` for a network that :func:`embeds` denies."""
    if not embeds(network):
        name = getattr(network, "name", type(network).__name__)
        raise ValueError(
            f"an index of codes needs a network that compares pairs and embeds its codes, and {name} does not"
        )


def check_index(network: Any, **options: Any) -> None:
    """Raises ``ValueError`` for what :meth:`CodeGallery.build` would refuse, before codes are made."""
    check_embeds(network)
    parameter = next(network.parameters())
    GalleryIndex(network.embed(parameter.new_zeros(1, network.feature_length)).shape[1], **options)


def _embedded(network: Any, codes: Features) -> Iterator[Features]:
    for start in range(0, len(codes), CODES):
        part = codes.rows(range(start, min(start + CODES, len(codes))))
        yield replace(part, features=network.embed(part.features).float().contiguous())
