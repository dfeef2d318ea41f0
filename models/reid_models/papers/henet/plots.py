"""HENet's figures: branches' heat-maps (2), erasing (3), probability (4) and occlusion (5)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reid_ops import polygon_erase, random_erase

from ...data.augmentation import Augmentation
from ...data.occlusion import KINDS
from ...data.records import ImageRecord
from ...networks.network import Network
from ...recipes.registry import load_recipe
from ...report import style
from ...report.cam import grad_cam, plot_cam_panels
from ...report.legends import place_legends
from ...report.pictures import load_picture
from ...runs.files import EVALUATION, OCCLUDED

#: Augmentations of Fig. 4, by the part of a recipe's name that says which.
AUGMENTATIONS: Mapping[str, str] = {
    "re": "RE",
    "rpe10": "RPE(10)",
    "rpe20": "RPE(20)",
    "rpe30": "RPE(30)",
    "rpe40": "RPE(40)",
    "re_rpe20": "RE+RPE(20)",
}
PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
MEASURES = {"rank1": "rank-1", "mAP": "mAP"}
BOX = {"p": 1.0, "area": (0.25, 0.45), "fill": "mean", "mean": 0.5}  # grey, as in Fig. 3


def plot_branches(
    model: Network,
    records: Sequence[ImageRecord],
    *,
    augmentation: Augmentation | None = None,
    title: str = "",
) -> Figure:
    """Grad-CAM of every branch over some images (HENet, Fig. 2).

    Args:
        model: of :func:`create_model`, with branches.
        records: images, at least one.
        augmentation: whose mean and std normalise them.
        title: of the figure.

    Raises:
        ValueError: no records, or a model without branches.

    Example:
        >>> plot_branches(load_model("henet.safetensors"), dataset.draws[0].query[:6])
    """
    branches = [name for name in model.layers() if name.startswith("branch") or name == "recovery"]
    if not branches:
        raise ValueError(f"plot_branches: model must have branches, got {model.name}")
    if not records:
        raise ValueError("plot_branches: records must hold at least one image, got none")
    pictures = [load_picture(record, model.image_size) for record in records]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    device = next(model.parameters()).device
    images = (augmentation or Augmentation()).evaluation(pixels.to(device))
    maps = {name: grad_cam(model, images, layer=name) for name in branches}
    return plot_cam_panels(pictures, maps, title=title)


def plot_erasing(
    pictures: Sequence[np.ndarray], *, points: Sequence[int] = (10, 40), seed: int = 0, title: str = ""
) -> Figure:
    """Images, erased by RE and by RPE with several numbers of points (HENet, Fig. 3).

    All of an image's regions have the same seed, so that its polygons lie in one box.

    Args:
        pictures: uint8 (H, W, 3), at least one.
        points: of RPE's columns.
        seed: at least 0.
        title: of the figure.

    Raises:
        TypeError, ValueError: no pictures, or as :func:`reid_ops.polygon_erase`.

    Example:
        >>> save_figure(plot_erasing([load_picture(record) for record in dataset.train[:4]]), "erasing.png")
    """
    if not pictures:
        raise ValueError("plot_erasing: pictures must hold at least one image, got none")
    headings = ["image", "RE", *(f"RPE, n = {count}" for count in points)]
    shape = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    grid = style.PictureGrid(
        len(pictures), len(headings), shape, title=title, cell=1.05, left=0.0, headings=True
    )
    for column, text in enumerate(headings):
        grid.heading(column, text)
    for row, picture in enumerate(pictures):
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].contiguous()
        options: dict[str, Any] = {**BOX, "seed": seed, "first_index": row}
        erased = [image, random_erase(image, **options)]
        erased += [polygon_erase(image, **options, points=count) for count in points]
        for column, made in enumerate(erased):
            grid.cell(row, column, _shown(made))
    return grid.figure


def plot_probability(
    results: Mapping[str, Mapping[float, Mapping[str, float]]], *, title: str = ""
) -> Figure:
    """Rank-1 and mAP against the probability of an augmentation (HENet, Fig. 4).

    Args:
        results: augmentation -> probability -> ``rank1`` and ``mAP`` in [0, 1], as
            :func:`read_probability` gives them.
        title: of the figure.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> save_figure(plot_probability(read_probability("runs")), "probability.svg")
    """
    if not any(results.values()):
        raise ValueError("plot_probability: results must hold at least one point, got none")
    figure = style.new_figure(8.2, 3.6)
    drawn: list[Axes] = []
    for number, (measure, name) in enumerate(MEASURES.items(), start=1):
        axes = figure.add_subplot(1, len(MEASURES), number)
        for index, points in enumerate(results.values()):
            places = sorted(points)
            axes.plot(
                places,
                [100 * points[place][measure] for place in places],
                marker=style.MARKERS[index % len(style.MARKERS)],
                markersize=4,
                **style.series_style(index, index),
            )
        style.tidy(axes, title=name, xlabel="probability", ylabel="%")
        drawn.append(axes)
    _finish(figure, drawn, list(results), title)
    return figure


def plot_occlusion(
    results: Mapping[str, Mapping[str, Mapping[float, Mapping[str, float]]]], *, title: str = ""
) -> Figure:
    """Rank-1 and mAP against the level of occlusion, a panel for each kind of it (HENet, Fig. 5).

    Solid lines are rank-1, dashed ones mAP; a colour for each training.

    Args:
        results: kind of occlusion -> training -> level -> ``rank1`` and ``mAP`` in [0, 1], as
            :func:`read_occlusion` and :func:`read_occluded_runs` give them.
        title: of the figure.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> save_figure(plot_occlusion(read_occlusion("henet.json")), "occlusion.svg")
    """
    if not any(results.values()):
        raise ValueError("plot_occlusion: results must hold at least one training, got none")
    figure = style.new_figure(3.4 * len(results), 3.6)
    drawn: list[Axes] = []
    labels: list[str] = []
    for number, (kind, trainings) in enumerate(results.items(), start=1):
        axes = figure.add_subplot(1, len(results), number, sharey=drawn[0] if drawn else None)
        labels = [f"{name}: {measure}" for name in trainings for measure in MEASURES.values()]
        for color, points in enumerate(trainings.values()):
            levels = sorted(points)
            for dashes, measure in enumerate(MEASURES):
                values = [100 * points[level][measure] for level in levels]
                marker = style.MARKERS[color % len(style.MARKERS)]
                axes.plot(levels, values, marker=marker, markersize=3.5, **style.series_style(color, dashes))
        style.tidy(axes, title=f"tested with {kind}", xlabel="level of occlusion", ylabel="%")
        drawn.append(axes)
    _finish(figure, drawn, labels, title)
    return figure


def read_probability(runs: str | os.PathLike[str]) -> dict[str, dict[float, dict[str, float]]]:
    """The evaluations of Fig. 4's recipes in a folder of runs, for :func:`plot_probability`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an ``evaluation.json`` is damaged, or there is none of these recipes.

    Example:
        >>> read_probability("runs")["RE"][0.5]["rank1"]
        0.921
    """
    from ...recipes.table import read_results

    measured = read_results(runs)
    results: dict[str, dict[float, dict[str, float]]] = {}
    for part, label in AUGMENTATIONS.items():
        for probability in PROBABILITIES:
            name = f"market1501_henet_{part}_p{round(10 * probability):02d}"
            load_recipe(name)  # the recipes and this figure have the same points
            if name in measured:
                results.setdefault(label, {})[probability] = dict(measured[name])
    if not results:
        raise ValueError(f"read_probability: {runs} must have evaluated runs of Fig. 4's recipes, got none")
    return results


def read_occlusion(
    path: str | os.PathLike[str],
) -> dict[str, dict[str, dict[float, dict[str, float]]]]:
    """Rows "TRAINING, KIND:LEVEL" of an evidence file, for :func:`plot_occlusion`; "clean" is level 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not one of ``python -m examples.evidence henet``.

    Example:
        >>> read_occlusion("benchmarks/results/evidence/henet.json")["re"]["none"][0.1]["mAP"]
        0.31
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"read_occlusion: path must be a file, got {file}")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        found: dict[str, dict[str, dict[float, dict[str, float]]]] = {}
        clean: dict[str, dict[str, float]] = {}
        for name, row in rows.items():
            training, _, test = name.partition(", ")
            means = {measure: float(row[measure]["mean"]) for measure in MEASURES}
            if test == "clean":
                clean[training] = means
            else:
                kind, _, level = test.partition(":")
                found.setdefault(kind, {}).setdefault(training, {})[float(level)] = means
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"read_occlusion: {file} must have rows as HENet's evidence ({error!r})") from None
    for trainings in found.values():
        for training, points in trainings.items():
            if training in clean:
                points[0.0] = clean[training]
    return found


def read_occluded_runs(
    runs: Mapping[str, str | os.PathLike[str]],
) -> dict[str, dict[str, dict[float, dict[str, float]]]]:
    """What ``reid evaluate RUN --occlude KIND:LEVEL`` has left in runs, for :func:`plot_occlusion`.

    Args:
        runs: training -> run folder. Its evaluation of whole images, if there, is level 0.

    Raises:
        FileNotFoundError: a run that was not evaluated with ``--occlude``.
        ValueError: a damaged evaluation.

    Example:
        >>> read_occluded_runs({"RPE": "runs/market1501_henet_rpe20_p05"})["re"]["RPE"][0.1]["mAP"]
        0.71
    """
    found: dict[str, dict[str, dict[float, dict[str, float]]]] = {}
    for name, path in runs.items():
        files = sorted((Path(path) / OCCLUDED).glob("*.json"))
        if not files:
            raise FileNotFoundError(
                f"{path} must be a run that was evaluated on occluded images: reid evaluate {path} --occlude "
                "re:0.1"
            )
        for file in files:
            occlusion, measures = _read_evaluation(file)
            kind = next((known for known in KINDS if occlusion["kind"] in (known, KINDS[known])), None)
            if kind is None:
                raise ValueError(f"{file} must be of a known occlusion, got {occlusion['kind']!r}")
            points = found.setdefault(kind, {}).setdefault(name, {})
            points[float(occlusion["level"])] = measures
            if (Path(path) / EVALUATION).is_file():
                points[0.0] = _read_evaluation(Path(path) / EVALUATION)[1]
    return {kind: found[kind] for kind in KINDS if kind in found}


def _read_evaluation(file: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The occlusion, and rank-1 and mAP in [0, 1]."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        measures = {measure: float(content["plain"][measure]) for measure in MEASURES}
        occlusion = dict(content["settings"].get("occlusion") or {"kind": "re", "level": 0.0})
        float(occlusion["level"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged or not an evaluation ({error!r})") from None
    return occlusion, measures


def _finish(figure: Figure, drawn: Sequence[Axes], labels: list[str], title: str) -> None:
    if title:
        text = figure.suptitle(title, fontsize=style.LARGE, fontweight="bold", x=0.01, ha="left")
        style.plain(text)
    place_legends(figure, [(drawn[-1], labels)], loc="best")


def _shown(image: Any) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()
