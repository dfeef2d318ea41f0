"""Files of CUHK03, CUHK01 and VIPeR in small, in the datasets' own formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PERSONS = {1: 6, 2: 3, 3: 2, 4: 2}  # of each pair of cameras
LABELS = {
    key: label for label, key in enumerate(((p, i) for p, n in PERSONS.items() for i in range(1, n + 1)), 1)
}
EMPTY = {
    (1, 2): {4, 5, 9, 10},
    (2, 1): {6, 7, 8, 9, 10},
}  # places without an image; 2_001 lacks the second view


def pixels_of(pair: int, person: int, number: int) -> np.ndarray:
    """An image (H, W, 3) that tells where it belongs and which way up it is."""
    image = np.full((9, 5, 3), (pair, person, number), np.uint8)
    image[0] = 255
    return image


def write_mat(file: Path) -> None:
    """As MATLAB 7.3 does: cells are references, arrays are transposed, empty ones are two zeros."""
    h5py = pytest.importorskip("h5py")
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        store = content.create_group("#refs#")

        def kept(array: np.ndarray) -> Any:
            name = f"{len(store)}"
            return store.create_dataset(
                name, data=array, dtype=None if array.dtype != object else h5py.ref_dtype
            ).ref

        def cells(references: list[Any], shape: tuple[int, ...]) -> np.ndarray:
            array = np.empty(len(references), object)
            array[:] = references
            return array.reshape(shape)

        for key in ("labeled", "detected"):
            pairs = []
            for pair, persons in PERSONS.items():
                rows = []
                for person in range(1, persons + 1):
                    for number in range(1, 11):
                        gone = number in EMPTY.get((pair, person), ())
                        image = np.zeros(2, np.uint64) if gone else pixels_of(pair, person, number).T
                        rows.append(kept(image))
                pairs.append(kept(cells(rows, (persons, 10)).T))
            content.create_dataset(key, data=cells(pairs, (1, -1)), dtype=h5py.ref_dtype)
        sets = [np.array([[1, 3], [2, 2]], float), np.array([[1, 1], [3, 2]], float)]
        content.create_dataset(
            "testsets", data=cells([kept(s.T) for s in sets], (1, -1)), dtype=h5py.ref_dtype
        )


def protocol() -> dict[str, Any]:
    """The new protocol for these images: persons with an odd label are for training."""
    names = [
        f"{pair}_{person:03}_{1 if number <= 5 else 2}_{number:02}.png"
        for pair, person in LABELS
        for number in range(1, 11)
        if number not in EMPTY.get((pair, person), ())
    ]
    labels = [LABELS[int(name[0]), int(name[2:5])] for name in names]
    train = [i for i, label in enumerate(labels, 1) if label % 2]
    query = [i for i, name in enumerate(names, 1) if i not in train and name[-6:-4] in ("01", "06")]
    gallery = [i for i in range(1, len(names) + 1) if i not in train and i not in query]
    cell = np.empty((len(names), 1), object)
    cell[:, 0] = names
    return {
        "train_idx": np.array(train)[:, None],
        "query_idx": np.array(query)[:, None],
        "gallery_idx": np.array(gallery)[:, None],
        "labels": np.array(labels)[:, None],
        "filelist": cell,
        "camId": np.ones((len(names), 1)),
    }


def write_named(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 8)).save(folder / name)
