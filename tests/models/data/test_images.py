"""Image records as tensors: kinds of files, batches, damaged images."""

from __future__ import annotations

import functools
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from reid_models.data import ImageDataset, ImageRecord, check_images, decode_image, read_images


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_images_of_every_kind_are_rgb_bytes() -> None:
    colour = (255, 0, 128)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = encoded(Image.new("RGB", (6, 8), colour), "JPEG", exif=exif)
    grey16 = encoded(Image.new("I;16", (6, 8), 65535))
    for content, shape, pixel in (
        (encoded(Image.new("RGB", (6, 8), colour)), (3, 8, 6), colour),
        (encoded(Image.new("RGBA", (6, 8), (*colour, 255))), (3, 8, 6), colour),
        (encoded(Image.new("L", (6, 8), 7)), (3, 8, 6), (7, 7, 7)),
        (encoded(Image.new("P", (6, 8), 0)), (3, 8, 6), (0, 0, 0)),
        (encoded(Image.new("RGB", (6, 8), colour), "WEBP", lossless=True), (3, 8, 6), colour),
        (grey16, (3, 8, 6), (255, 255, 255)),
        (turned, (3, 6, 8), None),
    ):
        image = decode_image(ImageRecord("image", 0, 0, content))
        assert image.dtype == torch.uint8 and image.shape == shape
        assert pixel is None or tuple(image[:, 0, 0].tolist()) == pixel


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 128), (127, 63)])
def test_jpeg_pixels_are_pillows(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    contents = [
        encoded(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        for quality in (30, 90, 100)
        for subsampling in (0, 1, 2)
        for progressive in (False, True)
    ]
    contents += [encoded(image.convert("L"), "JPEG"), encoded(image, "JPEG") + bytes(100)]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        contents.append(encoded(image, "JPEG", exif=exif))
    for content in contents:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        expected = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
        assert torch.equal(decode_image(ImageRecord("image", 0, 0, content)), expected)
    cmyk = encoded(image.convert("CMYK"), "JPEG")
    found = decode_image(ImageRecord("image", 0, 0, cmyk)).int()
    difference = found - torch.from_numpy(np.array(Image.open(io.BytesIO(cmyk)).convert("RGB"))).permute(
        2, 0, 1
    )
    assert difference.abs().max() <= 1


def test_what_is_transparent_is_black() -> None:
    pixels = np.zeros((16, 8, 4), np.uint8)
    pixels[...] = (255, 0, 255, 0)
    pixels[4:12, 2:6] = (10, 200, 10, 255)
    image = decode_image(ImageRecord("image", 0, 0, encoded(Image.fromarray(pixels))))
    assert image[:, 0, 0].tolist() == [0, 0, 0] and image[:, 5, 3].tolist() == [10, 200, 10]


def test_a_header_that_claims_too_much_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 32000, 32000)
    png = bytearray(encoded(Image.new("RGB", (8, 8))))
    png[16:24] = struct.pack(">II", 13000, 13000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    for content, size in ((jpeg, "32000x32000"), (png, "13000x13000")):
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"at most 89478485 pixels, but its header says {size}"):
            decode_image(ImageRecord("image", 0, 0, bytes(content)))
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()
    small = ImageRecord("image", 0, 0, encoded(Image.new("RGB", (8, 8)), "JPEG"))
    with pytest.raises(ValueError, match="at most 63 pixels"):
        decode_image(small, max_pixels=63)
    monkeypatch.setenv("REID_MAX_PIXELS", "63")
    with pytest.raises(ValueError, match="at most 63 pixels"):
        decode_image(small)
    monkeypatch.setenv("REID_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="REID_MAX_PIXELS must be a whole number above 0, got 'many'"):
        decode_image(small)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_other_kinds_are_never_tried(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("RGB", (8, 8)), kind)
    monkeypatch.setattr("subprocess.Popen", functools.partial(_raise, AssertionError("started")))
    with pytest.raises(ValueError, match=r"damaged or not an image \(JPEG, PNG, WEBP, BMP\)"):
        decode_image(ImageRecord("eps_named.png", 0, 0, content))


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path, kind in ((tmp_path / "a.png", "a pipe"), (Path("/dev/zero"), "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"must be a file, got {kind}"):
            decode_image(ImageRecord(str(path), 0, 0))
    with pytest.raises(ValueError, match=r"a\.png must be a file, not a pipe, a device or a broken link"):
        read_images([tmp_path])


def test_everything_is_found_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("0.jpg", "1.jpg", "a.jpg/thumbnail.jpg", "@eaDir/0.jpg/THUMB.jpg", "below/2.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(photos / name)
    expected = [str(photos / name) for name in ("0.jpg", "1.jpg", "a.jpg/thumbnail.jpg", "below/2.jpg")]
    (photos / "latest").symlink_to(".")
    (photos / "below" / "up").symlink_to("..")
    (tmp_path / "same").symlink_to(photos)
    for given in ([photos], [photos, photos], [photos, photos / "0.jpg"], [photos, tmp_path / "same"]):
        assert [record.path for record in read_images(given)] == expected


def test_a_jpeg_that_is_cut_off_is_damaged() -> None:
    random = np.random.default_rng(0)
    content = encoded(Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for length in (3, 50, 400, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError, match=r"image is damaged or not an image"):
            decode_image(ImageRecord("image", 0, 0, content[:length]))


def test_whatever_pillow_raises_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG file cut anywhere in its chunks; struct.error and EOFError are no OSError."""
    content = encoded(Image.new("RGB", (6, 8), (200, 30, 60)))
    all_pixels = content.find(b"IEND") - 12  # two checksums and a length before
    for length in range(8, all_pixels):
        with pytest.raises(ValueError, match=r"image is damaged or not an image \(.+\)"):
            decode_image(ImageRecord("image", 0, 0, content[:length]))
    for error in (struct.error("unpack requires"), EOFError(), KeyError(1), zlib.error("incorrect")):
        monkeypatch.setattr(Image, "open", functools.partial(_raise, error))
        with pytest.raises(ValueError, match=r"image is damaged or not an image \(.+\)") as caught:
            decode_image(ImageRecord("image", 0, 0, content))
        assert caught.value.__cause__ is error
        with pytest.raises(ValueError, match=r"1 images can't be read, such as:?\n  image is damaged"):
            check_images([ImageRecord("image", 0, 0, content)])


def _raise(error: Exception, *_: object, **__: object) -> None:
    raise error


def test_image_dataset(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (10, 20, 30)).save(tmp_path / "a.png")
    records = [ImageRecord(str(tmp_path / "a.png"), 7, 3)] * 4
    images = ImageDataset(records, size=(8, 4), labels={7: 0})
    assert len(images) == 4 and images.identities == [0, 0, 0, 0]
    batch = next(iter(torch.utils.data.DataLoader(images, batch_size=4)))
    assert batch.image.shape == (4, 3, 8, 4) and batch.image.dtype == torch.uint8
    assert batch.image[0, :, 0, 0].tolist() == [10, 20, 30]
    assert batch.identity.tolist() == [0] * 4 and batch.camera.tolist() == [3] * 4
    assert ImageDataset(records)[0].image.shape == (3, 10, 20) and ImageDataset(records)[0].identity == 7


def test_image_dataset_errors(tmp_path: Path) -> None:
    record = ImageRecord(str(tmp_path / "a.png"), 1, 1)
    with pytest.raises(ValueError, match=r"at least one image"):
        ImageDataset([])
    with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
        ImageDataset([record], size=(4,))
    with pytest.raises(ValueError, match=r"labels must have identity 1"):
        ImageDataset([record], labels={2: 0})


def test_damaged_images(tmp_path: Path) -> None:
    good, cut, text, gone = (
        ImageRecord(str(tmp_path / f"{name}.png"), 0, 0) for name in ("good", "cut", "text", "gone")
    )
    Image.new("RGB", (6, 8), (200, 30, 60)).save(good.path)
    Path(cut.path).write_bytes(Path(good.path).read_bytes()[:50])
    Path(text.path).write_text("not an image")
    check_images([good])
    with pytest.raises(ValueError, match=r"cut\.png is damaged or not an image"):
        ImageDataset([cut])[0]
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist"):
        decode_image(gone)
    with pytest.raises(ValueError, match=r"3 images can't be read, such as:\n.*cut.*\n.*text.*\n.*gone"):
        check_images([good, cut, text, gone])
