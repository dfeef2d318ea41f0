"""What the tests of reports share: small images, a run folder, and a reader of HTML."""

from __future__ import annotations

import base64
import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from reid_models import create_model, save_model
from reid_models.data import ImageRecord

SIZE = (64, 32)


def record(identity: int, camera: int, *, color: int = 0, shape: tuple[int, int] = (40, 20)) -> ImageRecord:
    """An image of one colour, in memory: red is the identity, green the camera."""
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[:] = (identity, camera, color)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return ImageRecord(f"{identity}_{camera}_{color}.png", identity, camera, stream.getvalue())


def write_run(folder: Path, network: str = "baseline", *, weights: bool = True, stage: int = 3) -> Path:
    """A run folder as training and evaluation leave it, on the synthetic dataset; untrained."""
    folder.mkdir(parents=True)
    options = {"backbone": "resnet10t"} | ({"stages": [stage]} if network == "hsgnet" else {})
    recipe = {
        "seed_everything": 3,
        "model": {"network": network, "options": options},
        "data": {
            "dataset": "synthetic",
            "root": None,
            "dataset_options": {"identities": 8, "size": list(SIZE)},
            "image_size": list(SIZE),
            "augmentation": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
        "trainer": {"max_epochs": 3},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [
        {"epoch": 0, "step": 9, "train/total": 3.0, "train/identity": 2.0, "train/triplet": 1.0, "lr": 1e-4},
        {
            "epoch": 0,
            "step": 0,
            "step/total": 3.5,
            "step/identity": 2.5,
            "step/triplet": 1.0,
            "step/lr": 1e-5,
        },
        {"epoch": 1, "step": 19, "train/total": 2.0, "train/identity": 1.5, "train/triplet": 0.5, "lr": 3e-4},
        {"epoch": 1, "step": 19, "val/mAP": 0.4, "val/rank1": 0.6},
    ]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)
    higher = 0.02 if network == "hsgnet" else 0.0
    evaluation = {
        "plain": {"rank1": 0.5 + higher, "rank5": 0.75, "rank10": 1.0, "mAP": 0.4 + higher, "mINP": 0.3},
        "reranked": {"rank1": 0.6, "rank5": 0.8, "rank10": 1.0, "mAP": 0.55 + higher, "mINP": 0.45},
        "deviation": {"plain": {"mAP": 0.0}, "reranked": {"mAP": 0.0}},
        "cmc": {"plain": [0.5 + higher, 0.75, 1.0], "reranked": [0.6, 0.8, 1.0]},
        "queries": 12,
        "excluded": 0,
        "gallery": 24,
        "draws": 1,
        "settings": {"metric": "cosine"},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if weights:
        save_model(
            create_model(network, 4, image_size=SIZE, **options),  # type: ignore[arg-type]
            folder / "best.safetensors",
        )
    return folder


class Page(HTMLParser):
    """Tags, texts, cells of tables and decoded images of a page; complains of tags that do not match."""

    VOID = ("meta", "img", "link", "br", "source")

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html, self.open = html, list[str]()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.bold: list[str] = []
        self.images: list[Image.Image] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._best = "best" in (values.get("class") or "").split()
        elif tag == "img":
            head, _, content = (values["src"] or "").partition(",")
            assert head in ("data:image/png;base64", "data:image/jpeg;base64")
            image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
            image.load()
            self.images.append(image)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
            if self._best:
                self.bold.append(data)

    def check_alone(self) -> None:
        """Nothing is asked for from elsewhere, and nothing runs."""
        for tag, values in self.tags:
            assert tag not in ("script", "iframe", "object", "link", "base", "form"), tag
            for name, value in values.items():
                assert not name.startswith("on"), name
                if name in ("src", "href", "srcset", "action", "poster", "data"):
                    assert (value or "").startswith(("data:", "#")), value
        style = self.html.partition("<style>")[2].partition("</style>")[0]
        assert style and "url(" not in style and "@import" not in style
