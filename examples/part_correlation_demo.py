"""part_correlation at work: finds the same handwritten character drawn by other people.

    python -m examples.part_correlation_demo

No training. Each image becomes a small map of oriented strokes. A query is cut into 4x4 overlapping
parts, and each part is a filter that searches every gallery map near its own place, as CSN's parts do.
Responses are normalised by the ink under the filter (normalised cross-correlation; the ink, too, comes
from part_correlation, with filters of ones). A gallery image scores the sum of its parts' best responses.
The table compares that with matching the same maps, and the pixels, position by position; the figure
shows where parts of one query respond.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import reid_ops
from examples import omniglot
from reid_ops import reference

DIRECTIONS = 6
MAP = 20  # map height and width
PART = 8  # filter height and width
PART_PLACES = tuple((row, column) for row in (0, 4, 8, 12) for column in (0, 4, 8, 12))
REACH = 2  # how far, in map pixels, a part may move from its own place


def stroke_maps(pixels: Tensor) -> Tensor:
    """(N, 105, 105) ink -> (N, 6, 20, 20): how much stroke runs in each direction, unit length a map."""
    pixels = F.avg_pool2d(centred(pixels)[:, None], 2)
    spread = torch.arange(-4.0, 5.0)
    rows, columns = torch.meshgrid(spread, spread, indexing="ij")
    filters = []
    for k in range(DIRECTIONS):
        angle = math.pi * k / DIRECTIONS
        across = columns * math.sin(angle) - rows * math.cos(angle)
        envelope = torch.exp(-(rows**2 + columns**2) / 12)
        kernel = torch.cos(1.1 * across) * envelope
        filters.append(kernel - envelope * (kernel.sum() / envelope.sum()))
    maps = F.conv2d(pixels, torch.stack(filters)[:, None], padding=4).relu()
    maps = F.adaptive_avg_pool2d(maps, MAP).sqrt()
    return F.normalize(maps.flatten(1), dim=1).view(-1, DIRECTIONS, MAP, MAP)


def centred(pixels: Tensor) -> Tensor:
    """Every drawing moved so that its ink's centre is the image's."""
    size = pixels.shape[-1]
    place = torch.arange(size, dtype=pixels.dtype)
    ink = pixels.sum((1, 2))
    down = ((pixels.sum(2) * place).sum(1) / ink - (size - 1) / 2).round().long()
    across = ((pixels.sum(1) * place).sum(1) / ink - (size - 1) / 2).round().long()
    return torch.stack(
        [
            torch.roll(image, (-int(i), -int(j)), (0, 1))
            for image, i, j in zip(pixels, down, across, strict=True)
        ]
    )


def parts_of(maps: Tensor) -> Tensor:
    """(N, C, 20, 20) -> (N, 16, C, 8, 8): overlapping parts."""
    return torch.stack([maps[:, :, i : i + PART, j : j + PART] for i, j in PART_PLACES], 1)


def part_scores(query_parts: Tensor, gallery_maps: Tensor) -> Tensor:
    """(Q, 16, C, 8, 8), (G, C, 20, 20) -> (Q, G): summed best responses of the parts."""
    scores = torch.empty(len(query_parts), len(gallery_maps))
    length = ink_under_filter(gallery_maps)
    rows = torch.arange(len(gallery_maps))
    for query in range(len(query_parts)):
        # Pairs of (signal row, parts row): no feature is copied per pair.
        pairs = torch.stack([rows, torch.full_like(rows, query)], 1)
        scores[query] = best_near_home(responses(gallery_maps, query_parts, pairs), length).sum(1)
    return scores


def responses(maps: Tensor, parts: Tensor, pairs: Tensor) -> Tensor:
    """(B, 16, 20, 20): each part searched in each pair's map, all channels together."""
    similarity = reid_ops.part_correlation(maps, parts, pairs=pairs)
    return similarity.view(len(pairs), len(PART_PLACES), DIRECTIONS, MAP, MAP).sum(2)


def ink_under_filter(maps: Tensor) -> Tensor:
    """(G, 20, 20): the length of the map's values under a filter at each position."""
    ones = torch.ones(1, 1, DIRECTIONS, PART, PART).expand(len(maps), -1, -1, -1, -1)
    return (reid_ops.part_correlation(maps.square(), ones).sum(1) + 1e-4).sqrt()


def best_near_home(response: Tensor, length: Tensor) -> Tensor:
    """(G, 16, 20, 20) -> (G, 16): each part's best normalised response close to its own place."""
    best = []
    for part, corner in enumerate(PART_PLACES):
        near = tuple(  # output (i, j) is the filter with its middle, (PART - 1) // 2, at (i, j)
            slice(max(0, place + (PART - 1) // 2 - REACH), place + (PART - 1) // 2 + REACH + 1)
            for place in corner
        )
        best.append((response[:, part, near[0], near[1]] / length[:, near[0], near[1]]).flatten(1).amax(1))
    return torch.stack(best, 1)


def evaluate(scores: Tensor, query: omniglot.Images, gallery: omniglot.Images) -> tuple[float, float]:
    """Rank-1 and mAP (mean of the precision at hits); the query's own camera does not count."""
    first, average_precision = [], []
    for row, identity, camera in zip(scores, query.identities, query.cameras, strict=True):
        counts = gallery.cameras != camera
        order = row[counts].argsort(descending=True)
        hits = (gallery.identities[counts] == identity)[order].double()
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
        first.append(hits[0].item())
        average_precision.append(((precision * hits).sum() / hits.sum()).item())
    return sum(first) / len(first), sum(average_precision) / len(average_precision)


def draw(
    query: omniglot.Images, gallery: omniglot.Images, scores: Tensor, maps: Tensor, parts: Tensor, path: Path
) -> None:
    """One query, its five best matches by other people, and where some of its parts respond in them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    chosen, shown = 4, (1, 6, 14)
    others = (gallery.cameras != query.cameras[chosen]).nonzero()[:, 0]
    best = others[scores[chosen, others].topk(5).indices]
    pairs = torch.stack([best, torch.full_like(best, chosen)], 1)
    response = responses(maps, parts, pairs) / ink_under_filter(maps[best])[:, None]
    figure, axes = plt.subplots(1 + len(shown), 6, figsize=(9, 6.4))
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].imshow(query.pixels[chosen], cmap="gray_r")
    axes[0, 0].set_title("query", fontsize=9)
    for column, index in enumerate(best, start=1):
        right = gallery.identities[index] == query.identities[chosen]
        axes[0, column].imshow(gallery.pixels[index], cmap="gray_r")
        axes[0, column].set_title(
            f"{column}. drawer {int(gallery.cameras[index])}", fontsize=9, color="green" if right else "red"
        )
        for line, part in enumerate(shown, start=1):
            axes[line, column].imshow(response[column - 1, part], cmap="magma")
    for line, part in enumerate(shown, start=1):
        axes[line, 0].imshow(parts[chosen, part].sum(0), cmap="gray_r")
        axes[line, 0].set_title(f"part at {PART_PLACES[part]}", fontsize=9)
    figure.suptitle("part_correlation: a query's parts searched in other people's drawings", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Loads, matches, checks against the reference, prints the table and writes the figure."""
    parser = argparse.ArgumentParser(description="part_correlation on real images")
    parser.add_argument("--queries", type=int, default=106, help="how many queries to search (1 to 318)")
    parser.add_argument("--output", type=Path, default=Path("build/demo/part_correlation.png"))
    arguments = parser.parse_args()
    if not 1 <= arguments.queries <= 318:
        parser.error(f"--queries must be in [1, 318], got {arguments.queries}")
    console = Console()
    query, gallery = omniglot.load("query"), omniglot.load("test")
    step = torch.linspace(0, len(query) - 1, arguments.queries).long()
    query = omniglot.Images(query.pixels[step], query.identities[step], query.cameras[step])
    characters, people = len(gallery.identities.unique()), len(gallery.cameras.unique())
    console.print(
        f"{len(query)} queries, {len(gallery)} gallery images of {characters} characters by {people} people; "
        f"reid_ops {reid_ops.__version__} ({reid_ops.build_info()['cpu_capability']})"
    )

    query_maps, gallery_maps = stroke_maps(query.pixels), stroke_maps(gallery.pixels)
    query_parts = parts_of(query_maps)
    some = torch.stack([torch.arange(8), torch.zeros(8, dtype=torch.int64)], 1)
    difference = (
        reid_ops.part_correlation(gallery_maps, query_parts, pairs=some)
        - reference.part_correlation(gallery_maps, query_parts, pairs=some)
    ).abs().max()  # fmt: skip
    console.print(f"largest difference from the pure PyTorch reference: {difference:.1e}")

    start = time.perf_counter()
    scores = part_scores(query_parts, gallery_maps)
    seconds = time.perf_counter() - start
    small = [
        F.normalize(F.adaptive_avg_pool2d(centred(x.pixels), 16).flatten(1), dim=1) for x in (query, gallery)
    ]
    table = Table(title="same character, other person (same drawer removed)")
    for column in ("matching", "rank-1", "mAP"):
        table.add_column(column, justify="left" if column == "matching" else "right")
    for name, values in (
        ("raw pixels, 16x16, centred", small[0] @ small[1].T),
        ("stroke maps, position by position", query_maps.flatten(1) @ gallery_maps.flatten(1).T),
        ("stroke maps, parts as filters (part_correlation)", scores),
    ):
        rank_1, mean_average_precision = evaluate(values, query, gallery)
        table.add_row(name, f"{rank_1:.3f}", f"{mean_average_precision:.3f}")
    console.print(table)
    console.print(
        f"{scores.numel():,} pairs matched in {seconds:.1f} s ({scores.numel() / seconds:,.0f} pairs/s)"
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(query, gallery, scores, gallery_maps, query_parts, arguments.output)
    console.print(f"figure: {arguments.output}")


if __name__ == "__main__":
    main()
