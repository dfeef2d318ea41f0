"""The sample sheet of HENet, Fig. 3: random erasing and Random Polygon Erasing for several n.

    python -m examples.polygon_erasing_sheet                 # docs/polygon_erasing.png
    python -m examples.polygon_erasing_sheet a.jpg b.jpg --output sheet.png --seed 3

A row is one image, a column one kind of erasing, every region drawn by reid_ops. The polygons of a row have
the same box, and the first ten of forty points are the ten points: the hull grows towards the box.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import reid_ops

ROOT = Path(__file__).resolve().parents[1]
TILE = 176
GAP, HEADING = 6, 34

Erase = Callable[..., Any]
_BOX = {"p": 1.0, "area": (0.25, 0.45)}
COLUMNS: tuple[tuple[str, Sequence[tuple[Erase, dict[str, Any]]]], ...] = (
    ("image", ()),
    ("RE", ((reid_ops.random_erase, _BOX),)),
    *((f"RPE n={n}", ((reid_ops.polygon_erase, {**_BOX, "points": n}),)) for n in (5, 10, 20, 40, 256)),
    ("RE + RPE n=20", ((reid_ops.random_erase, {"p": 1.0}), (reid_ops.polygon_erase, {"p": 1.0}))),
    ("star n=20", ((reid_ops.polygon_erase, {**_BOX, "shape": "star"}),)),
    ("RPE n=20, pixel", ((reid_ops.polygon_erase, {**_BOX, "fill": "pixel"}),)),
)


def default_images() -> list[Path]:
    """A photograph of a person (United States Navy, public domain, part of matplotlib) and two characters."""
    from matplotlib import cbook

    photograph = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    return [photograph, *sorted((ROOT / "examples" / "erasing_sheet").glob("*.jpg"))]


def load(path: Path) -> Tensor:
    """The image's middle square as uint8 ``(3, TILE, TILE)``."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((TILE, TILE), Image.Resampling.LANCZOS)
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(TILE, TILE, 3).permute(2, 0, 1)
    )


def sheet(images: Tensor, seed: int) -> Tensor:
    """All columns for all images, ``(3, height, width)``, light grey between them."""
    columns = []
    for _, steps in COLUMNS:
        erased = images
        for erase, options in steps:
            erased = erase(erased, seed=seed, **options)
        columns.append(erased)
    count, step = len(images), TILE + GAP
    canvas = torch.full((3, HEADING + count * step, GAP + len(columns) * step), 232, dtype=torch.uint8)
    for column, tiles in enumerate(columns):
        for row, tile in enumerate(tiles):
            top, left = HEADING + row * step, GAP + column * step
            canvas[:, top : top + TILE, left : left + TILE] = tile
    return canvas


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, help="default: a photograph and two characters")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "polygon_erasing.png")
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    paths = arguments.images or default_images()
    pixels = sheet(torch.stack([load(path) for path in paths]), arguments.seed)
    height, width = pixels.shape[1:]
    picture = Image.frombytes("RGB", (width, height), bytes(pixels.permute(1, 2, 0).flatten().tolist()))
    draw = ImageDraw.Draw(picture)
    for column, (title, _) in enumerate(COLUMNS):
        left = GAP + column * (TILE + GAP) + TILE / 2
        draw.text((left, HEADING / 2), title, fill=0, font=ImageFont.load_default(18), anchor="mm")
    picture = picture.quantize(256, dither=Image.Dither.NONE)  # a third of the size, and no visible loss
    picture.save(arguments.output, optimize=True)
    print(f"written: {arguments.output}, {width} x {height}")


if __name__ == "__main__":
    main()
