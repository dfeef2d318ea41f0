"""Features of a run's network, kept in the run folder and used again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data.records import ImageRecord
from ..runs.files import BEST, FEATURES
from ..runs.models import Trained
from .extraction import Extraction, choose_device, extract_features
from .features import Features, Source, load_features, save_features
from .labels import Names

LIMIT = 1 << 30  # bytes of a file: larger sets are extracted anew


def kept_features(
    trained: Trained, records: Sequence[ImageRecord], *, keep: bool = True, **options: Any
) -> Features:
    """As :func:`extract_features`, by a run's network; the same images are looked at once.

    The features are kept in the run's folder, float32, in a file named after all that they follow from: the
    network's weights, how images are given to it, and each image's path, size and time of change. Those of
    other weights are deleted. A network that is not in a run folder, and a folder that can't be written to,
    keep none.

    Args:
        trained: the network.
        records: images, at least one.
        keep: False: extract anew, and keep nothing.
        **options: of :func:`extract_features`, ``path`` among them.

    Raises:
        TypeError, ValueError, FileNotFoundError: as there.

    Example:
        >>> trained = load_trained("runs/vans")
        >>> features = kept_features(trained, draw_images(dataset), **trained.extraction)
    """
    extraction = Extraction(**options)
    if not keep or extraction.occlusion is not None or Path(trained.path).name != BEST:
        return extract_features(trained.model, records, **options)
    source = extraction.source(trained.model)
    folder = Path(trained.path).parent / FEATURES
    file = folder / f"{source.model[:12]}-{_key(source, extraction, records)}.safetensors"
    if file.is_file():
        found = _with_labels(load_features(file), records)
        if found is not None:
            if extraction.progress and sys.stderr.isatty():  # as bars are
                print(f"features of {len(records)} images: those kept in {folder}", file=sys.stderr)
            return found
    features = extract_features(trained.model, records, **options)
    if features.features.numel() * 4 <= LIMIT:
        _keep(file, features)
    return features


def _key(source: Source, extraction: Extraction, records: Sequence[ImageRecord]) -> str:
    """20 hexadecimal digits of all that features follow from, but the network's weights."""
    device = choose_device(extraction.device).type
    digest = hashlib.blake2b(digest_size=10)
    facts = [replace(source, path="").to_json(), str(extraction.autocast), device]
    digest.update(json.dumps(facts).encode())
    for record in records:
        digest.update(os.fsencode(record.name))
        if record.content is None:
            state = os.stat(record.path)
            digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
        else:
            digest.update(hashlib.blake2b(record.content, digest_size=10).digest())
    return digest.hexdigest()


def _with_labels(features: Features, records: Sequence[ImageRecord]) -> Features | None:
    """The features with the records' labels, which may have changed; None if they are of other images."""
    if list(features.paths) != [record.name for record in records]:
        return None
    return replace(
        features,
        identities=torch.tensor([record.identity for record in records], dtype=torch.int64),
        cameras=torch.tensor([record.camera for record in records], dtype=torch.int64),
        names=Names.of(records),
    )


def _keep(file: Path, features: Features) -> None:
    """Writes them; what is kept of other weights goes."""
    try:
        file.parent.mkdir(exist_ok=True)
        save_features(file, features, dtype=torch.float32)
        for other in file.parent.glob("*.safetensors"):
            if other.name.partition("-")[0] != file.name.partition("-")[0]:
                other.unlink(missing_ok=True)
    except OSError as error:  # a folder to read from alone: the features are there all the same
        print(f"features are not kept: {error}", file=sys.stderr)
