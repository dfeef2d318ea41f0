"""Features made elsewhere: every kind of file, labels of every kind, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

from reid_models.retrieval.alignment import align
from reid_models.retrieval.features import load_features, save_features
from reid_models.retrieval.formats import is_features

FEATURES = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
NUMBERS, CAMERAS = [3, 3, 9, -1, 0], [1, 2, 1, 1, -1]
NAMES = ["max", "bella", "max", "unknown", "kira"]
PATHS = [f"photos/{row}.jpg" for row in range(5)]


def npz(file: Path, **content: Any) -> None:
    np.savez(file, **content)


def mat(file: Path, **content: Any) -> None:
    scipy.io.savemat(file, content)


def mat73(file: Path, **content: Any) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with h5py.File(file, "w", userblock_size=512) as stream:
        for key, value in content.items():
            stream[key] = np.atleast_2d(np.asarray(value)).T
    content_bytes = file.read_bytes()
    file.write_bytes(header + content_bytes[len(header) :])


def pt(file: Path, **content: Any) -> None:
    torch.save({key: torch.tensor(np.asarray(value)) for key, value in content.items()}, file)


def safetensors(file: Path, **content: Any) -> None:
    save_file({key: torch.tensor(np.asarray(value)) for key, value in content.items()}, file)


WRITERS: dict[str, Callable[..., None]] = {
    ".npz": npz, ".mat": mat, ".pt": pt, ".safetensors": safetensors,
}  # fmt: skip


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("keys", [("features", "identities", "cameras"), ("feat", "pids", "camids")])
def test_numbers_in_the_file(tmp_path: Path, suffix: str, keys: tuple[str, str, str]) -> None:
    file = tmp_path / f"f{suffix}"
    WRITERS[suffix](file, **dict(zip(keys, (FEATURES, NUMBERS, CAMERAS), strict=True)))
    found = load_features(file)
    assert torch.equal(found.features, torch.from_numpy(FEATURES)) and found.source is None
    assert found.identities.tolist() == NUMBERS and found.cameras.tolist() == CAMERAS
    assert found.paths[3] == f"f{suffix}[3]" and not found.names


def test_matlab_7_3(tmp_path: Path) -> None:
    mat73(tmp_path / "f.mat", features=FEATURES, labels=NUMBERS)
    found = load_features(tmp_path / "f.mat")
    assert torch.equal(found.features, torch.from_numpy(FEATURES)) and found.identities.tolist() == NUMBERS


def test_a_bare_array_or_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", FEATURES.astype(np.float64))
    torch.save(torch.from_numpy(FEATURES).half(), tmp_path / "f.pth")
    assert torch.equal(load_features(tmp_path / "f.npy").features, torch.from_numpy(FEATURES))
    half = load_features(tmp_path / "f.pth")
    assert half.features.dtype == torch.float16 and set(half.identities.tolist()) == {-1}


def test_texts_in_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=FEATURES, identities=np.array(NAMES), paths=np.array(PATHS))
    torch.save({"features": torch.from_numpy(FEATURES), "ids": NAMES, "paths": PATHS}, tmp_path / "f.pt")
    scipy.io.savemat(tmp_path / "f.mat", {"f": FEATURES, "label": np.array(NAMES, object), "cam": CAMERAS})
    for suffix in ("npz", "pt", "mat"):
        found = load_features(tmp_path / f"f.{suffix}")
        assert [found.record(row).who for row in range(5)] == NAMES
        assert found.identities.tolist() == [2, 0, 2, -1, 1]
    assert load_features(tmp_path / "f.npz").paths == PATHS
    assert load_features(tmp_path / "f.mat").cameras.tolist() == CAMERAS


@pytest.mark.parametrize("beside", [True, False])
def test_a_table_of_labels(tmp_path: Path, beside: bool) -> None:
    np.save(tmp_path / "f.npy", FEATURES)
    table = tmp_path / ("f.csv" if beside else "labels.csv")
    rows = zip(PATHS, NAMES, ["north", "", "-1", "south", "north"], strict=True)
    table.write_text("path,identity,camera\n" + "".join(",".join(row) + "\n" for row in rows))
    found = load_features(tmp_path / "f.npy", labels=None if beside else table)
    assert [found.record(row).who for row in range(5)] == NAMES and found.paths == PATHS
    assert [found.record(row).where for row in range(5)] == ["north", "", "", "south", "north"]
    save_features(tmp_path / "ours.safetensors", found)
    ours = load_features(tmp_path / "ours.safetensors")
    assert ours.records() == found.records()
    with pytest.raises(ValueError, match="labels are for files made elsewhere"):
        load_features(tmp_path / "ours.safetensors", labels=table)


def test_queries_and_gallery_in_one_file(tmp_path: Path) -> None:
    """As layumi's baseline writes it."""
    content = {"query_f": FEATURES[:2], "query_label": [1, 2], "query_cam": [1, 1]}
    content |= {"gallery_f": FEATURES, "gallery_label": NUMBERS, "gallery_cam": CAMERAS}
    scipy.io.savemat(tmp_path / "pytorch_result.mat", content)
    query, gallery = (load_features(tmp_path / "pytorch_result.mat", part=p) for p in ("query", "gallery"))
    assert query.identities.tolist() == [1, 2] and gallery.identities.tolist() == NUMBERS
    assert not set(query.paths) & set(gallery.paths)
    with pytest.raises(ValueError, match="holds features of queries and of a gallery: say which part"):
        load_features(tmp_path / "pytorch_result.mat")


def test_one_name_is_one_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "q.npz", features=FEATURES[:2], identities=np.array(["max", "zoe"]))
    np.savez(tmp_path / "g.npz", features=FEATURES, identities=np.array(NAMES))
    query, gallery = align(load_features(tmp_path / "q.npz"), load_features(tmp_path / "g.npz"))
    assert (gallery.identities == query.identities[0]).tolist() == [name == "max" for name in NAMES]
    assert query.identities[1] not in gallery.identities
    assert [gallery.record(row).who for row in range(5)] == NAMES and query.record(1).who == "zoe"


class Spy:
    """Unpickling it would leave a trace."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"features": torch.zeros(1, 2), "more": Spy(trace)}, tmp_path / "f.pt")
    (tmp_path / "g.pt").write_bytes(pickle.dumps(Spy(trace)))
    np.save(tmp_path / "f.npy", np.array([Spy(trace)], object), allow_pickle=True)
    np.savez(tmp_path / "f.npz", features=FEATURES, names=np.array(NAMES, object))
    messages = {
        "f.pt": "holds more than tensors",
        "f.npy": "holds Python objects",
        "g.pt": "code in a file",
        "f.npz": "objects",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message):
            load_features(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": FEATURES}, "must hold features under one of features, feature, .*, got data"),
        ({"features": FEATURES[0]}, r"features must have shape \(N, D\), got \(7,\)"),
        ({"features": FEATURES, "ids": [1, 2]}, "ids must be 5, as features, got 2"),
        ({"features": FEATURES * np.nan}, "features must be finite, but row 0 is not"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "f.npz", **content)
    with pytest.raises(ValueError, match=message):
        load_features(tmp_path / "f.npz")


def test_what_is_no_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.array([["a", "b"]]))
    with pytest.raises(TypeError, match="features must be numbers"):
        load_features(tmp_path / "f.npz")
    with pytest.raises(ValueError, match="part must be query or gallery"):
        load_features(tmp_path / "f.npz", part="probe")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".pt", ".pth", ".safetensors"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    for number, content in enumerate((b"", b"no features at all" * 20, b"PK\x03\x04" + bytes(60))):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{number}\{suffix} "):
            load_features(file)


def test_other_files(tmp_path: Path) -> None:
    assert is_features("A.NPZ") and not is_features("a.csv")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"a\.csv is damaged or not a safetensors file"):
        load_features(tmp_path / "a.csv")
    safetensors(tmp_path / "a.bin", features=FEATURES)
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, \.npy"):
        load_features(tmp_path / "a.bin")
    np.save(tmp_path / "f.npy", FEATURES)
    for text, message in (
        ("path\na\n", "must have a row for each of 5 features, got 1"),
        ("x\n" + "1\n" * 5, "must have a column path, identity or camera, got x"),
    ):
        (tmp_path / "f.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_features(tmp_path / "f.npy")
    with pytest.raises(FileNotFoundError, match="labels must be a CSV file"):
        load_features(tmp_path / "f.npy", labels=tmp_path / "gone.csv")
