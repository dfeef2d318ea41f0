"""Image files to pixels: which kinds are tried, how large they may be, what is refused before decoding."""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .records import ImageRecord

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
TRAILING = 64  # bytes at the end of a file in which a JPEG's end is looked for
#: The only kinds that Pillow is let try: others, such as EPS, start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 89_478_485  # Pillow's own limit: 268 MB when decoded
LIMIT = "REID_MAX_PIXELS"  # in the environment, where worker processes have it, too


def decode_image(record: ImageRecord, *, max_pixels: int | None = None) -> Tensor:
    """An image record's pixels: uint8 (3, H, W), RGB, turned upright by EXIF; in memory (H, W, 3).

    That order is the decoders' own, and PyTorch resizes it three times as fast as (3, H, W). What is
    transparent is put on black, so that colours that nobody sees do not count. Of a record with a box its
    part of the image is given: what lies outside of the image is not.

    Args:
        record: of a JPEG, PNG, WebP or BMP file; no other kinds are tried.
        max_pixels: the most that height times width may be, by the file's header, before anything is decoded.
            None: the environment's ``REID_MAX_PIXELS``, or else 89 million.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not such an image, it is damaged, it is larger than ``max_pixels``, or the
            record's box lies outside of it.
    """
    content = _read(record.path) if record.content is None else record.content
    if not content:
        raise ValueError(f"decode_image: {record.path} is an empty file")
    limit = pixel_limit() if max_pixels is None else max_pixels
    pixels = None
    if content.startswith(JPEG_START):
        size = _jpeg_size(content)
        if size is not None and size[0] * size[1] > limit:
            raise _too_large(size, limit, record)
        pixels = _decode_jpeg(content)
    if pixels is None:
        pixels = _decode_any(content, limit, record)
    if record.box is not None:
        pixels = _cut(pixels, record)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _cut(pixels: np.ndarray, record: ImageRecord) -> np.ndarray:
    """The pixels in the record's box, in memory of their own."""
    assert record.box is not None
    left, top, width, height = record.box
    cut = pixels[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if cut.size == 0:
        raise ValueError(
            f"decode_image: {record.path} must have the box {record.box} (left, top, width, height) in it, "
            f"but is {pixels.shape[1]} wide and {pixels.shape[0]} high"
        )
    return np.ascontiguousarray(cut)


def pixel_limit() -> int:
    """``REID_MAX_PIXELS`` of the environment, or 89 million.

    Raises:
        ValueError: it is no whole number above 0.
    """
    text = os.environ.get(LIMIT, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{LIMIT} must be a whole number above 0, got {text!r}")
    limit = int(text)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # else Pillow warns of what the user allows
    return limit


def _read(path: str) -> bytes:
    """A file's bytes; never of a pipe or a device, which may have no end."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
            raise ValueError(f"decode_image: {path} must be a file, got {kind}")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"decode_image: {path} does not exist") from None


def _too_large(size: tuple[int, int], limit: int, record: ImageRecord) -> ValueError:
    return ValueError(
        f"decode_image: {record.path} must have at most {limit} pixels, but its header says "
        f"{size[0]}x{size[1]} ({LIMIT}=N in the environment allows N)"
    )


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width by a JPEG's frame header (ISO/IEC 10918-1, B.2.2); None where there is none.

    Not by Pillow, whose opening of a file takes a quarter of the time that decoding a person's crop takes.
    """
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # tables and extensions among them
            height, width = struct.unpack_from(">HH", content, at + 5)
            return height, width
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    return None


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """The pixels (H, W, 3) of a JPEG file by OpenCV, which has the same ones as Pillow in 2/3 of the time.

    None where Pillow is to judge: a file that seems to be cut off, of which some decoders give what is left,
    or one that is refused.
    """
    if JPEG_END not in content[-TRAILING:]:
        return None
    try:
        pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return pixels


def _decode_any(content: bytes, limit: int, record: ImageRecord) -> np.ndarray:
    """The pixels (H, W, 3) of any file of :data:`FORMATS`, by Pillow."""
    size = None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size = image.height, image.width
            if size[0] * size[1] <= limit:
                return _upright_rgb(image)
    except UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"decode_image: {record.path} is damaged or not an image ({kinds})") from None
    except Exception as error:  # Pillow lets struct.error, EOFError, SyntaxError and others through
        reason = str(error) or type(error).__name__
        if "<_io." in reason:  # what Pillow was given, which says nothing
            reason = type(error).__name__
        raise ValueError(f"decode_image: {record.path} is damaged or not an image ({reason})") from error
    raise _too_large(size, limit, record)


def _upright_rgb(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, 3), turned by EXIF, transparency on black."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
