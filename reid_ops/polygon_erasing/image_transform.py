"""What makes an erasing module a torchvision ``transforms.v2`` transform, without needing torchvision.

torchvision is imported only where an input comes from it or from PIL.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

PIL_MODES = ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")  # that torchvision takes both ways


def require_torchvision(what: str) -> Any:
    """``torchvision.transforms.v2.functional``; an error that says what needs it where it is missing."""
    try:
        from torchvision.transforms.v2 import functional
    except ImportError as error:
        raise ImportError(
            f"{what} needs torchvision, which is not usable here ({error}); install the torchvision that "
            "belongs to the installed torch, or pass tensors"
        ) from error
    return functional


def _class_of(module: str, name: str) -> type | tuple[()]:
    """A class of an optional package, or a class of nothing while that package is not imported."""
    loaded = sys.modules.get(module)
    return getattr(loaded, name) if loaded is not None else ()


class ImageTransform(nn.Module):
    """Calls :meth:`transform` on every image of a sample, as torchvision's own v2 transforms do.

    A sample is anything: nested tuples, lists and dicts. Its images are the ``tv_tensors.Image``,
    ``tv_tensors.Video`` and PIL images, or, when it has none of these, its first plain tensor. Everything
    else (labels, boxes, masks) passes through. Shapes are ``(..., C, H, W)``; leading dimensions are a
    batch whose images are drawn one by one, except that all frames of a ``tv_tensors.Video``
    ``(..., T, C, H, W)`` are drawn as one. All images of one sample get the same draw.
    """

    inplace = False  # :meth:`transform` changes what it is given

    def forward(self, *inputs: Any) -> Any:
        """The sample with its images transformed; same structure, types and shapes."""
        if not inputs:
            raise TypeError(f"{type(self).__name__}: at least one input must be given, got none")
        sample = inputs if len(inputs) > 1 else inputs[0]
        leaves, structure = _pytree.tree_flatten(sample)
        chosen = self._images_of(leaves)
        if not chosen:
            raise TypeError(
                f"{type(self).__name__}: the sample must hold a tensor, tv_tensor or PIL image, "
                f"got {', '.join(sorted({type(leaf).__name__ for leaf in leaves})) or 'nothing'}"
            )
        draw = self.begin(leaves[chosen[0]])
        for index in chosen:
            leaves[index] = self._transform_leaf(leaves[index], draw)
        return _pytree.tree_unflatten(leaves, structure)

    def begin(self, image: Any) -> Any:
        """Random numbers for one sample, handed to :meth:`transform`."""
        raise NotImplementedError

    def transform(self, images: Tensor, draw: Any) -> Tensor:
        """One batch ``(N, C, H, W)``."""
        raise NotImplementedError

    @staticmethod
    def _images_of(leaves: list[Any]) -> list[int]:
        kinds = (
            _class_of("torchvision.tv_tensors", "Image"),
            _class_of("torchvision.tv_tensors", "Video"),
            _class_of("PIL.Image", "Image"),
        )
        other = _class_of("torchvision.tv_tensors", "TVTensor")
        # Plain loops: torch 2.11 can't compile a condition in a generator expression.
        images, plain = [], []
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, kinds):
                images.append(index)
            elif isinstance(leaf, Tensor) and not isinstance(leaf, other):
                plain.append(index)
        return images or plain[:1]

    @staticmethod
    def count_images(image: Any) -> int:
        """How many images are drawn one by one for this leaf."""
        if not isinstance(image, Tensor):
            return 1
        is_video = isinstance(image, _class_of("torchvision.tv_tensors", "Video"))
        return image.shape[: -4 if is_video else -3].numel()

    def _transform_leaf(self, image: Any, draw: Any) -> Any:
        if not isinstance(image, Tensor):
            functional = require_torchvision(f"{type(self).__name__} on a PIL image")
            if image.mode not in PIL_MODES:
                raise TypeError(
                    f"{type(self).__name__}: PIL images must have one of the modes {', '.join(PIL_MODES)}, "
                    f"got {image.mode}"
                )
            changed = self._transform_tensor(functional.pil_to_tensor(image), draw)
            return functional.to_pil_image(changed, mode=image.mode)
        kind = _class_of("torchvision.tv_tensors", "TVTensor")
        if not isinstance(image, kind):
            return self._transform_tensor(image, draw)
        plain = image.as_subclass(torch.Tensor)
        if isinstance(image, _class_of("torchvision.tv_tensors", "Video")) and plain.numel() > 0:
            frames = [self._transform_tensor(frame, draw) for frame in plain.unbind(-4)]
            changed = plain if self.inplace else torch.stack(frames, -4)
        else:
            changed = self._transform_tensor(plain, draw)
        return image if self.inplace else sys.modules["torchvision.tv_tensors"].wrap(changed, like=image)

    def _transform_tensor(self, image: Tensor, draw: Any) -> Tensor:
        if image.dim() < 3:
            raise ValueError(
                f"{type(self).__name__}: images must have shape (..., C, H, W), got {tuple(image.shape)}"
            )
        if image.dim() == 4:
            return self.transform(image, draw)
        shape = (image.shape[:-3].numel(), *image.shape[-3:])
        if not self.inplace:
            return self.transform(image.reshape(shape), draw).view(image.shape)
        try:
            batch = image.view(shape)
        except RuntimeError:
            raise ValueError(
                f"{type(self).__name__}: images must have leading dimensions that are one in memory with "
                f"inplace=True, got strides {image.stride()} for shape {tuple(image.shape)}"
            ) from None
        self.transform(batch, draw)
        return image
