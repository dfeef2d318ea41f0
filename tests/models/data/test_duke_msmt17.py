"""DukeMTMC-reID and MSMT17, on small folders in the datasets' own naming."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_models.data import (
    SplitCounts,
    count_split,
    read_dataset,
    read_dukemtmc_reid,
    read_msmt17,
    verify_split,
)
from reid_models.data.datasets import dukemtmc_reid, msmt17

DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c3_f0056082.jpg", "0023_c8_f0100000.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051341.jpg", "0005_c2_f0047225.jpg", "7138_c8_f0195139.jpg"],
}
TRAIN = ["0000/0000_000_01_0303morning_0015_0.jpg", "0000/0000_001_05_0303noon_0020_1_ex.jpg"]
MSMT = {
    "list_train.txt": [f"{TRAIN[0]} 0", "0001/0001_000_02_0303morning_0001_0.jpg 1"],
    "list_val.txt": [f"{TRAIN[1]} 0"],
    "list_query.txt": ["0000/0000_000_03_0113afternoon_0001_0.jpg 0"],
    "list_gallery.txt": [
        "0000/0000_001_14_0113afternoon_0002_0.jpg 0", "0001/0001_002_15_0303evening_0003_2.jpg 1",
    ],
}  # fmt: skip


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 8), (200, 30, 60)).save(path)


def write_msmt(root: Path, train: str, test: str) -> Path:
    for file, lines in MSMT.items():
        for line in lines:
            write_image(root / (train if file in msmt17.LISTS[:2] else test) / line.split()[0])
        (root / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_duke(tmp_path: Path) -> None:
    root = tmp_path / "DukeMTMC-reID"
    for folder, names in DUKE.items():
        for name in names:
            write_image(root / folder / name)
    dataset = read_dukemtmc_reid(root)
    assert [(r.identity, r.camera) for r in dataset.train] == [(1, 2), (1, 3), (23, 8)]
    (split,) = dataset.draws
    assert [(r.identity, r.camera) for r in split.query] == [(5, 2)]
    assert sorted((r.identity, r.camera) for r in split.gallery) == [(5, 2), (5, 5), (7138, 8)]
    assert dataset.same_camera_is_junk and count_split(dataset) == SplitCounts(2, 3, 1, 1, 3)
    assert read_dataset("dukemtmc_reid", tmp_path) == dataset
    assert verify_split(dataset)[0].startswith("dukemtmc_reid: train_identities must be 702, got 2")


@pytest.mark.parametrize("release", ["MSMT17_V1", "MSMT17_V2"])
def test_msmt17(tmp_path: Path, release: str) -> None:
    folders = ("train", "test") if release == "MSMT17_V1" else ("mask_train_v2", "mask_test_v2")
    root = write_msmt(tmp_path / release, *folders)
    dataset = read_msmt17(root)
    assert [(r.identity, r.camera) for r in dataset.train] == [(0, 1), (1, 2), (0, 5)]
    (split,) = dataset.draws
    # Test persons are numbered from 0 in the release: here behind those of training.
    assert [(r.identity, r.camera) for r in split.query] == [(2, 3)]
    assert [(r.identity, r.camera) for r in split.gallery] == [(2, 14), (3, 15)]
    assert all(Path(r.path).is_file() for r in (*dataset.train, *split.query, *split.gallery))
    assert read_dataset("msmt17", tmp_path) == dataset
    without = read_msmt17(root, validation=False)
    assert len(without.train) == 2 and without.draws == dataset.draws
    assert "msmt17: train_images must be 30248, got 2" in verify_split(without)[1]


def test_published_counts_add_up() -> None:
    """Table I: 36,411 and 126,441 boxes."""
    for counts, total in ((dukemtmc_reid.COUNTS, 36411), (msmt17.COUNTS, 126441)):
        assert counts.train_images + counts.query_images + counts.gallery_images == total  # type: ignore[operator]
    assert msmt17.COUNTS.query_images + msmt17.COUNTS.gallery_images == 93820  # type: ignore[operator]


def test_damaged_copies(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dukemtmc_reid: .* has no bounding_box_train, query"):
        read_dukemtmc_reid(tmp_path)
    for folder, names in DUKE.items():
        write_image(tmp_path / folder / names[0])
    write_image(tmp_path / "query" / "portrait.jpg")
    with pytest.raises(ValueError, match=r"portrait.jpg must be named IDENTITY_cCAMERA_fFRAME"):
        read_dukemtmc_reid(tmp_path)

    with pytest.raises(FileNotFoundError, match=r"msmt17: .* has no list_train.txt"):
        read_msmt17(tmp_path)
    root = write_msmt(tmp_path / "MSMT17_V1", "train", "somewhere")
    with pytest.raises(FileNotFoundError, match=r"must have folders train and test or mask_train_v2 and"):
        read_msmt17(root)
    root = write_msmt(tmp_path / "whole", "train", "test")
    (root / "train" / TRAIN[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"_ex.jpg is in list_val.txt but does not exist"):
        read_msmt17(root)
    (root / "train" / TRAIN[1]).touch()
    with pytest.raises(ValueError, match=r"_ex.jpg is an empty file"):
        read_msmt17(root)
    write_image(root / "train" / TRAIN[1])
    for line in ("0000/0000_000_01_x.jpg", "../../secret_000_01_x.jpg 0", "0000/a.jpg 0"):
        (root / "list_query.txt").write_text(line)
        with pytest.raises(ValueError, match=r"list_query.txt, entry 1, must be FOLDER/IDENTITY"):
            read_msmt17(root)
