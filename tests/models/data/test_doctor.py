"""The protocol doctor: what is said of folders and tables that people have."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_models.cli import main
from reid_models.data.doctor import Diagnosis, diagnose


def write(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32(name.encode())
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)).save(file)


def animals(root: Path, *, images: int = 4, identities: int = 4) -> Path:
    write(root, *(f"animal{i}/{n}.png" for i in range(identities) for n in range(images)))
    return root


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings]


def test_nothing_wrong(tmp_path: Path) -> None:
    diagnosis = diagnose(animals(tmp_path))
    assert not diagnosis.findings and not diagnosis.stops and diagnosis.reader == "folder"
    facts = diagnosis.facts
    assert facts["images"] == "16: 8 for training, 4 queries, 4 in the gallery"
    assert facts["identities"].startswith("4: 2 in training, 2 in test; 4 to 4 images each")
    assert facts["cameras"] == "none known" and facts["rule"] == "right images by any camera count"
    assert facts["queries"] == "4, of which 4 have a right image that counts"


def test_all_damage_is_named_at_once(tmp_path: Path) -> None:
    animals(tmp_path, images=6)
    (tmp_path / "animal0/empty.jpg").write_bytes(b"")
    (tmp_path / "animal1/cut.png").write_bytes((tmp_path / "animal1/0.png").read_bytes()[:60])
    (tmp_path / "animal2/text.jpg").write_text("no image")
    (tmp_path / "animal3/gone.png").symlink_to(tmp_path / "nowhere")
    diagnosis = diagnose(tmp_path)
    (damage,) = diagnosis.findings
    assert diagnosis.stops and damage.kind == "damage" and damage.text.startswith("4 of the files")
    for name in ("empty.jpg", "cut.png", "text.jpg", "gone.png"):
        assert sum(name in line for line in damage.files) == 1


def test_copies_are_found_by_content(tmp_path: Path) -> None:
    """In one identity, in two, and in training and test."""
    animals(tmp_path, identities=4)
    split = diagnose(tmp_path).facts  # which are for training follows from the names alone
    assert split["identities"].startswith("4: 2 in training")
    from reid_models.data import read_folder

    dataset = read_folder(tmp_path)
    train, query = dataset.train[0], dataset.draws[0].query[0]
    shutil.copy(train.path, Path(train.path).with_name("again.png"))
    shutil.copy(train.path, Path(query.path).with_name("stolen.png"))
    found = diagnose(tmp_path)
    assert set(kinds(found)) == {"names"}
    (finding,) = found.findings
    assert finding.files[0].count(" = ") == 2 and "stolen.png" in finding.files[0]
    Path(query.path).with_name("stolen.png").unlink()
    (copies,) = diagnose(tmp_path).findings
    assert copies.kind == "copies" and "again.png" in copies.files[0] and not copies.stops


def test_a_query_whose_picture_is_in_the_gallery(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "train/a/2.png", "train/b/2.png", "query/c/1.png")
    (tmp_path / "gallery/c").mkdir(parents=True)
    shutil.copy(tmp_path / "query/c/1.png", tmp_path / "gallery/c/other.png")
    (finding,) = diagnose(tmp_path).findings
    assert finding.kind == "leak" and "under another name" in finding.text


def test_the_setting_that_helps_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, *(f"{part}/nemo/cam/{n}.png" for n, part in enumerate(("train", "query", "gallery"))))
    write(tmp_path, "train/dory/cam/1.png", "gallery/dory/other/2.png", "train/dory/cam/3.png")
    found = diagnose(tmp_path)
    assert dict(found.options) == {"closed_set": True, "same_camera_counts": True} and not found.stops
    assert "different identities" in next(f.text for f in found.findings if f.kind == "protocol")
    assert any(f.kind == "leak" and "known individuals" in f.text for f in found.findings)
    assert main(["datasets", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"reid train own_images --data.dataset folder --data.root {tmp_path}" in shown
    assert """--data.dataset_options '{"closed_set": true, "same_camera_counts": true}'""" in shown


def test_what_no_setting_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "one/1.png", "one/2.png")
    found = diagnose(tmp_path)
    assert found.stops and "at least 2 identities" in found.findings[0].text
    assert main(["datasets", str(tmp_path)]) == 2
    assert "can't be used as it is: training needs two identities" in capsys.readouterr().err
    write(tmp_path, "deep/a/b/c/1.png")
    assert diagnose(tmp_path).reader == ""
    write(tmp_path / "split", "train/a/1.png", "query/b/1.png", "gallery/c/1.png")
    found = diagnose(tmp_path / "split")
    assert found.stops and found.facts == {"layout": "folder"} and kinds(found) == ["unusable"]


def test_strangers_lonely_queries_and_spelling(tmp_path: Path) -> None:
    rows = ["a.png,Bella,,train", "b.png,bella,,train", "c.png,Max,,train", "d.png,Max,,train"]
    rows += ["e.png,Kira,north,query", "f.png,Kira,south,gallery", "g.png,Tom,north,query"]
    write(tmp_path, *(row.split(",")[0] for row in rows))
    table = tmp_path / "index.csv"
    table.write_text("path,identity,camera,split\n" + "\n".join([*rows, "gone.png,Max,,train"]) + "\n")
    found = diagnose(table)
    texts = {finding.kind: finding.text for finding in found.findings}
    assert "'Bella', 'bella'" in texts["names"] and "1 of the files" in texts["damage"]
    assert any("1 of 2 queries have no right image that counts: Tom" in f.text for f in found.findings)
    assert any("2 training identities have one image" in f.text for f in found.findings)
    assert found.facts["cameras"] == "2: north, south; 4 images of unknown ones"


def test_other_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "flat", "1.png", "2.png")
    assert diagnose(tmp_path / "flat").reader == ""
    assert main(["datasets", str(tmp_path / "flat")]) == 0
    assert "to search in them: reid index" in capsys.readouterr().out
    market = tmp_path / "market"
    write(market, "bounding_box_train/2_c1_a.png", "bounding_box_train/3_c1_a.png")
    write(market, "query/1_c1_a.png", "bounding_box_test/1_c2_a.png")
    assert diagnose(market).reader == "market_layout"
    assert main(["datasets", str(market), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reader"] == "market_layout" and document["stops"] is False
    assert main(["datasets", str(tmp_path / "nothing")]) == 2
    assert "nothing is neither a folder nor a file" in capsys.readouterr().err
    assert main(["datasets", "omniglot", "--json"]) == 2
    assert "are for a FOLDER" in capsys.readouterr().err
