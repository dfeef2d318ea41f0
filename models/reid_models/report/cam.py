"""Grad-CAM: where a network looks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from .._suggest import unknown
from ..data import ImageDataset, ImageRecord
from ..networks.network import Network
from ..retrieval.extraction import choose_device
from ..runs.models import Trained
from . import style
from .pictures import load_picture, usual_shape

TARGETS = ("norm", "class")
COLORS = "inferno"  # ordered by lightness, so also for the colour-blind and in print
OPACITY = 0.55


def grad_cam(
    model: Network,
    images: Tensor,
    *,
    target: str = "norm",
    classes: Sequence[int] | None = None,
    layer: str | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Grad-CAM maps of images (HSGNet, Fig. 5), by the package grad-cam.

    The gradient is taken of one number for each image:

    - ``"norm"``: the length of the feature that evaluation gives. Retrieval compares these features, and test
      identities have no class, so this shows what the comparison is made of. Behind pooling it weighs every
      channel by its share in the feature.
    - ``"class"``: the output ``"logits"`` for a training identity, with batch norm as in evaluation; of
      several heads the sum.

    Args:
        model: from :func:`reid_models.create_model`, on any device; it is not changed.
        images: (N, 3, H, W), normalised as for evaluation.
        target: ``"norm"`` or ``"class"``.
        classes: for ``"class"``, one class number for each image; None takes the likeliest of each.
        layer: one of the model's :meth:`~reid_models.networks.Network.layers`, whose output is weighed:
            ``"stage1"`` to ``"stage4"`` of most; None: the last.
        batch_size: images at once, at least 1.

    Returns:
        float32 (N, H, W), each scaled to [0, 1]; all 0 where nothing speaks for the target.

    Raises:
        TypeError, ValueError: an argument is not as described, or the images are not what the model takes.

    Example:
        >>> maps = grad_cam(load_model("hsgnet.safetensors"), augmentation.evaluation(images_uint8))
    """
    op = "grad_cam"
    if not isinstance(model, Network):
        raise TypeError(f"{op}: model must be one of create_model, got {type(model).__name__}")
    if target not in TARGETS:
        raise unknown("target of Grad-CAM", target, TARGETS)
    name = _layer_name(model, layer)
    if batch_size < 1:
        raise ValueError(f"{op}: batch_size must be at least 1, got {batch_size}")
    if not isinstance(images, Tensor) or images.dim() != 4 or len(images) == 0:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{op}: images must be a tensor (N, 3, H, W) of at least one image, got {got}")
    _check_classes(classes, target, len(images), model.num_classes)
    # Here, not above: it brings scikit-learn and OpenCV along, which take seconds.
    from pytorch_grad_cam import GradCAM  # type: ignore[import-untyped]

    # A copy, since the package leaves gradients in the parameters and changes the mode.
    network = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(network.parameters()).device
    maps = []
    with GradCAM(_Scored(network, target), [network.layers()[name]], network.as_map) as cam:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].detach().to(device).requires_grad_()
            chosen = [None] * len(batch) if classes is None else classes[start : start + batch_size]
            maps.append(cam(batch, targets=[_target(target, number) for number in chosen]))
    return np.concatenate(maps).astype(np.float32)


def _layer_name(model: Network, layer: str | None) -> str:
    """The layer asked for, or the model's last."""
    known = list(model.layers())
    if not known:
        raise ValueError(f"grad_cam: model must have layers, {model.name} names none")
    if layer is not None and layer not in known:
        raise unknown(f"layer of {model.name}", layer, known)
    return known[-1] if layer is None else layer


class _Scored(nn.Module):
    """Evaluation features or, for classes, the logits of a network in evaluation mode."""

    def __init__(self, network: Network, target: str) -> None:
        super().__init__()
        self.network, self.logits = network, target == "class"

    def forward(self, images: Tensor) -> Tensor:
        """(N, D) or (N, num_classes); of several heads' logits the sum."""
        self.network.check_images(images)
        if not self.logits:
            return self.network.encode(images)
        logits = self.network.outputs(images)["logits"]
        return sum(logits[1:], start=logits[0]) if isinstance(logits, tuple) else logits


def _target(target: str, number: int | None) -> Callable[[Tensor], Tensor]:
    """The number that one image's features or logits are reduced to."""
    if target == "norm":
        return lambda feature: feature.norm()
    return lambda logits: logits.max() if number is None else logits[number]


def _check_classes(classes: Sequence[int] | None, target: str, count: int, known: int) -> None:
    if classes is None:
        return
    if target != "class":
        raise ValueError('grad_cam: classes must be None unless target is "class"')
    if len(classes) != count or not all(0 <= number < known for number in classes):
        raise ValueError(
            f"grad_cam: classes must be {count} numbers in [0, {known}), one for each image, "
            f"got {len(classes)}: {list(classes)[:8]}"
        )


def plot_cam_panels(
    pictures: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Panels of three rows (or as many as there are models): images, and maps of each model over them.

    Args:
        pictures: N images, uint8 (H, W, 3).
        maps: model -> (N, h, w) in [0, 1] from :func:`grad_cam`.
        labels: N texts over the columns.
        title: of the figure.

    Raises:
        ValueError: no pictures or maps, or numbers of them that disagree.

    Example:
        >>> figure = plot_cam_panels(pictures, {"baseline": maps, "HSGNet": other_maps})
    """
    op = "plot_cam_panels"
    if not len(pictures) or not maps:
        raise ValueError(f"{op}: pictures and maps must not be empty")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"{op}: labels must be {len(pictures)} texts, got {len(labels)}")
    for name, values in maps.items():
        if values.ndim != 3 or len(values) != len(pictures):
            raise ValueError(
                f"{op}: maps of {name!r} must have shape ({len(pictures)}, h, w), got {values.shape}"
            )
    shape = usual_shape(pictures)
    grid = style.PictureGrid(
        1 + len(maps), len(pictures), shape, title=title, cell=1.05, headings=labels is not None
    )
    grid.label(0, "image")
    for column, picture in enumerate(pictures):
        grid.cell(0, column, picture)
        if labels is not None:
            grid.heading(column, labels[column])
    for row, (name, values) in enumerate(maps.items(), start=1):
        grid.label(row, name)
        for column, picture in enumerate(pictures):
            axes: Any = grid.cell(row, column, picture)
            height, width = picture.shape[:2]
            axes.imshow(
                values[column],
                cmap=COLORS,
                vmin=0.0,
                vmax=1.0,
                alpha=OPACITY,
                interpolation="bilinear",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
    return grid.figure


def draw_cam(
    networks: Mapping[str, Trained],
    records: Sequence[ImageRecord],
    *,
    target: str = "norm",
    layer: str | None = None,
    device: str = "auto",
    title: str = "",
) -> Figure:
    """Grad-CAM panels of images: image, then a row for each network; see :func:`grad_cam`.

    Args:
        networks: name -> network.
        records: the images.
        target: as for :func:`grad_cam`.
        layer: likewise.
        device: ``"auto"``, ``"cpu"`` or a CUDA device.
        title: of the figure.
    """
    maps = {}
    for name, trained in networks.items():
        images = ImageDataset(records, size=trained.model.image_size)
        batch = torch.stack([images[index].image for index in range(len(images))])
        inputs = trained.extraction["augmentation"].evaluation(batch)
        model = trained.model.to(choose_device(device))
        maps[name] = grad_cam(model, inputs, target=target, layer=layer)
        model.to("cpu")
    labels = [f"id {record.who}" for record in records]
    return plot_cam_panels([load_picture(record) for record in records], maps, labels=labels, title=title)
