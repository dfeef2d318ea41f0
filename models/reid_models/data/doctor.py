"""A protocol doctor: what images of one's own hold, what is wrong with them, which setting helps."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._progress import track
from .damage import collected_damage
from .datasets.folder import FOLDERS
from .datasets.listing import read_images
from .datasets.market_layout import FOLDERS as MARKET_FOLDERS
from .datasets.registry import read_dataset
from .decoding import decode_image
from .jpeg_warnings import jpeg_warnings
from .records import JUNK, UNKNOWN_CAMERA, ImageRecord, ReidDataset, identities

#: What is tried, in this order, where images can't be read as they are.
REMEDIES: tuple[Mapping[str, Any], ...] = (
    {},
    {"closed_set": True},
    {"same_camera_counts": True},
    {"closed_set": True, "same_camera_counts": True},
    {"leave_one_out": True},
    {"leave_one_out": True, "same_camera_counts": True},
)


@dataclass(frozen=True)
class Finding:
    """Something to know before images are used.

    Attributes:
        kind: ``"damage"``, ``"copies"``, ``"leak"``, ``"names"``, ``"protocol"`` or ``"unusable"``.
        text: in one line.
        files: all that it is about.
        stops: whether training or evaluation would fail.
    """

    kind: str
    text: str
    files: tuple[str, ...] = ()
    stops: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes:
        path: that was looked at.
        reader: the dataset's name for ``reid train``, "" where there is none.
        options: of the reader, with what helps.
        facts: what is there, by name, in words.
        findings: what is wrong, the worst first.
    """

    path: str
    reader: str
    options: Mapping[str, Any]
    facts: Mapping[str, str]
    findings: Sequence[Finding]

    @property
    def stops(self) -> bool:
        """Whether anything would make training or evaluation fail."""
        return any(finding.stops for finding in self.findings)

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps({**asdict(self), "stops": self.stops}, indent=2) + "\n"


def find_reader(path: str | os.PathLike[str]) -> str:
    """The reader whose layout a folder or file has; "" for images of which nothing is known.

    Raises:
        FileNotFoundError: there is nothing.
    """
    place = Path(path)
    if place.is_file():
        return "csv"
    if not place.is_dir():
        raise FileNotFoundError(f"datasets: {place} is neither a folder nor a file")
    if all((place / folder).is_dir() for folder in MARKET_FOLDERS):
        return "market_layout"
    if all((place / folder).is_dir() for folder in ("image_train", "image_query", "image_test")):
        return "veri776"
    if (place / "metadata.csv").is_file():
        return "wildlife"
    if all((place / folder).is_dir() for folder in FOLDERS):
        return "folder"
    inside = [image.path for image in read_images([place])]
    levels = {len(Path(image).relative_to(place).parts) for image in inside}
    return "folder" if levels <= {2, 3} else ""


def diagnose(
    path: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    decode: bool = True,
    workers: int = 4,
    progress: bool = False,
) -> Diagnosis:
    """Looks through images of one's own before an hour is lost with them.

    Args:
        path: a folder or a CSV file, in any layout that is read.
        options: of its reader; None: whatever helps is tried.
        decode: decode every image, and compare their bytes.
        workers: threads, at least 1.
        progress: a bar on stderr if it takes long.

    Raises:
        FileNotFoundError: there is nothing, or nothing that is an image.

    Example:
        >>> diagnosis = diagnose("my_fish")
        >>> diagnosis.facts["queries"]
        '6, of which 6 have a right image that counts'
    """
    with collected_damage() as damage:
        reader = find_reader(path)
        damage.clear()  # found again below
        if not reader:
            records = read_images([path])
            findings = [*_damage([*damage, *_broken(records, workers, progress)[0]] if decode else damage)]
            facts = {
                "layout": "images without identities: to be indexed, not to be trained on or measured",
                "images": str(len(records)),
            }
            return Diagnosis(os.fspath(path), "", {}, facts, findings)
        dataset, chosen, problem = _read(reader, path, options, damage)
    findings = []
    if problem is not None:
        findings.append(
            Finding("protocol" if dataset is not None else "unusable", problem, stops=dataset is None)
        )
    if dataset is None:
        return Diagnosis(os.fspath(path), reader, {}, {"layout": reader}, [*_damage(damage), *findings])
    records = _every(dataset)
    copies: list[list[ImageRecord]] = []
    if decode:
        broken, copies = _broken(records, workers, progress)
        damage = [*damage, *broken]
    findings = [
        *_damage(damage),
        *findings,
        *_protocol(dataset),
        *_copies(dataset, copies),
        *_spelling(records),
    ]
    return Diagnosis(os.fspath(path), reader, chosen, _facts(dataset, reader), findings)


def _read(
    reader: str, path: str | os.PathLike[str], options: Mapping[str, Any] | None, damage: list[str]
) -> tuple[ReidDataset | None, Mapping[str, Any], str | None]:
    """The dataset, the options that it could be read with, and why it could not without them."""
    problem: str | None = None
    for remedy in REMEDIES if options is None else (options,):
        damage.clear()
        try:
            return read_dataset(reader, path, **remedy), remedy, problem
        except (ValueError, FileNotFoundError) as error:
            problem = problem or str(error)
    return None, {}, problem


def _every(dataset: ReidDataset) -> tuple[ImageRecord, ...]:
    """Every image once, those of training first."""
    tests = (record for draw in dataset.draws for record in (*draw.query, *draw.gallery))
    return tuple({record.name: record for record in (*dataset.train, *tests)}.values())


def _broken(
    records: Sequence[ImageRecord], workers: int, progress: bool
) -> tuple[list[str], list[list[ImageRecord]]]:
    """A line for each image that can't be decoded, and groups of images with the same bytes."""
    with ThreadPoolExecutor(workers) as pool:
        looked = list(track(pool.map(_look, records), "looking at images", len(records), show=progress))
    groups: dict[object, list[ImageRecord]] = defaultdict(list)
    for record, (digest, problem) in zip(records, looked, strict=True):
        if problem is None:
            groups[digest, record.box].append(record)
    lines = [problem for _, problem in looked if problem is not None]
    whole = [record.path for record in records if record.content is None]
    said = jpeg_warnings(whole, workers=workers)
    lines += [f"{path} decodes, but has lost something ({text})" for path, text in said.items()]
    return lines, [group for group in groups.values() if len(group) > 1]


def _look(record: ImageRecord) -> tuple[bytes, str | None]:
    """An image's digest, and what is wrong with it."""
    try:
        content = Path(record.path).read_bytes() if record.content is None else record.content
        decode_image(replace(record, content=content))
    except (OSError, ValueError) as error:
        return b"", str(error).removeprefix("decode_image: ")
    return hashlib.blake2b(content, digest_size=16).digest(), None


def _damage(lines: Sequence[str]) -> list[Finding]:
    if not lines:
        return []
    text = f"{len(lines)} of the files can't be used: mend them, or take them away"
    return [Finding("damage", text, tuple(lines), stops=True)]


def _facts(dataset: ReidDataset, reader: str) -> dict[str, str]:
    draw = dataset.draws[0]
    records = _every(dataset)
    known = [record for record in records if record.identity != JUNK]
    sizes = sorted(Counter(record.who for record in known).values())
    cameras = Counter(record.where for record in records if record.camera != UNKNOWN_CAMERA)
    without = sum(record.camera == UNKNOWN_CAMERA for record in records)
    answered = sum(dataset.answerable())
    test = identities(draw.query) | identities(draw.gallery)
    facts = {
        "layout": reader,
        "images": f"{len(records)}: {len(dataset.train)} for training, {len(draw.query)} queries, "
        f"{len(draw.gallery)} in the gallery",
        "identities": f"{len(identities(known))}: {dataset.num_classes} in training, {len(test)} in test; "
        f"{sizes[0]} to {sizes[-1]} images each, half of them {statistics.median(sizes):g} or more",
        "cameras": ("none known" if not cameras else f"{len(cameras)}: {_some(sorted(cameras))}")
        + (f"; {without} images of unknown ones" if cameras and without else ""),
        "rule": _rule(dataset),
        "queries": f"{len(draw.query)}, of which {answered} have a right image that counts",
    }
    if len(dataset.draws) > 1:
        facts["draws"] = str(len(dataset.draws))
    return facts


def _rule(dataset: ReidDataset) -> str:
    if dataset.exclude_self:
        return "each query is left out of its own ranking" + (
            ", and right images by its camera too" if dataset.same_camera_is_junk else ""
        )
    if dataset.same_camera_is_junk:
        return "right images by the query's own camera are left out"
    return "right images by any camera count"


def _protocol(dataset: ReidDataset) -> list[Finding]:
    found: list[Finding] = []
    draw, answers = dataset.draws[0], dataset.answerable()
    lonely = [record for record, right in zip(draw.query, answers, strict=True) if not right]
    if lonely:
        whose = _some(sorted({record.who for record in lonely}))
        text = f"{len(lonely)} of {len(draw.query)} queries have no right image that counts: {whose}"
        found.append(Finding("protocol", text, tuple(record.name for record in lonely)))
    both = identities(dataset.train) & (identities(draw.query) | identities(draw.gallery))
    if both:
        text = f"{len(both)} identities are in training and in test: figures are of known individuals only"
        found.append(Finding("leak", text))
    images = {record.name for record in dataset.train}
    seen = [record.name for record in draw.query if record.name in images]
    if seen:
        text = f"{len(seen)} queries are training images: their figures mean nothing"
        found.append(Finding("leak", text, tuple(seen)))
    inside = {record.name for record in draw.gallery}
    alone = [record for record in draw.query if record.name in inside and record.camera == UNKNOWN_CAMERA]
    if alone and not dataset.exclude_self:
        text = f"{len(alone)} queries are in the gallery and find themselves"
        found.append(Finding("leak", text, tuple(record.name for record in alone)))
    once = [who for who, count in Counter(record.who for record in dataset.train).items() if count == 1]
    if once:
        text = f"{len(once)} training identities have one image: {_some(sorted(once))}"
        found.append(Finding("protocol", text))
    if dataset.num_classes < 2:
        found.append(Finding("protocol", "training needs two identities at least, and has one", stops=True))
    return found


def _copies(dataset: ReidDataset, groups: Iterable[Sequence[ImageRecord]]) -> list[Finding]:
    """Images with the same bytes, by what they do to the figures."""
    draw = dataset.draws[0]
    train = {record.name for record in dataset.train}
    asked = {record.name for record in draw.query}
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in groups:
        line = " = ".join(record.name for record in group)
        inside = {record.name in train for record in group}
        if len({record.who for record in group}) > 1:
            kinds["names", "times one picture has several identities"].append(line)
        elif len(inside) > 1:
            kinds["leak", "times one picture is in training and in test"].append(line)
        elif asked & {record.name for record in group} and len(group) > len(
            asked & {record.name for record in group}
        ):
            kinds["leak", "times a query's picture is in the gallery under another name"].append(line)
        else:
            kinds["copies", "times one picture is there twice or more: each copy counts"].append(line)
    return [Finding(kind, f"{len(lines)} {text}", tuple(lines)) for (kind, text), lines in kinds.items()]


def _spelling(records: Iterable[ImageRecord]) -> list[Finding]:
    """Names of identities that differ in capitals or spaces alone."""
    spelled: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.identity_name:
            spelled["".join(record.identity_name.lower().split())].add(record.identity_name)
    alike = [sorted(names) for names in spelled.values() if len(names) > 1]
    if not alike:
        return []
    shown = "; ".join(", ".join(map(repr, names)) for names in alike[:5])
    return [Finding("names", f"{len(alike)} identities are spelled in several ways: {shown}")]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
