"""The report of one run or of several side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reid_ops._version import __version__

from ..data import ReidDataset
from ..runs.folders import Run
from ..runs.measures import SHARES
from ..runs.models import Trained
from .cam import draw_cam
from .curves import plot_cmc, plot_training
from .html import Cell, Code, Picture, Report, Section, Table, Text
from .lists import RankedList, plot_ranked_lists
from .montage import plot_montage
from .pictures import draw_records
from .retrieval import RERANKED, describe_rankings, list_dataset, rank_dataset

# What the table of runs says, and where a recipe has it.
SETTINGS = {
    "network": ("model", "network"),
    "options": ("model", "options"),
    "dataset": ("data", "dataset"),
    "image size": ("data", "image_size"),
    "epochs": ("trainer", "max_epochs"),
    "seed": ("seed_everything",),
}
# The choices of choose_queries in words.
CHOSEN = {
    "improved": "whose AP rose most from the first method to the last",
    "worst": "of the lowest AP",
    "best": "of the highest AP",
    "first": "that come first",
    "random": "drawn at random",
}


def report_runs(
    runs: Sequence[Run],
    *,
    title: str = "",
    pictures: Sequence[Section] = (),
    seconds: Mapping[str, Mapping[str, float]] | None = None,
    machine: Mapping[str, str] | None = None,
) -> Report:
    """A report of runs: their results first, then what was run, times, curves, pictures, machine, recipes.

    What a run folder does not have is left out, and said where it would be looked for.

    Args:
        runs: from :func:`read_runs`, in the order to show, the one that others are compared with first.
        title: of the page; "" makes one.
        pictures: sections to put behind the curves, such as :func:`picture_sections`.
        seconds: name -> stage (``"training"``, ``"features"``) -> seconds.
        machine: what it was run on; None: no such section. See :func:`describe_machine`.

    Raises:
        ValueError: no runs.

    Example:
        >>> report_runs(read_runs(["runs/baseline", "runs/hsgnet"])).write_html("report.html")
    """
    if not runs:
        raise ValueError("report_runs: runs must hold at least one run, got none")
    names = " and ".join([", ".join(run.name for run in runs[:-1]), runs[-1].name]).removeprefix(" and ")
    datasets = sorted({str(run.setting("data", "dataset")) for run in runs if run.setting("data", "dataset")})
    sections: list[Section] = [*_results(runs), *_settings(runs), *_times(seconds or {})]
    sections += [*_training(runs), *_matching(runs), *pictures]
    if machine:
        sections.append(Table(("", ""), list(machine.items()), heading="Machine"))
    sections += _recipes(runs)
    return Report(title or names, sections, f"Retrieval on {', '.join(datasets)}" if datasets else "")


def picture_sections(
    networks: Mapping[str, Trained],
    dataset: ReidDataset,
    *,
    count: int = 4,
    top: int = 10,
    how: str | None = None,
    rerank: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    keep: bool = True,
    **extraction: Any,
) -> list[Section]:
    """Ranked lists, Grad-CAM panels and a montage, made by running the networks on the dataset's first draw.

    Args:
        networks: name -> network.
        dataset: from a reader.
        count: queries in the ranked lists; twice as many images are in the panels.
        top: length of the lists.
        how: which queries, see :func:`choose_queries`; None: the most improved, or the worst of one method.
        rerank: also re-ranked lists, with these options of :func:`reid_ops.k_reciprocal_rerank`.
        seed: of random choices.
        device: ``"auto"``, ``"cpu"`` or a CUDA device.
        keep: as :func:`reid_models.report.rank_dataset`.
        **extraction: of :func:`reid_models.retrieval.extraction.extract_features`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as the functions named.
    """
    found = rank_dataset(networks, dataset, rerank=rerank, device=device, keep=keep, **extraction)
    how = how or ("improved" if len(found) > 1 else "worst")
    lists = list_dataset(found, dataset, count=count, top=top, how=how, seed=seed)
    panels = draw_cam(networks, draw_records(dataset.draws[0].query, 2 * count, seed=seed), device=device)
    return [
        *_lists(lists, f"queries {CHOSEN[how]}. {describe_rankings(found)}"),
        Picture(
            panels,
            f"Query images and the Grad-CAM maps of {', '.join(networks)}",
            "Where the networks look",
            "Grad-CAM of the length of the feature that is compared, on the trunk's last stage; bright is "
            "much. Query images drawn at random.",
        ),
        Picture(
            plot_montage(dataset.train, seed=seed),
            "Training images, a row for each of some identities and a column for each camera",
            "Images",
            f"Training images of {dataset.name}: identities drawn at random, by camera.",
        ),
    ]


def _lists(lists: Mapping[str, Sequence[RankedList]], which: str) -> list[Section]:
    """Ranked lists, plain and re-ranked; of several networks in two figures: else a query took four rows."""
    plain = {name: found for name, found in lists.items() if not name.endswith(RERANKED)}
    again = {name: found for name, found in lists.items() if name.endswith(RERANKED)}
    marks = (
        "Solid green frame and check mark: the query's identity; dashed red frame and cross: another. Images "
        "that evaluation leaves out are left out."
    )
    if len(lists) <= 2:
        added = " or, re-ranked, by the distance of re-ranking" if again else ""
        parts = [(lists, "Ranked lists", f"Nearest first, by the cosine{added}; {which} {marks}")]
    else:
        parts = [
            (plain, "Ranked lists", f"Nearest first, by the cosine; {which} {marks}"),
            (again, "Re-ranked lists", "The same queries, by the distance of re-ranking."),
        ]
    return [
        Picture(plot_ranked_lists(part), f"{heading} of {', '.join(part)}", heading, caption)
        for part, heading, caption in parts
        if part
    ]


def describe_machine(device: str | torch.device = "cpu") -> dict[str, str]:
    """The machine in words: processor, cores, GPU if that is the device, system and versions."""
    chosen = torch.device(device)
    facts = {"processor": _processor(), "cores": str(os.cpu_count())}
    if chosen.type == "cuda":
        facts["GPU"] = torch.cuda.get_device_name(chosen)
    return facts | {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": f"reid-ops {__version__}, torch {torch.__version__}",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _results(runs: Sequence[Run]) -> list[Section]:
    """The main table: a row for each run and method."""
    scores = {run.label(method): values for run in runs for method, values in run.scores.items()}
    missing = [run.name for run in runs if not run.scores]
    sections: list[Section] = []
    if scores:
        known = {metric for values in scores.values() for metric in values}
        metrics = [metric for metric in SHARES if metric in known] + sorted(known - set(SHARES))
        columns = [SHARES.get(metric, metric) for metric in metrics]
        sections.append(
            Table(
                ("method", *columns),
                [(name, *(values.get(metric) for metric in metrics)) for name, values in scores.items()],
                heading="Results",
                caption=f"Percent; the highest of each column in bold type. {_sizes(runs)}".strip(),
                best=columns,
            )
        )
    if missing:
        text = f"Not evaluated: {', '.join(missing)}. `reid evaluate RUN` adds the results of a run."
        sections.append(Text([text], "" if scores else "Results"))
    return sections


def _sizes(runs: Sequence[Run]) -> str:
    """Queries and gallery, if they are the same for all."""
    facts = [run.evaluation for run in runs if run.scores and run.evaluation]
    sizes = {(fact.get("queries"), fact.get("gallery"), fact.get("draws")) for fact in facts}
    if len(sizes) != 1:
        return ""
    queries, gallery, draws = sizes.pop()
    if queries is None or gallery is None:
        return ""
    over = f", mean over {draws} draws" if isinstance(draws, int) and draws > 1 else ""
    return f"{queries} queries, {gallery} gallery images{over}."


def _settings(runs: Sequence[Run]) -> list[Section]:
    rows: list[list[Cell]] = [
        [run.name, *(_setting(run, name) for name in SETTINGS)] for run in runs if run.recipe is not None
    ]
    return [Table(("run", *SETTINGS), rows, heading="What was run")] if rows else []


def _setting(run: Run, name: str) -> str | None:
    value = run.setting(*SETTINGS[name])
    if name == "image size" and isinstance(value, list | tuple):
        return "×".join(str(side) for side in value)
    return _show(value)


def _show(value: Any) -> str | None:
    """A setting in words."""
    if isinstance(value, Mapping):
        parts = {key: f"({_show(part)})" if _is_several(part) else _show(part) for key, part in value.items()}
        return ", ".join(f"{key} {part}" for key, part in parts.items()) or None
    if isinstance(value, list | tuple):
        return ", ".join(str(_show(part)) for part in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return None if value is None else str(value)


def _is_several(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and len(value) > 1


def _times(seconds: Mapping[str, Mapping[str, float]]) -> list[Section]:
    stages = list(dict.fromkeys(stage for values in seconds.values() for stage in values))
    rows = [(name, *(values.get(stage) for stage in stages)) for name, values in seconds.items()]
    return [Table(("method", *stages), rows, heading="Times", caption="Seconds.", decimals=2)] if rows else []


def _training(runs: Sequence[Run]) -> list[Section]:
    logs = {run.name: run.log for run in runs if run.log is not None}
    if not logs:
        return []
    caption = "Loss and learning rate of each epoch, and mAP and rank-1 of each validation."
    what = f"Loss, validation and learning rate of {', '.join(logs)}"
    return [Picture(plot_training(logs), what, "Training", caption, plot_training(logs, stacked=True))]


def _matching(runs: Sequence[Run]) -> list[Section]:
    curves = {run.label(method): curve for run in runs for method, curve in run.cmc.items()}
    if not curves:
        return []
    caption = "Share of queries with a right image among the first so many."
    return [Picture(plot_cmc(curves, title=""), f"CMC curves of {', '.join(curves)}", "CMC", caption)]


def _recipes(runs: Sequence[Run]) -> list[Section]:
    known = [run for run in runs if run.recipe_text]
    return [
        Code(run.recipe_text, run.name, "Recipes" if number == 0 else "") for number, run in enumerate(known)
    ]
