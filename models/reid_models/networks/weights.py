"""Networks on disk: one safetensors file with the weights and, in its header, how to make the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .._output import replacing
from .network import Network
from .onnx_file import OnnxNetwork
from .registry import create_model, model_name

FORMAT = "reid_models 3"
SHOWN = 3  # names in an error message
MOST_PIXELS = 1 << 22  # of the images that a file's network may ask for: 64 of them are 800 MB


def save_model(model: Network, path: str | os.PathLike[str]) -> None:
    """Writes weights, buffers and options to a safetensors file.

    An older file is replaced once the new one is complete.

    Args:
        model: from :func:`create_model`; also on a GPU, in channels-last.
        path: the file; its folder must exist.

    Raises:
        TypeError: not such a model, or one of an ONNX file, whose weights are in that file alone.
        OSError: the file can't be written.

    Example:
        >>> save_model(model, "hsgnet.safetensors")
        >>> features = load_model("hsgnet.safetensors").eval()(images)
    """
    if not isinstance(model, Network) or isinstance(model, OnnxNetwork):
        raise TypeError(f"save_model: model must be one of create_model, got {type(model).__name__}")
    description = json.dumps(
        {"name": model_name(model), "num_classes": model.num_classes, "options": model.options}
    )
    tensors = {key: tensor.detach().contiguous() for key, tensor in model.state_dict().items()}
    with replacing(path, "save_model: path") as unfinished:
        digest = _digest(description, tensors)
        content = save(tensors, {"format": FORMAT, "model": description, "digest": digest})
        # Not by save_file, which writes to a hidden file of its own first: that one stays if it is killed.
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def load_model(path: str | os.PathLike[str], *, impl: str | None = None) -> Network:
    """The network that :func:`save_model` wrote, in training mode, on the CPU.

    No code is read from the file. It may name a network of one's own, ``package.module:Class``: that module
    is imported from where Python looks for modules.

    Args:
        path: a file from :func:`save_model`.
        impl: ``"fused"`` or ``"reference"`` for models that have this option; None keeps the saved one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, not from :func:`save_model`, or its weights do not fit its options.

    Example:
        >>> model = load_model("hsgnet.safetensors").eval()
    """
    tensors, description = _read(Path(path), "load_model")
    try:
        name, num_classes, options = (description[key] for key in ("name", "num_classes", "options"))
        if impl is not None and "impl" in options:
            options = {**options, "impl": impl}
        if "pretrained" in options:
            raise ValueError("options must not have pretrained")  # a file must not make anyone download
        # First without memory: a small file may claim millions of classes.
        with torch.device("meta"):
            claimed = create_model(name, num_classes, **options)
        height, width = claimed.image_size
        if height * width > MOST_PIXELS:  # a batch of its images would take all memory
            raise ValueError(f"image_size must have at most {MOST_PIXELS} pixels, got {height} x {width}")
        _check_fit(claimed, tensors, Path(path), "load_model")
        model = create_model(name, num_classes, **options)
    except _UnfitError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:  # sizes beyond all numbers, too
        raise ValueError(f"load_model: {path} does not describe a model ({error})") from error
    _fill(model, tensors, Path(path), "load_model")
    return model


def load_weights(model: Network, path: str | os.PathLike[str], *, classifier: bool = True) -> None:
    """Copies weights from a file of :func:`save_model` into a network of the same architecture.

    Args:
        model: the network, on any device.
        path: the file.
        classifier: False leaves the network's classifiers (:meth:`Network.classifiers`) as they are, for
            training on other identities.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds weights of another architecture; the model is unchanged.

    Example:
        >>> model = create_model("hsgnet", num_classes=200)
        >>> load_weights(model, "hsgnet_veri.safetensors", classifier=False)
    """
    tensors, _ = _read(Path(path), "load_weights")
    if not classifier:
        own = tuple(f"{name}." for name in model.classifiers())
        kept = {key: value for key, value in model.state_dict().items() if key.startswith(own)}
        tensors = {key: value for key, value in tensors.items() if not key.startswith(own)} | kept
    _fill(model, tensors, Path(path), "load_weights")


def _read(path: Path, function: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{function}: path must be a file, got {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{function}: {path} is damaged or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        got = metadata.get("format")
        raise ValueError(f"{function}: {path} must be a file of save_model ({FORMAT!r}), got {got!r}")
    if metadata.get("digest") != _digest(metadata.get("model", ""), tensors):
        raise ValueError(f"{function}: {path} is damaged: its checksum is another")
    try:
        description = json.loads(metadata.get("model", ""))
    except json.JSONDecodeError as error:
        raise ValueError(f"{function}: {path} has a damaged description ({error})") from error
    if not isinstance(description, dict):
        raise ValueError(f"{function}: {path} has a damaged description")
    return tensors, description


class _UnfitError(ValueError):
    """The weights are those of another architecture."""


def _digest(description: str, tensors: Mapping[str, Tensor]) -> str:
    """32 hexadecimal digits of all that a file says."""
    digest = hashlib.blake2b(description.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fill(model: Network, tensors: dict[str, Tensor], path: Path, function: str) -> None:
    """All tensors or none: names and shapes are compared first."""
    _check_fit(model, tensors, path, function)
    with torch.no_grad():
        model.load_state_dict(tensors)


def _check_fit(model: Network, tensors: Mapping[str, Tensor], path: Path, function: str) -> None:
    expected = model.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in tensors]
    problems += [f"{key} is not in the model" for key in tensors if key not in expected]
    problems += [
        f"{key} must have shape {tuple(expected[key].shape)}, got {tuple(tensor.shape)}"
        for key, tensor in tensors.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    if problems:
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise _UnfitError(
            f"{function}: {path} holds weights of another architecture than this {model.name}: "
            f"{'; '.join(problems[:SHOWN])}{more}"
        )
