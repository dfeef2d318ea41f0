"""The built-in real images: handwritten characters as identities, their drawers as cameras."""

from __future__ import annotations

import io
import lzma
import tarfile
from importlib.resources import files
from pathlib import PurePosixPath

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .veri776 import NAME

ARCHIVE = "builtin/omniglot_veri.tar.xz"
COUNTS = SplitCounts(136, 2720, 106, 318, 2120)  # counted


def read_omniglot() -> ReidDataset:
    """Reads the images that come with the package: part of Omniglot, laid out as VeRi-776.

    242 characters (identities), each drawn once by 20 people (cameras), 105x105 pixels, black on white: 136
    identities and 2,720 images for training, 106 and 2,120 for the gallery, 318 queries. Protocol as for
    VeRi-776. The images stay in their archive inside the package, so nothing is unpacked or downloaded;
    records have them in memory (13 MB). By Brenden Lake, MIT licence, which is in the archive.

    Example:
        >>> verify_split(read_omniglot())
        []
    """
    name = "omniglot"
    archive = files("reid_models.data").joinpath(ARCHIVE)
    splits: dict[str, list[ImageRecord]] = {"image_train": [], "image_query": [], "image_test": []}
    # Unpacked at once: some members are links to earlier ones, and going back in a compressed file is slow.
    unpacked = io.BytesIO(lzma.decompress(archive.read_bytes()))
    with tarfile.open(fileobj=unpacked) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            match = NAME.match(path.name)
            content = tar.extractfile(member)
            if match and content and path.parent.name in splits:
                record = ImageRecord(
                    member.name, int(match["identity"]), int(match["camera"]), content.read()
                )
                splits[path.parent.name].append(record)
    train, query, gallery = (tuple(sorted(records, key=lambda r: r.path)) for records in splits.values())
    return ReidDataset(name, str(archive), train, (RetrievalSplit(query, gallery),), published=COUNTS)
