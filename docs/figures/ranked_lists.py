"""Draws docs/figures/ranked_lists.png: characters found among other people's drawings.

PYTHONPATH=.:models python docs/figures/ranked_lists.py           # without training: pixels, part_correlation
PYTHONPATH=.:models python docs/figures/ranked_lists.py RUN ...   # runs of `make demo`, plain and re-ranked
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from examples.main_job import Pixels
from examples.part_correlation_demo import part_scores, parts_of, stroke_maps
from reid_models.data import ImageRecord, ReidDataset, read_dataset
from reid_models.report import plot_ranked_lists, ranked_lists, save_figure
from reid_models.report.pictures import load_picture

OUTPUT = Path(__file__).with_name("ranked_lists.png")
QUERIES, TOP = 3, 8


def pixels_of(records: Sequence[ImageRecord]) -> Tensor:
    """(N, 3, 105, 105) in [0, 1]."""
    pictures = torch.stack([torch.from_numpy(load_picture(record).copy()) for record in records])
    return pictures.permute(0, 3, 1, 2).float() / 255


def draw_without_training(dataset: ReidDataset) -> None:
    """By the pixels themselves and by strokes whose parts `part_correlation` searches."""
    split = dataset.draws[0]
    query = [split.query[len(split.query) * index // QUERIES] for index in range(QUERIES)]
    images, gallery = pixels_of(query), pixels_of(split.gallery)
    flat = [torch.nn.functional.normalize(Pixels()(side)) for side in (images, gallery)]
    maps = [stroke_maps(1 - side.mean(1)) for side in (images, gallery)]
    distances = {"pixels": -flat[0] @ flat[1].T, "parts as filters": -part_scores(parts_of(maps[0]), maps[1])}
    lists = {
        name: ranked_lists(range(QUERIES), query, split.gallery, distance=distance, top=TOP)
        for name, distance in distances.items()
    }
    save_figure(plot_ranked_lists(lists), OUTPUT)


def draw_runs(dataset: ReidDataset, runs: Sequence[str]) -> None:
    """By trained networks, plain and re-ranked; queries that re-ranking helps most."""
    from reid_models.report import list_dataset, rank_dataset
    from reid_models.runs.models import load_trained

    networks = {Path(run).name: load_trained(run) for run in runs}
    found = rank_dataset(networks, dataset, rerank={})
    lists = list_dataset(found, dataset, count=QUERIES, top=TOP, how="improved")
    save_figure(plot_ranked_lists(lists), OUTPUT)


if __name__ == "__main__":
    characters = read_dataset("omniglot")
    if sys.argv[1:]:
        draw_runs(characters, sys.argv[1:])
    else:
        draw_without_training(characters)
