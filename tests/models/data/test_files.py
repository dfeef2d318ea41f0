"""Files as people have them: copies, videos, other suffixes, damage that looks like none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_models.cli.arguments import usable_images
from reid_models.data import ImageRecord, check_images, decode_image, read_images
from reid_models.data.datasets.registry import read_dataset
from reid_models.data.images import find_damaged
from reid_models.data.passed_over import counted_files, describe


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg() if content is None else content)
    return path


def names(records: Any) -> list[str]:
    return [Path(record.path).name for record in records]


def test_other_suffixes_are_said_to_be_passed_over(tmp_path: Path) -> None:
    for name in (
        "a.jpg",
        "b.tif",
        "c.JPG",
        "d.jfif",
        "e.gif",
        "f.heic",
        "g",
        "h.jpe",
        ".hidden.tif",
        "i.TIF",
    ):
        put(tmp_path / name)
    put(tmp_path / "folder.jpg" / "inside.png")
    with counted_files() as counts:
        found = read_images([tmp_path])
    assert names(found) == ["a.jpg", "c.JPG", "d.jfif", "inside.png", "h.jpe"]
    assert describe(counts) == ["5 files passed over: without a suffix 1, .gif 1, .heic 1, .tif 2"]
    for record in found:
        assert decode_image(record).shape == (3, 64, 48)


@pytest.mark.parametrize(
    "copy",
    [
        "x (1).jpg",
        "x(1).jpg",
        "x - Copy.jpg",
        "x - Copy (2).jpg",
        "x copy.jpg",
        "x copy 2.jpg",
        "X - Kopie.jpg",
    ],
)
def test_copies_count_once(copy: str, tmp_path: Path) -> None:
    original = put(tmp_path / ("X.jpg" if copy.startswith("X") else "x.jpg"))
    put(tmp_path / copy)
    with counted_files() as counts:
        assert names(read_images([tmp_path])) == [original.name]
    assert describe(counts) == ["1 copies passed over: the same bytes under a name as `x (1).jpg`"]
    assert names(read_images([tmp_path / copy])) == [copy]  # asked for alone it is nobody's copy
    put(tmp_path / copy, jpeg(1))
    assert len(read_images([tmp_path])) == 2  # another picture


@pytest.mark.parametrize("copy", ["0001_c2s1_001051_00 - Copy.jpg", "0001_c2s1_001051_00 (1).jpg"])
def test_copies_in_a_dataset_are_refused(copy: str, tmp_path: Path) -> None:
    for folder, name in (
        ("bounding_box_train", "0002_c1s1_000451_03.jpg"),
        ("query", "0001_c1s1_001051_00.jpg"),
        ("bounding_box_test", "0001_c2s1_001051_00.jpg"),
        ("bounding_box_test", copy),
    ):
        put(tmp_path / folder / name)
    with pytest.raises(
        ValueError, match=r"named as a copy of 0001_c2s1_001051_00\.jpg and would count twice"
    ):
        read_dataset("market1501", tmp_path)


def test_videos_are_refused_with_what_to_do(tmp_path: Path) -> None:
    clip = put(tmp_path / "clip.MP4", b"\0" * 20)
    with pytest.raises(ValueError, match=r"clip\.MP4 is a video; videos are not read: .*ffmpeg"):
        read_images([clip])
    with pytest.raises(
        ValueError, match=r"has no images .*; 1 files passed over: \.mp4 1; videos are not read"
    ):
        read_images([tmp_path])


HALF = len(jpeg()) // 2
SCRAMBLED = np.random.default_rng(0).integers(0, 255, 40, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(jpeg()[:HALF] + b"\xff\xd9", id="half and an end"),
        pytest.param(jpeg()[:HALF] + bytes(4000), id="half and zeros"),
        pytest.param(jpeg()[:HALF] + bytes(4000) + b"\xff\xd9", id="half, zeros and an end"),
        pytest.param(jpeg()[:HALF] + SCRAMBLED + jpeg()[HALF + 40 :], id="40 random bytes"),
    ],
)
def test_damage_that_ends_like_a_good_file(damaged: bytes, tmp_path: Path) -> None:
    good, bad = put(tmp_path / "good.jpg"), put(tmp_path / "bad.jpg", damaged)
    records = read_images([tmp_path])
    lines = find_damaged(records, strict=True)
    assert names(lines) == [bad.name]
    with pytest.raises(ValueError, match=r"(?s)1 images can't be read.*bad\.jpg"):
        check_images(records)
    check_images(read_images([good]))


def test_whole_files_of_every_kind_are_not_called_damaged(tmp_path: Path) -> None:
    pixels = Image.open(io.BytesIO(jpeg()))
    for name, options in (
        ("progressive.jpg", {"progressive": True}),
        ("grey.jpg", {}),
        ("cmyk.jpg", {}),
        ("a.png", {}),
        ("b.webp", {}),
    ):
        mode = {"grey.jpg": "L", "cmyk.jpg": "CMYK"}.get(name, "RGB")
        pixels.convert(mode).save(tmp_path / name, **options)
    put(tmp_path / "trailing.jpg", jpeg() + b"appended by a phone")
    check_images(read_images([tmp_path]))
    check_images([ImageRecord("in memory", 0, 0, jpeg())])


class Options:
    def __init__(self, skip_damaged: bool) -> None:
        self.skip_damaged = skip_damaged


def test_all_damage_is_named_at_once_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / name)
    put(tmp_path / "cut.jpg", jpeg()[:200])
    put(tmp_path / "empty.jpg", b"")
    put(tmp_path / "other.tif")
    given: Any = Options(False)
    with pytest.raises(ValueError, match=r"2 of 4 images can't be read; .*--skip-damaged"):
        usable_images(lambda: read_images([tmp_path]), given)
    said = capsys.readouterr().err
    assert "1 files passed over: .tif 1" in said
    assert said.count("damaged: ") == 2 and "cut.jpg" in said and "empty.jpg is an empty file" in said
    given = Options(True)
    assert names(usable_images(lambda: read_images([tmp_path]), given)) == ["a.jpg", "b.jpg"]
    assert capsys.readouterr().err.count("damaged: ") == 2


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "cut.jpg", jpeg()[:200])
    given: Any = Options(True)
    with pytest.raises(ValueError, match=r"cut\.jpg .*: it can't be read; there are no others"):
        usable_images(lambda: read_images([tmp_path]), given)


def test_no_error_shows_what_pillow_was_given() -> None:
    for content in (b"", b"no image", jpeg()[:100], b"\x89PNG\r\n\x1a\n" + bytes(50), b"BM" + bytes(60)):
        with pytest.raises(ValueError) as caught:
            decode_image(ImageRecord("x.jpg", 0, 0, content))
        assert "_io." not in str(caught.value) and "x.jpg" in str(caught.value)
