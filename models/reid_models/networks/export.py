"""Feature extractors as ONNX files."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .._output import replacing
from .network import Network
from .onnx_file import OnnxNetwork
from .registry import model_name

OPSET = 18
INPUT, OUTPUT = "images", "features"


def export_onnx(
    model: Network, path: str | os.PathLike[str], *, images: Mapping[str, Any] | None = None
) -> None:
    """Writes the feature extractor as one ONNX file, in float32, for batches of any size.

    ONNX has no operators for fused kernels: the file has their references in their place, whose results agree
    to rounding. The model itself is left as it is. An older file is replaced once the new one is whole.

    Args:
        model: from :func:`create_model` or :func:`load_model`, on any device and in any mode.
        path: the file; its folder must exist.
        images: how images are made for it, kept in the file: ``mean``, ``std``, ``channels``,
            ``interpolation``; None: not known.

    The file has one input, ``images`` (N, 3, H, W), normalised floats of the model's ``image_size``, and one
    output, ``features`` (N, D), as the model gives them in evaluation; its metadata has ``model``, a JSON
    object of ``name`` and ``options``, and ``images``, one of what is known of them.

    Raises:
        TypeError: not such a model.
        ValueError: the model is of an ONNX file already.
        FileNotFoundError: no such folder.
        ModuleNotFoundError: the extra ``onnx`` is not installed.

    Example:
        >>> export_onnx(load_model("hsgnet.safetensors"), "hsgnet.onnx")
        >>> session = onnxruntime.InferenceSession("hsgnet.onnx")
        >>> features = session.run(None, {"images": images.numpy()})[0]
    """
    if not isinstance(model, Network):
        raise TypeError(f"export_onnx: model must be one of create_model, got {type(model).__name__}")
    if isinstance(model, OnnxNetwork):
        raise ValueError("export_onnx: model must not be of an ONNX file already")
    with replacing(path) as unfinished:
        extractor = _extractor(model)
        # Two, because torch.export takes a size of one for a constant.
        sample = torch.zeros(2, 3, *model.image_size)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its inner workings
            program = torch.onnx.export(
                extractor, (sample,), input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), dynamo=True, verbose=False,
            )  # fmt: skip
        assert program is not None
        program.model.metadata_props["model"] = json.dumps(
            {"name": model_name(model), "options": model.options}
        )
        if images:
            program.model.metadata_props["images"] = json.dumps(dict(images))
        program.save(unfinished, external_data=False)


def _extractor(model: Network) -> nn.Module:
    """A copy of the model that ONNX can express."""
    extractor = copy.deepcopy(model).cpu().float().eval()
    extractor.to(memory_format=torch.contiguous_format)
    extractor.use_reference()
    return extractor
