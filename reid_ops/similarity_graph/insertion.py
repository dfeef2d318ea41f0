"""Putting a module behind a layer of a model: what the layer gives, found by running the model up to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .plan import OP


class _Found(Exception):
    """Carries a layer's output size out of a model's forward pass."""


def insert_after(
    kind: Any, model: nn.Module, name: str, image_size: tuple[int, int], options: dict[str, Any]
) -> Any:
    """:meth:`reid_ops.HSGM.insert_after`; ``kind`` is the class."""
    layers = dict(model.named_modules())
    if not name or name not in layers:
        raise ValueError(f"{OP}: model has no layer {name!r}")
    layer = layers[name]
    if "hsgm" in layer._modules:
        raise ValueError(f"{OP}: layer {name!r} has a module hsgm already")
    size = output_size(model, layer, name, image_size)
    layout = options.pop("layout", None) or layout_of(model, layer, name, image_size, size)
    channels, height, width = (size[2], *size[:2]) if layout == "NHWC" else size
    module = kind(channels, height, width, layout=layout, **options)
    first = next(model.parameters(), None)
    if first is not None:
        module.to(device=first.device, dtype=first.dtype if first.is_floating_point() else None)
    module.train(layer.training)
    if type(layer).forward is nn.Sequential.forward:  # which runs whatever is appended
        layer.add_module("hsgm", module)
    else:
        parent, _, child = name.rpartition(".")
        setattr(layers[parent], child, nn.Sequential(OrderedDict(body=layer, hsgm=module)))
    return module


def output_size(
    model: nn.Module, layer: nn.Module, name: str, image_size: Sequence[int]
) -> tuple[int, int, int]:
    """The last three dimensions of a layer's output for one image of that size."""

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        raise _Found(tuple(output.shape[1:]) if isinstance(output, Tensor) and output.dim() == 4 else None)

    first = next(model.parameters(), torch.empty(()))
    modes = {module: module.training for module in model.modules()}
    handle = layer.register_forward_hook(stop)
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, *image_size, dtype=first.dtype, device=first.device))
    except _Found as found:
        if found.args[0] is None:
            raise ValueError(f"{OP}: layer {name!r} does not give features (N, C, H, W)") from None
        return found.args[0]  # type: ignore[no-any-return]
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training
    raise ValueError(f"{OP}: the model does not run its layer {name!r}")


def layout_of(
    model: nn.Module, layer: nn.Module, name: str, image_size: Sequence[int], size: Sequence[int]
) -> str:
    """``"NCHW"`` or, for stages as Swin's, ``"NHWC"``.

    The dimensions that have the image's proportions are height and width; where that does not decide, those
    that grow with the image.
    """
    planes_first, planes_last = (_is_like(size[k : k + 2], image_size) for k in (1, 0))
    if planes_first == planes_last:
        try:
            larger = output_size(model, layer, name, [2 * side for side in image_size])
        except Exception as error:
            raise ValueError(
                f"{OP}: layer {name!r} gives {tuple(size)}, which may be (C, H, W) or (H, W, C); "
                'say layout="NCHW" or layout="NHWC"'
            ) from error
        planes_first, planes_last = larger[0] == size[0], larger[2] == size[2]
    return "NHWC" if planes_last and not planes_first else "NCHW"


def _is_like(size: Sequence[int], image_size: Sequence[int]) -> bool:
    """Whether a map of this size, by a pixel more or less, is the image made smaller."""
    (height, width), (image_height, image_width) = size, image_size
    smaller = height <= image_height and width <= image_width
    return smaller and abs(height * image_width - width * image_height) <= max(image_size)
