"""Features made elsewhere: NumPy, MATLAB and torch files, with labels in them or in a table beside them."""

from __future__ import annotations

import csv
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.datasets.naming import is_unknown
from .labels import UNKNOWN, Names

SUFFIXES = (".safetensors", ".npy", ".npz", ".mat", ".pt", ".pth")
PARTS = ("query", "gallery")
#: What things are called in files and tables, the first that is there.
CALLED = {
    "features": ("features", "feature", "feats", "feat", "f", "embeddings", "embedding", "vectors"),
    "identities": (
        "identities", "identity", "ids", "id", "pids", "pid", "labels", "label", "vids", "vid",
    ),
    "cameras": ("cameras", "camera", "cams", "cam", "camids", "camid", "cam_ids"),
    "paths": ("paths", "path", "names", "name", "files", "file", "filenames", "images", "img_paths"),
}  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """What a file has: features (N, D), labels int64 (N,), N names of images, and names of labels."""

    features: torch.Tensor
    identities: torch.Tensor
    cameras: torch.Tensor
    paths: list[str]
    names: Names


def is_features(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a file of features, by its ending."""
    return Path(path).suffix.lower() in SUFFIXES


def read_foreign(
    path: Path, *, part: str | None = None, labels: str | os.PathLike[str] | None = None
) -> Foreign:
    """Features and labels of a file that is none of ours. No code in it is run.

    Args:
        path: ``.npy``, ``.npz``, ``.mat``, ``.pt``, ``.pth`` or ``.safetensors``.
        part: ``"query"`` or ``"gallery"`` of a file that holds both, as ``query_f``, ``query_label``,
            ``query_cam``.
        labels: a CSV file with a row for each feature; None: ``NAME.csv`` beside the file, where there is
            one, or what the file itself has.

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: there are no features in it, or labels of another number.
    """
    content = _READERS[path.suffix.lower()](path)
    prefix = _prefix(content, part, path)
    key = _find(content, "features", prefix)
    if key is None:
        known = ", ".join(content) or "nothing"
        asked = ", ".join(CALLED["features"])
        raise ValueError(f"{path} must hold features under one of {asked}, got {known}")
    features = _vectors(content[key], key, path)
    beside = path.with_suffix(".csv")
    if labels is None and beside.is_file() and not prefix:
        labels = beside
    if labels is not None:
        content, prefix = _table(Path(labels), len(features)), ""
    given = {}
    for kind in ("identities", "cameras", "paths"):
        key = _find(content, kind, prefix)
        given[kind] = None if key is None else _list(content[key], len(features), key, path)
    identities, called = _numbers(given["identities"], len(features), "identities", path)
    cameras, seen = _numbers(given["cameras"], len(features), "cameras", path)
    inside = f":{part}" if prefix and part else ""
    paths = given["paths"] or [f"{path.name}{inside}[{row}]" for row in range(len(features))]
    return Foreign(features, identities, cameras, [str(name) for name in paths], Names(called, seen))


def _prefix(content: Mapping[str, Any], part: str | None, path: Path) -> str:
    """What the keys of the part begin with; "" where the file has one set of features."""
    if part is not None and part not in PARTS:
        raise ValueError(f"part must be query or gallery, got {part!r}")
    if _find(content, "features", "") is not None:
        return ""
    for asked in PARTS if part is None else (part,):
        for prefix in (f"{asked}_", f"{asked[0]}_", asked[0]):
            if _find(content, "features", prefix) is not None:
                if part is None:
                    raise ValueError(f"{path} holds features of queries and of a gallery: say which part")
                return prefix
    return ""


def _find(content: Mapping[str, Any], kind: str, prefix: str) -> str | None:
    lower = {key.lower(): key for key in content}
    return next((lower[prefix + name] for name in CALLED[kind] if prefix + name in lower), None)


def _vectors(values: Any, key: str, path: Path) -> torch.Tensor:
    """Features (N, D), float16 if they are, else float32."""
    found = values if isinstance(values, torch.Tensor) else _tensor(values, key, path)
    if found.dim() != 2 or found.shape[1] == 0:
        raise ValueError(f"{path}: {key} must have shape (N, D), got {tuple(found.shape)}")
    if found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"{path}: {key} must be numbers, got {found.dtype}")
    found = found if found.dtype == torch.float16 else found.float()
    finite = found.isfinite().all(1)
    if not finite.all():
        raise ValueError(f"{path}: {key} must be finite, but row {int((~finite).nonzero()[0])} is not")
    return found.contiguous()


def _tensor(values: Any, key: str, path: Path) -> torch.Tensor:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{path}: {key} must be numbers, got {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _list(values: Any, count: int, key: str, path: Path) -> list[Any]:
    """N labels or names, of a tensor, an array of any shape, or a list."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    found = np.asarray(values).reshape(-1).tolist() if not isinstance(values, list) else values
    found = [value.item() if isinstance(value, torch.Tensor) else value for value in found]
    if len(found) != count:
        raise ValueError(f"{path}: {key} must be {count}, as features, got {len(found)}")
    return found


def _numbers(
    values: list[Any] | None, count: int, kind: str, path: Path
) -> tuple[torch.Tensor, dict[int, str]]:
    """Labels int64 (N,), and the names of those that are no whole numbers from -1 on."""
    if values is None:
        return torch.full((count,), UNKNOWN), {}
    plain = [_whole(value) for value in values]
    if all(number is not None for number in plain):
        return torch.tensor(plain, dtype=torch.int64), {}
    texts = [_text(value, kind, path).strip() for value in values]
    known = sorted({text for text in texts if not is_unknown(text) and text != str(UNKNOWN)})
    numbers = {text: number for number, text in enumerate(known)}
    found = torch.tensor([numbers.get(text, UNKNOWN) for text in texts], dtype=torch.int64)
    return found, dict(enumerate(known))


def _whole(value: Any) -> int | None:
    """A label as a number at least -1, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        text = value.strip()  # "007" is a name: its zeros would not come back
        return int(text) if text == "-1" or (text.isdecimal() and str(int(text)) == text) else None
    return int(value) if float(value).is_integer() and value >= UNKNOWN else None


def _text(value: Any, kind: str, path: Path) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{path}: {kind} must be numbers or texts, got {type(value).__name__}")


def _table(file: Path, count: int) -> dict[str, list[str]]:
    """The columns of a CSV file of labels, a row for each feature."""
    if not file.is_file():
        raise FileNotFoundError(f"labels must be a CSV file, got {file}")
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} must be CSV, UTF-8 ({error})") from None
    if len(rows) != count:
        raise ValueError(f"{file} must have a row for each of {count} features, got {len(rows)}")
    columns = {name: [row[name] or "" for row in rows] for name in (rows[0] if rows else ()) if name}
    if not any(_find(columns, kind, "") for kind in ("identities", "cameras", "paths")):
        raise ValueError(f"{file} must have a column path, identity or camera, got {', '.join(columns)}")
    return columns


def _read_npy(path: Path) -> dict[str, Any]:
    return {"features": _numpy(path)}


def _read_npz(path: Path) -> dict[str, Any]:
    archive = _numpy(path)
    with archive:
        try:
            return {key: archive[key] for key in archive.files}
        except Exception as error:  # zlib.error, BadZipFile, KeyError ...
            if "allow_pickle" in str(error):
                raise _objects(path) from error
            raise ValueError(f"{path} is damaged or not a file of NumPy ({_reason(error)})") from None


def _numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise _objects(path) from error
        raise ValueError(f"{path} is damaged or not a file of NumPy ({error})") from None


def _reason(error: Exception) -> str:
    """An error's first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _objects(path: Path) -> ValueError:
    return ValueError(
        f"{path} holds Python objects, which are not read since that would run code in the file: "
        "save arrays of numbers and of text (np.array(names) without dtype=object)"
    )


def _read_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except NotImplementedError:  # version 7.3 is HDF5
        return _read_hdf5(path)
    except Exception as error:  # of damaged files scipy lets IndexError, zlib.error and others through
        raise ValueError(f"{path} is damaged or not a MATLAB file ({_reason(error)})") from None
    return {key: value for key, value in content.items() if not key.startswith("__")}


def _read_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:  # MATLAB's first index is the last one here
            return {
                key: np.asarray(value).T
                for key, value in file.items()
                if isinstance(value, h5py.Dataset) and value.dtype.kind in "fiu"
            }
    except OSError as error:
        raise ValueError(f"{path} is damaged or not a MATLAB file ({error})") from None


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, numbers and text, and code in a file is not run: "
            "save the tensors alone"
        ) from None
    except Exception as error:  # RuntimeError, EOFError, KeyError and whatever else damage leads to
        raise ValueError(f"{path} is damaged or not a file of torch ({_reason(error)})") from None
    if isinstance(content, torch.Tensor):
        return {"features": content}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a tensor or a dict of tensors, got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
}
