"""Where CSN finds the parts of one image in another (Fig. 4), and pairs framed by whom they show (Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from reid_ops import part_correlation

from ...data import ImageDataset, ImageRecord
from ...data.augmentation import Augmentation
from ...data.records import JUNK
from ...report import style
from ...report.pictures import load_picture, usual_shape
from .network import CSN

PARTS = ("upper", "middle", "lower")
FRAME = 2.2  # points
STRONG = 0.6  # opacity of a map over its image


@dataclass(frozen=True)
class PairMaps:
    """What a network sees in a pair.

    Attributes:
        query: the image whose parts are the filters.
        other: the image that is searched.
        maps: (level, part) -> (h, w), Eq. 2 of the other's map with the query's part, the mean over channels,
            not pooled.
        outlines: (level, part) -> (4, 2), corners (x, y) of the attended part in the query, in [0, 1]; none
            without transformers.
        probability: p(match).
    """

    query: ImageRecord
    other: ImageRecord
    maps: dict[tuple[int, int], np.ndarray]
    outlines: dict[tuple[int, int], np.ndarray]
    probability: float

    @property
    def right(self) -> bool:
        """Whether both show one identity."""
        return self.query.identity == self.other.identity


@torch.no_grad()
def similarity_maps(
    model: CSN, pairs: Sequence[tuple[ImageRecord, ImageRecord]], augmentation: Augmentation
) -> list[PairMaps]:
    """Similarity maps of pairs (query, other).

    Args:
        model: in any mode, on any device.
        pairs: at least one.
        augmentation: whose mean and std normalise the images.

    Raises:
        ValueError: no pairs.
        FileNotFoundError, ValueError: an image can't be decoded.
    """
    if not pairs:
        raise ValueError("similarity_maps: pairs must hold at least one pair, got none")
    images = ImageDataset([record for pair in pairs for record in pair], size=model.image_size)
    batch = torch.stack([images[index].image for index in range(len(images))])
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        inputs = augmentation.evaluation(batch).to(device)
        codes = model.codes(inputs)
        rows = torch.arange(len(images), device=device).view(-1, 2)
        flat = codes.flatten()
        matched = model.match_pairs(flat, flat, rows, score="probability")
        back = rows.flip(1)  # the other's map, the query's parts
        found = {
            level: part_correlation(codes.maps[level], codes.parts[level], pairs=back)
            .unflatten(1, (model.part_count, -1))
            .mean(2)
            .cpu()
            .numpy()
            for level in model.levels
        }
    finally:
        model.train(training)
    return [
        PairMaps(
            *pair,
            {
                (level, part): maps[row, part]
                for level, maps in found.items()
                for part in range(maps.shape[1])
            },
            _outlines(model, {level: moved[2 * row] for level, moved in codes.transforms.items()}),
            float(matched[row]),
        )
        for row, pair in enumerate(pairs)
    ]


def _outlines(model: CSN, transforms: dict[int, Tensor]) -> dict[tuple[int, int], np.ndarray]:
    """Corners of the samples by Eq. 1, from coordinates of a part to those of its image."""
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    found = {}
    for level, moved in transforms.items():
        for part, transform in enumerate(moved.cpu()):
            placed = (corners @ transform.T + 1) / 2
            if model.parts == "stn":
                rows = model.part_rows(level)[part]
                height = model.map_sizes[level][0]
                placed[:, 1] = (rows.start + placed[:, 1] * (rows.stop - rows.start)) / height
            found[level, part] = placed.numpy()
    return found


def choose_pairs(
    queries: Sequence[ImageRecord], gallery: Sequence[ImageRecord], count: int, *, seed: int = 0
) -> list[tuple[ImageRecord, ImageRecord]]:
    """For each of some queries at random a pair with a right image, then one with a wrong one.

    Raises:
        ValueError: ``count`` below 1, or no query has both.
    """
    if count < 1:
        raise ValueError(f"choose_pairs: count must be at least 1, got {count}")
    random = np.random.default_rng(seed)
    pairs: list[tuple[ImageRecord, ImageRecord]] = []
    for place in random.permutation(len(queries)):
        query = queries[int(place)]
        shown = [item for item in gallery if item.identity != JUNK and item != query]
        right = [item for item in shown if item.identity == query.identity]
        wrong = [item for item in shown if item.identity != query.identity]
        if query.identity != JUNK and right and wrong and len(pairs) < 2 * count:
            pairs += [(query, items[int(random.integers(len(items)))]) for items in (right, wrong)]
    if not pairs:
        raise ValueError("choose_pairs: a query must have a right and a wrong image, and none has")
    return pairs


def plot_similarity_maps(pairs: Sequence[PairMaps], *, title: str = "") -> Figure:
    """A row for each pair: query with its attended parts, other image, a map of each level and part over it.

    Colours run from a map's least to its largest value. A right pair is framed green, a wrong one dashed red.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("plot_similarity_maps: pairs must hold at least one pair, got none")
    names = list(pairs[0].maps)
    parts = max(part for _, part in names) + 1
    pictures = [(load_picture(pair.query), load_picture(pair.other)) for pair in pairs]
    shape = usual_shape([picture for both in pictures for picture in both])
    grid = style.PictureGrid(len(pairs), 2 + len(names), shape, title=title, left=0.95, headings=True)
    for column, text in enumerate(["query", "other"]):
        grid.heading(column, text)
    for column, (level, part) in enumerate(names, start=2):
        grid.heading(column, f"L{level} {PARTS[part]}" if parts == 3 else f"L{level}")
    for row, (pair, (query, other)) in enumerate(zip(pairs, pictures, strict=True)):
        grid.label(row, "match" if pair.right else "no match", f"p {pair.probability:.2f}")
        axes = _framed(grid, row, 0, query, pair.right)
        height, width = query.shape[:2]
        for corners in pair.outlines.values():
            closed = np.concatenate([corners, corners[:1]]) * [width, height] - 0.5
            axes.plot(
                closed[:, 0], closed[:, 1], color=style.PROBE, linewidth=0.7, scalex=False, scaley=False
            )
        _framed(grid, row, 1, other, pair.right)
        height, width = other.shape[:2]
        for column, name in enumerate(names, start=2):
            axes = grid.cell(row, column, other)
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            axes.imshow(
                pair.maps[name], cmap="viridis", alpha=STRONG, extent=extent, interpolation="bilinear"
            )
    return grid.figure


def plot_pairs(pairs: Sequence[PairMaps], *, title: str = "") -> Figure:
    """Pairs side by side, right ones framed green, wrong ones dashed red, with p(match) (Fig. 1).

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("plot_pairs: pairs must hold at least one pair, got none")
    pictures = [(load_picture(pair.query), load_picture(pair.other)) for pair in pairs]
    shape = usual_shape([picture for both in pictures for picture in both])
    grid = style.PictureGrid(2, len(pairs), shape, title=title, left=0.75, headings=True)
    grid.label(0, "query")
    grid.label(1, "other")
    for column, (pair, both) in enumerate(zip(pairs, pictures, strict=True)):
        mark = "✓" if pair.right else "✗"
        grid.heading(column, f"{mark} {pair.probability:.2f}")
        for row, picture in enumerate(both):
            _framed(grid, row, column, picture, pair.right)
    return grid.figure


def _framed(grid: style.PictureGrid, row: int, column: int, picture: np.ndarray, right: bool) -> Axes:
    axes = grid.cell(row, column, picture, frame=style.RIGHT if right else style.WRONG, width=FRAME)
    if not right:
        for spine in axes.spines.values():
            spine.set_linestyle((0, (2.2, 1.2)))
    return axes
