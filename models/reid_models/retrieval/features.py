"""Features with what they belong to, and on disk: one safetensors file, written a block at a time."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._checksum import LENGTH, is_sealed
from .._output import replacing
from ..data.records import ImageRecord
from .formats import SUFFIXES, is_features, read_foreign
from .labels import Names

FORMAT = "reid_features 2"
DTYPES = {torch.float16: "F16", torch.float32: "F32"}  # safetensors' names
ROWS = 8192  # of a block, where a block is not given


@dataclass(frozen=True)
class Source:
    """Where features come from. Only those of one model, given images in one way, can be compared.

    Attributes:
        model: fingerprint of the network's weights, see :func:`fingerprint`.
        image_size: height and width of its images.
        mean, std: by which images were normalised.
        channels: their order, ``"rgb"`` or ``"bgr"``.
        flip_average: whether features are means over an image and its mirror image.
        interpolation: by which images were brought to their size.
        path: where the model was, to find it again; not compared.
    """

    model: str
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str = "rgb"
    flip_average: bool = False
    interpolation: str = "bilinear"
    path: str = ""

    def to_json(self) -> str:
        """As text for a file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Source:
        """The inverse of :meth:`to_json`; KeyError, TypeError or ValueError if it is none."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("image_size", "mean", "std")}
        return Source(**{**values, **lists})

    def difference(self, other: Source) -> str | None:
        """The first thing that differs and what it is here and there; None if features can be compared."""
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if part.name != "path" and mine != theirs:
                return f"{part.name} {mine} and {theirs}"
        return None


@dataclass(frozen=True)
class Features:
    """Features of images.

    Attributes:
        features: (N, D), float16 or float32, on the CPU (in validation where the network is).
        identities: int64 (N,); -1: junk, or not known.
        cameras: int64 (N,); -1: not known.
        paths: N names of images.
        source: what they come from; None: not known.
        names: the user's own names of identities and cameras.

    Raises:
        TypeError, ValueError: the parts do not fit together.
    """

    features: Tensor
    identities: Tensor
    cameras: Tensor
    paths: Sequence[str]
    source: Source | None = None
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        if self.features.dim() != 2 or self.features.shape[1] == 0:
            raise ValueError(f"Features: features must have shape (N, D), got {tuple(self.features.shape)}")
        if self.features.dtype not in DTYPES:
            raise TypeError(f"Features: features must be float16 or float32, got {self.features.dtype}")
        for name in ("identities", "cameras"):
            labels = getattr(self, name)
            if labels.shape != (len(self),) or labels.dtype != torch.int64:
                got = f"{labels.dtype} of shape {tuple(labels.shape)}"
                raise ValueError(f"Features: {name} must be int64 of shape ({len(self)},), got {got}")
        if len(self.paths) != len(self):
            raise ValueError(f"Features: paths must be {len(self)}, as features, got {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        known = len({*self.identities.tolist()} - {-1})
        dtype = str(self.features.dtype).removeprefix("torch.")
        return f"<Features of {len(self)} images, {self.dim} each, {dtype}; {known} identities>"

    @property
    def dim(self) -> int:
        """D, the features' length."""
        return self.features.shape[1]

    def record(self, row: int) -> ImageRecord:
        """What is known of an image."""
        return self.names.record(self.paths[row], int(self.identities[row]), int(self.cameras[row]))

    def records(self) -> list[ImageRecord]:
        """What is known of every image."""
        return [self.record(row) for row in range(len(self))]

    def rows(self, rows: Sequence[int]) -> Features:
        """Some of the images, in the order given."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return replace(
            self,
            features=self.features[index],
            identities=self.identities[index],
            cameras=self.cameras[index],
            paths=[self.paths[row] for row in rows],
        )


def check_comparable(query: Features, gallery: Features, function: str) -> None:
    """Raises ``ValueError`` unless both have one length and, as far as is known, one source."""
    if query.dim != gallery.dim:
        raise ValueError(
            f"{function}: query and gallery must have features of one length, got {query.dim} and "
            f"{gallery.dim}"
        )
    if query.source is not None and gallery.source is not None:
        difference = query.source.difference(gallery.source)
        if difference is not None:
            raise ValueError(
                f"{function}: query and gallery must be features of one model, given images in one way; "
                f"they have {difference}"
            )


def save_features(
    path: str | os.PathLike[str], features: Features, *, dtype: torch.dtype = torch.float16
) -> None:
    """Writes features to a safetensors file. An older file is replaced once the new one is complete.

    Args:
        path: the file; its folder must exist.
        features: at least one image.
        dtype: that features are stored in: float16 or float32.

    Raises:
        TypeError, ValueError: another dtype, no features, or one that float16 can't hold.
        FileNotFoundError: no such folder.

    Example:
        >>> save_features("gallery.safetensors", extract_features(model, records, image_size=(256, 128)))
    """
    blocks = features.features.split(ROWS)
    labels = features.identities, features.cameras, features.paths
    write_features(path, blocks, *labels, source=features.source, dtype=dtype, names=features.names)


def write_features(
    path: str | os.PathLike[str],
    blocks: Iterable[Tensor],
    identities: Tensor,
    cameras: Tensor,
    paths: Sequence[str],
    *,
    source: Source | None = None,
    dtype: torch.dtype = torch.float16,
    names: Names | None = None,
) -> None:
    """As :func:`save_features`, from blocks of rows, which need never be in memory together.

    Args:
        path: the file.
        blocks: features (B, D), N rows in all.
        identities: as in :class:`Features`, of all N.
        cameras: likewise.
        paths: likewise.
        source: likewise.
        dtype: as there.
        names: as in :class:`Features`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as there; or the blocks do not fit together.
    """
    function = "save_features"
    if dtype not in DTYPES:
        raise TypeError(f"{function}: dtype must be torch.float16 or torch.float32, got {dtype}")
    count, written = len(paths), 0
    # safetensors writes tensors that are in memory as a whole; its format is a length, a JSON header that
    # says where each tensor is, and their bytes: https://github.com/huggingface/safetensors#format
    with replacing(path, f"{function}: path") as unfinished, unfinished.open("wb") as file:
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None or count == 0:
            raise ValueError(f"{function}: features must have at least one row, got none")
        width = first.shape[1]
        # Labels first, eight bytes each: so all numbers start at a multiple of eight.
        labels = {"identities": identities, "cameras": cameras}
        encoded, called = encode_paths(paths), names.to_json().encode() if names else b""
        kinds: dict[str, tuple[str, Sequence[int], int]] = {
            name: ("I64", tensor.shape, 8) for name, tensor in labels.items()
        }
        kinds["features"] = (DTYPES[dtype], (count, width), dtype.itemsize)
        kinds["paths"] = ("U8", encoded.shape, 1)
        if called:
            kinds["names"] = ("U8", (len(called),), 1)
        kinds["digest"] = ("U8", (LENGTH,), 1)
        digest = hashlib.blake2b(digest_size=LENGTH)

        def write(content: bytes) -> None:
            digest.update(content)
            file.write(content)

        write(_header(kinds, source))
        for tensor in labels.values():
            write(tensor.contiguous().numpy().tobytes())
        for block in chain((first,), blocks):
            if block.dim() != 2 or block.shape[1] != width:
                raise ValueError(
                    f"{function}: features must have shape (B, {width}), got {tuple(block.shape)}"
                )
            stored = block.detach().to("cpu", dtype)
            finite = stored.isfinite().all(1)
            if not finite.all():
                name = paths[written + int((~finite).nonzero()[0])]
                reason = "not finite" if not block.isfinite().all() else "too large for float16: use float32"
                raise ValueError(f"{function}: features must be finite, but those of {name} are {reason}")
            write(stored.contiguous().numpy().tobytes())
            written += len(block)
        if written != count:
            raise ValueError(f"{function}: features must have {count} rows, as paths, got {written}")
        write(encoded.numpy().tobytes())
        write(called)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def _header(tensors: Mapping[str, tuple[str, Sequence[int], int]], source: Source | None) -> bytes:
    """The bytes before the tensors (dtype, shape, bytes an element), which follow in order without gaps."""
    metadata = {"format": FORMAT, "source": "" if source is None else source.to_json()}
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (kind, shape, itemsize) in tensors.items():
        start, end = end, end + math.prod(shape) * itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the first tensor starts at a multiple of eight
    return struct.pack("<Q", len(text)) + text


def load_features(
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Features:
    """Features from a file of :func:`save_features`, or one made elsewhere. No code in a file is run.

    The features of our own files are mapped: rows come from the disk when they are used, so that there may be
        more
    than memory holds. A file that was replaced since stays the one that it was.

    Files made elsewhere are ``.npy`` (an array (N, D)), ``.npz``, ``.mat``, ``.pt``, ``.pth`` and
    ``.safetensors`` with ``features`` and, as far as they are known, ``identities``, ``cameras`` and
    ``paths``, under these or others of their usual names (``feat``, ``pids``, ``camids``, ...). Labels are
    numbers or texts; ``unknown`` and -1 are not known.

    Args:
        path: the file.
        part: ``"query"`` or ``"gallery"`` of a file made elsewhere that holds both: ``query_f``,
            ``query_label``, ``query_cam``, ``gallery_f`` and so on.
        labels: a CSV file with ``path``, ``identity`` or ``camera`` of each feature, of a file made
            elsewhere; None: NAME.csv beside the file, where there is one, or what the file itself says.
        verify: compare a file's checksum, for which it is read once as a whole.

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: the file is damaged or another one, or its parts do not fit together.

    Example:
        >>> gallery = load_features("gallery.safetensors")
        >>> gallery.features.shape, gallery.paths[0]
        (torch.Size([19732, 2048]), 'bounding_box_test/0001_c1s1_001051_03.jpg')
    """
    path, function = Path(path), "load_features"
    if not path.is_file():
        raise FileNotFoundError(f"{function}: path must be a file of features, got {path}")
    other = is_features(path) and path.suffix.lower() != ".safetensors"
    if other or not _is_ours(path, function):
        if not is_features(path):
            raise ValueError(f"{function}: path must end in {', '.join(SUFFIXES)}, got {path}")
        return Features(**vars(read_foreign(path, part=part, labels=labels)))
    if labels is not None:
        raise ValueError(f"{function}: labels are for files made elsewhere, and {path} has its own")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("features", "identities", "cameras", "paths")}
            called = file.get_tensor("names").numpy().tobytes() if "names" in file.keys() else b""  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{function}: {path} is damaged or not a safetensors file ({error})") from error
    if verify and not is_sealed(path):
        raise ValueError(f"{function}: {path} is damaged: its checksum is another")
    try:
        source = Source.from_json(metadata["source"]) if metadata.get("source") else None
        paths = decode_paths(tensors.pop("paths"))
        names = Names.from_json(called.decode()) if called else Names()
        return Features(**tensors, paths=paths, source=source, names=names)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{function}: {path} is damaged ({error})") from error


def _is_ours(path: Path, function: str) -> bool:
    """Whether a safetensors file is one of :func:`save_features`.

    Raises:
        ValueError: it is no safetensors file, or one of ours of another kind or version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made = (file.metadata() or {}).get("format", "")
    except SafetensorError as error:
        raise ValueError(f"{function}: {path} is damaged or not a safetensors file ({error})") from error
    if made.startswith("reid_") and made != FORMAT:
        raise ValueError(f"{function}: {path} must be a file of features ({FORMAT!r}), got {made!r}")
    return made == FORMAT


def encode_paths(paths: Sequence[str]) -> Tensor:
    """Names as bytes, uint8 (B,), with a zero byte, which no file name has, behind each."""
    content = b"".join(os.fsencode(path) + b"\0" for path in paths)
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8)
    )


def decode_paths(content: Tensor) -> list[str]:
    """The inverse of :func:`encode_paths`."""
    return [os.fsdecode(name) for name in content.numpy().tobytes().split(b"\0")[:-1]]
