"""Image records as tensors: kinds of files, batches, damaged images."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from reid_models.data import ImageDataset, ImageRecord, check_images, decode_image


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


def _raise(error: Exception, *_: object) -> None:
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
