"""Index files whose checksums are right and whose contents are not: refused by one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_ops import GalleryIndex
from reid_ops.search import IndexFileError, storage
from tests.search.test_index import APPROXIMATE
from tests.search.test_torch import features

Change = Callable[[dict[str, Any], dict[str, Any]], None]  # of a file's facts and sections
SECTIONS = {"vectors": np.float32, "ids": np.int64, "cameras": np.int64, "alive": np.uint8}


def craft(path: Path, kind: str, change: Change) -> None:
    """An index file of 300 items with valid checksums, facts and sections changed before they are written."""
    index = GalleryIndex(8, kind=kind)
    index.add(features(300, 8, identities=9), ids=np.arange(300) + 5, cameras=np.arange(300) % 3)
    if kind != "flat":
        index.build()
    index.attachments["names"] = b"abc"
    index.save(path)
    with storage.Reader(path) as reader:
        facts = dict(reader.facts)
        sizes = {name: entry["size"] for name, entry in facts.pop("sections").items()}
        sections: dict[str, Any] = {
            name: reader.array(name, np.uint8, (size,)).view(SECTIONS.get(name, np.uint8)).copy()
            for name, size in sizes.items()
        }
    change(facts, sections)
    with storage.locked(path):
        storage.write(path, facts, sections)


def fact(name: str, value: Any) -> Change:
    return lambda facts, sections: facts.update({name: value})


def element(name: str, value: Any, place: int = 17) -> Change:
    return lambda facts, sections: sections[name].__setitem__(place, value)


CASES: dict[str, tuple[Change, str]] = {
    "NaN": (element("vectors", np.nan), "the vector in row 2 has a length of nan"),
    "infinity": (element("vectors", np.inf), "the vector in row 2 has a length of inf"),
    "not of unit length": (element("vectors", 7.0), "the vector in row 2 has a length of 7"),
    "negative id": (element("ids", -3), "ids must be at least 0, got -3"),
    "id twice": (element("ids", 5), "ids must not repeat, but 5 does"),
    "id to come": (element("ids", 400), "next_id is 305, but there is an id of 400"),
    "camera below -1": (element("cameras", -2), "cameras must be at least -1, got -2"),
    "neither alive nor dead": (element("alive", 2), "alive holds what is neither true nor false"),
    "no dim": (lambda facts, sections: facts.pop("dim"), "dim is None"),
    "dim of text": (fact("dim", "8"), "dim is '8'"),
    "dim of 0": (fact("dim", 0), "dim is 0"),
    "dim is true": (fact("dim", True), "dim is True"),
    "other dim": (fact("dim", 9), "vectors has 9600 bytes, not 10800"),
    "count below 0": (fact("count", -1), "count is -1"),
    "count without end": (fact("count", 10**30), "count is 1000000"),
    "metric": (fact("metric", "manhattan"), "metric is 'manhattan'"),
    "kind": (fact("kind", ["flat"]), r"kind is \['flat'\]"),
    "recall": (fact("recall", float("nan")), "recall is nan"),
    "generation": (fact("generation", None), "generation is None"),
    "approximate of a flat one": (fact("approximate", {}), "approximate is {}"),
    "attachments": (fact("attachments", ["names"]), "attachments is"),
    "attachment missing": (fact("attachments", {"other": 3}), "its attachment other is missing"),
    "attachment of another size": (fact("attachments", {"names": 4}), "has 3 bytes, not 4"),
    "ids missing": (lambda facts, sections: sections.pop("ids"), "its ids is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_sense_is_refused(case: str, tmp_path: Path) -> None:
    change, message = CASES[case]
    craft(tmp_path / "gallery", "flat", change)
    with pytest.raises(IndexFileError, match=f"gallery is damaged: .*{message}"):
        GalleryIndex.load(tmp_path / "gallery")


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_what_was_not_changed_is_read(kind: str, tmp_path: Path) -> None:
    craft(tmp_path / "gallery", kind, lambda facts, sections: None)
    assert len(GalleryIndex.load(tmp_path / "gallery")) == 300
    assert len(GalleryIndex.load(tmp_path / "gallery", mmap=True)) == 300


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_approximate_parts(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "gallery"

    def refused(change: Change, message: str) -> None:
        craft(path, kind, change)
        with pytest.raises(IndexFileError, match=f"gallery is damaged: .*{message}"):
            GalleryIndex.load(path)

    refused(lambda facts, sections: facts["approximate"].update(effort=0), "approximate.effort is 0")
    refused(lambda facts, sections: facts["approximate"].pop("trained_on"), "approximate.trained_on is None")
    refused(lambda facts, sections: facts["approximate"].update(report=7), "approximate.report is 7")
    refused(
        lambda facts, sections: facts["approximate"]["report"].update(value="x"),
        "approximate.report.value is",
    )
    refused(lambda facts, sections: sections.pop("faiss"), "its faiss is missing")
    refused(element("faiss", 0, 0), "of its faiss part a name must be")
    refused(
        lambda facts, sections: facts["approximate"].update(effort=10**6), "approximate.effort is 1000000"
    )
    other = "hnsw" if kind != "hnsw" else "ivf"
    refused(fact("kind", other), "of its faiss part a name must be")


def number(dtype: str, place: int, value: int, behind: bytes = b"") -> Change:
    """A number of faiss's part becomes another, at a place, counted from the last such bytes if given."""

    def change(facts: dict[str, Any], sections: dict[str, Any]) -> None:
        content = bytearray(sections["faiss"].tobytes())
        start = content.rindex(behind) if behind else 0 if place >= 0 else len(content)
        new = np.array(value, dtype).tobytes()
        content[start + place : start + place + len(new)] = new
        sections["faiss"] = np.frombuffer(content, np.uint8)

    return change


# An index begins with a name (4 bytes), int32 D, int64 N, 2 x int64, bool, int32; inverted lists with a name,
# their number, bytes of a code, a name and their sizes; a graph ends with its links, the entry and its
# level, three int32, and the vectors.
FAISS: dict[str, tuple[str, Change, str]] = {
    "fewer items": ("ivf", number("<i8", 8, 299), "number of items must be 300, got 299"),
    "other length": ("ivf", number("<i4", 4, 2**30), "dimension must be 8"),
    "not trained": ("ivfpq", number("u1", 32, 0), "is_trained must be 1"),
    "lists without end": ("ivf", number("<u8", 37, 2**40), "number of lists must be from 1"),
    "centroids without end": ("ivf", number("<u8", 37, 2**40, b"IxFI"), "size of vectors must be 56"),
    "other lists": ("ivf", number("<u8", 4, 8, b"ilar"), "number of lists must be 7, got 8"),
    "longer codes": ("ivfpq", number("<u8", 12, 2**40, b"ilar"), "bytes of a code must be 1"),
    "a list without end": ("ivf", number("<u8", 12, 2**40, b"full"), "codes must be in the"),
    "position beyond": ("ivf", number("<i8", -8, 300), "positions must be from 0 to 299"),
    "position below 0": ("ivfpq", number("<i8", -8, -2), "positions must be from 0 to 299"),
    "position twice": ("ivfpq", number("<i8", -8, 0), r"positions in its lists must be \(300, 300\)"),
    "link beyond": ("hnsw", number("<i4", -24, 300, b"IxFI"), "links must be from -1 to 299"),
    "entry beyond": ("hnsw", number("<i4", -20, 300, b"IxFI"), "the entry must be an item of the highest"),
    "a level more": ("hnsw", number("<i4", -16, 5, b"IxFI"), "the entry must be an item of the highest"),
}


@pytest.mark.parametrize("case", FAISS)
def test_what_faiss_must_not_see(case: str, tmp_path: Path) -> None:
    """It would end the process, take memory for what is not there, or find items that are none."""
    kind, change, message = FAISS[case]
    craft(tmp_path / "gallery", kind, change)
    with pytest.raises(IndexFileError, match=f"gallery is damaged: of its faiss part .*{message}"):
        GalleryIndex.load(tmp_path / "gallery")


def test_faiss_part_that_goes_on(tmp_path: Path) -> None:
    def longer(facts: dict[str, Any], sections: dict[str, Any]) -> None:
        sections["faiss"] = np.append(sections["faiss"], np.zeros(3, np.uint8))

    craft(tmp_path / "gallery", "hnsw", longer)
    with pytest.raises(IndexFileError, match="bytes behind its end must be 0, got 3"):
        GalleryIndex.load(tmp_path / "gallery")


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b"[" * 100_000, b"\xff", b'{"sections": 3}', b'{"sections": {"a": {}}}']
)
def test_headers(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    digest = storage.hashlib.blake2b(header, digest_size=16).digest()
    footer = storage._FOOTER.pack(8, len(header), digest, storage._END)
    path.write_bytes(storage._MAGIC + header + footer)
    with pytest.raises(IndexFileError, match="gallery is damaged: the header"):
        GalleryIndex.load(path)
