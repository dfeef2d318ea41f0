"""Features with what they belong to, and the file that they are kept in."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reid_models import create_model, save_model
from reid_models.retrieval.features import (
    Features,
    Source,
    check_comparable,
    encode_paths,
    load_features,
    save_features,
    write_features,
)
from reid_models.retrieval.gallery import Gallery

SIZE = (32, 32)
SOURCE = Source("0" * 32, SIZE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), path="/models/m.safetensors")


def some_features(count: int = 5, dim: int = 3) -> Features:
    labels = torch.arange(count)
    names = ["a.jpg", "new\nline.jpg", "Straße.jpg", "not \udcff utf-8.jpg", "e.jpg"]
    return Features(torch.randn(count, dim), labels - 1, labels % 2, names[:count], SOURCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_save_and_load(dtype: torch.dtype, tmp_path: Path) -> None:
    features = some_features()
    save_features(tmp_path / "f.safetensors", features, dtype=dtype)
    loaded = load_features(tmp_path / "f.safetensors")
    assert torch.equal(loaded.features, features.features.to(dtype))
    assert (loaded.paths, loaded.source) == (features.paths, SOURCE)
    assert torch.equal(loaded.identities, features.identities)
    save_features(tmp_path / "f.safetensors", replace(features, source=None), dtype=dtype)
    assert load_features(tmp_path / "f.safetensors").source is None


def test_the_file_is_a_safetensors_file(tmp_path: Path) -> None:
    """Read by the library alone: names, shapes and bytes are where the header says."""
    features = some_features()
    save_features(tmp_path / "f.safetensors", features, dtype=torch.float32)
    tensors = load_file(tmp_path / "f.safetensors")
    assert sorted(tensors) == ["cameras", "digest", "features", "identities", "paths"]
    assert torch.equal(tensors["features"], features.features)
    assert torch.equal(tensors["cameras"], features.cameras)
    assert torch.equal(tensors["paths"], encode_paths(features.paths))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_tensors_of_numbers_start_at_a_multiple_of_eight(dtype: torch.dtype, tmp_path: Path) -> None:
    """So that a mapped file can be read in place: 5 x 3 numbers of two bytes do not end at one."""
    save_features(tmp_path / "f.safetensors", some_features(), dtype=dtype)
    content = (tmp_path / "f.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    assert [name for name in header if name != "__metadata__"][:2] == ["identities", "cameras"]
    for name in ("features", "identities", "cameras"):
        assert (start + header[name]["data_offsets"][0]) % 8 == 0


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    file = tmp_path / "features.safetensors"
    features = torch.arange(12.0).reshape(3, 4)
    labels = torch.tensor([4, -1, 7]), torch.tensor([0, 1, 2])
    save_features(file, Features(features, *labels, ["a.png", "b.png", "c.png"]))
    content = file.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"features\.safetensors"):
            load_features(file)
    for length in (0, 7, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"features\.safetensors"):
            load_features(file)
    file.write_bytes(content)
    assert load_features(file).paths == ["a.png", "b.png", "c.png"]


def test_a_gallery_is_built_part_by_part() -> None:
    """No part is kept, and no features but the index's own."""
    seen: list[weakref.ref[Tensor]] = []
    most = 0

    def parts() -> Iterator[Features]:
        nonlocal most
        for _ in range(6):
            most = max(most, sum(ref() is not None for ref in seen))
            part = some_features()
            seen.append(weakref.ref(part.features))
            yield part
            del part

    gallery, _ = Gallery.build(parts())
    assert len(gallery) == 30 and most == 0
    assert gallery.index.ids.tolist() == list(range(30))


def test_blocks_are_written_as_they_come(tmp_path: Path) -> None:
    """No block is kept: when one is asked for, at most the first and the last are still there."""
    blocks: list[weakref.ref[Tensor]] = []
    most = 0

    def make() -> Iterator[Tensor]:
        nonlocal most
        for number in range(10):
            block = torch.full((4, 3), float(number))
            blocks.append(weakref.ref(block))
            yield block
            del block
            most = max(most, sum(reference() is not None for reference in blocks))

    labels = torch.zeros(40, dtype=torch.int64)
    write_features(tmp_path / "f.safetensors", make(), labels, labels, ["x"] * 40)
    assert most <= 2
    assert load_features(tmp_path / "f.safetensors").features[:, 0].tolist() == [n // 4 for n in range(40)]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "at least one row, got none"),
        ([torch.zeros(1, 3)], "must have 2 rows, as paths, got 1"),
        ([torch.zeros(2, 3), torch.zeros(1, 3)], "must have 2 rows, as paths, got 3"),
        ([torch.zeros(1, 3), torch.zeros(1, 4)], r"must have shape \(B, 3\), got \(1, 4\)"),
        ([torch.tensor([[1.0], [1e6]])], r"those of b\.jpg are too large for float16: use float32"),
        ([torch.tensor([[float("nan")], [1.0]])], r"those of a\.jpg are not finite"),
    ],
)
def test_what_can_not_be_written_leaves_the_old_file(
    blocks: list[Tensor], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "f.safetensors"
    file.write_bytes(b"old")
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        write_features(file, blocks, labels, labels, ["a.jpg", "b.jpg"])
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_arguments_of_save(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"dtype must be torch\.float16 or torch\.float32, got torch\.int8"):
        save_features(tmp_path / "f.safetensors", some_features(), dtype=torch.int8)
    with pytest.raises(FileNotFoundError, match=r"path must be in a folder that exists, got .*nowhere"):
        save_features(tmp_path / "nowhere" / "f.safetensors", some_features())


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    with pytest.raises(FileNotFoundError, match="path must be a file of features"):
        load_features(file)
    save_features(file, some_features())
    whole = file.read_bytes()
    for content in (b"", whole[:5], whole[:60], whole[:-1], whole + b"\0", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"f\.safetensors is damaged or not a safetensors file"):
            load_features(file)
    for old, new in ((b'"model\\', b'"medal\\'), (b'"I64"', b'"F64"')):
        assert old in whole
        file.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"f\.safetensors is damaged"):
            load_features(file)
    save_model(create_model("baseline", 4, backbone="resnet10t", image_size=SIZE), file)
    with pytest.raises(
        ValueError, match=r"must be a file of features \('reid_features 2'\), got 'reid_models 3'"
    ):
        load_features(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(5)}, r"features must have shape \(N, D\)"),
        ({"features": torch.zeros(5, 2, dtype=torch.float64)}, "must be float16 or float32"),
        ({"cameras": torch.zeros(4, dtype=torch.int64)}, r"cameras must be int64 of shape \(5,\)"),
        ({"identities": torch.zeros(5)}, "identities must be int64"),
        ({"paths": ["a"]}, "paths must be 5, as features, got 1"),
    ],
)
def test_parts_must_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        replace(some_features(), **change)  # type: ignore[arg-type]


def test_rows() -> None:
    features = some_features()
    chosen = features.rows([3, 0])
    assert torch.equal(chosen.features, features.features[[3, 0]])
    assert chosen.paths == [features.paths[3], features.paths[0]] and chosen.cameras.tolist() == [1, 0]


def test_only_features_of_one_model_are_compared() -> None:
    features = some_features()
    moved = replace(SOURCE, path="elsewhere")
    check_comparable(features, replace(features, source=moved), "here")
    check_comparable(features, replace(features, source=None), "here")
    for change, message in (
        ({"model": "1" * 32}, f"they have model {'0' * 32} and {'1' * 32}"),
        ({"image_size": (64, 64)}, r"they have image_size \(32, 32\) and \(64, 64\)"),
        ({"flip_average": True}, "they have flip_average False and True"),
    ):
        other = replace(features, source=replace(SOURCE, **change))  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match=f"here: query and gallery must be features of one model.*{message}"
        ):
            check_comparable(features, other, "here")
    with pytest.raises(ValueError, match="one length, got 3 and 4"):
        check_comparable(features, some_features(dim=4), "here")


def test_source_as_text() -> None:
    assert Source.from_json(SOURCE.to_json()) == SOURCE
    assert json.loads(SOURCE.to_json())["image_size"] == [32, 32]
