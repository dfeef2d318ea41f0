"""A feature extractor in an ONNX file, run by onnxruntime: whoever trained it, in whatever."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .network import Network, Output

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the first that onnxruntime has


class OnnxNetwork(Network):
    """The features that an ONNX file gives. It can't be trained, saved or exported.

    Args:
        path: the file, of :func:`reid_models.networks.export_onnx` or of another program: one input of
            images (N, 3, H, W), whose first output, or the one called ``features``, has a row an image.
            Where its N is a fixed number, batches are cut and filled up to it.
        image_size: height and width, for files that leave them open; None: as the file says.

    Attributes:
        images: how images are made for it, where the file says so: ``mean``, ``std``, ``channels``,
            ``interpolation``; empty where it does not.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: the extra ``onnx`` is not installed.
        ValueError: the file is damaged, no such extractor, or leaves the images' size open.

    Example:
        >>> OnnxNetwork("hsgnet.onnx")(torch.rand(2, 3, 256, 128)).shape
        torch.Size([2, 512])
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, path: str | os.PathLike[str], *, image_size: Sequence[int] | None = None) -> None:
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"onnx: must be followed by a file, got {file}")
        session = _open(file)
        (given,), described = _images_of(session, file), _described(session)
        size = _size(given.shape, described.get("image_size") or image_size, file)
        super().__init__(1, size)
        self.fixed_size = all(isinstance(length, int) for length in given.shape[2:])
        # The digest stands for the weights, which are no parameters here: other weights, other features.
        self.options |= {"onnx": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()}
        self.images = {key: value for key, value in described.items() if key != "image_size"}
        self._session, self._input, self._type = session, given.name, TYPES[given.type]
        self._batch = given.shape[0] if isinstance(given.shape[0], int) else None
        names = [output.name for output in session.get_outputs()]
        self._output = "features" if "features" in names else names[0]
        self.feature_length = self._run(np.zeros((self._batch or 1, 3, *size), self._type)).shape[1]

    def outputs(self, images: Tensor, **inputs: Any) -> Mapping[str, Output]:
        """Refused: an ONNX file can't be trained."""
        raise ValueError("onnx: a network from an ONNX file can't be trained")

    def encode(self, images: Tensor) -> Tensor:
        """The file's features (N, D), float32, on the images' device."""
        if torch.is_autocast_enabled(images.device.type):
            raise ValueError("onnx: autocast must be off: a network from an ONNX file has its own precision")
        values = images.detach().cpu().numpy().astype(self._type, copy=False)
        parts = [values] if self._batch is None else self._cut(values, self._batch)
        found = np.concatenate([self._run(part) for part in parts])[: len(images)]
        return torch.from_numpy(found.astype(np.float32, copy=False)).to(images.device)

    def _cut(self, images: np.ndarray, size: int) -> list[np.ndarray]:
        """Batches of exactly that many; the last is filled up with its first image."""
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        missing = size - len(parts[-1])
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][:1], missing, axis=0)])
        return parts

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            (found,) = self._session.run([self._output], {self._input: np.ascontiguousarray(images)})
        except Exception as error:  # onnxruntime's own kinds, which derive from Exception alone
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"onnx: the file can't run on images {images.shape} ({reason})") from error
        values = np.asarray(found)
        if values.ndim < 2 or len(values) != len(images):
            raise ValueError(
                f"onnx: the output {self._output} must have a row for each of {len(images)} images, got "
                f"{values.shape}"
            )
        return values.reshape(len(values), -1)


def _open(file: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'onnx:FILE needs the package onnxruntime: pip install "reid-ops[onnx]"', name="onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors, which are raised as well
    available = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=[provider for provider in PROVIDERS if provider in available]
        )
    except Exception as error:  # of a damaged file: its own kinds, which derive from Exception alone
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"onnx: {file} is damaged or not an ONNX file ({reason})") from error


def _images_of(session: Any, file: Path) -> list[Any]:
    """The session's one input, of images."""
    inputs = session.get_inputs()
    fits = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].type in TYPES
    if not fits or (isinstance(inputs[0].shape[1], int) and inputs[0].shape[1] != 3):
        got = ", ".join(f"{given.name} {given.type} {given.shape}" for given in inputs)
        raise ValueError(f"onnx: {file} must have one input, images (N, 3, H, W) in floats, got {got}")
    return [inputs[0]]


def _described(session: Any) -> dict[str, Any]:
    """What :func:`export_onnx` says of images: their size and how they are normalised."""
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        images = json.loads(metadata.get("images", "{}"))
        options = json.loads(metadata.get("model", "{}")).get("options") or {}
    except (json.JSONDecodeError, AttributeError):  # another program's, of the same name
        return {}
    size = options.get("image_size")
    return {**images, **({"image_size": size} if size else {})}


def _size(shape: Sequence[Any], known: Sequence[int] | None, file: Path) -> tuple[int, int]:
    height, width = shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    if known is None:
        raise ValueError(
            f"onnx: {file} leaves the size of its images open, {list(shape)}: say it in a recipe.yaml beside "
            "it, `data: {image_size: [HEIGHT, WIDTH]}`"
        )
    return int(known[0]), int(known[1])
