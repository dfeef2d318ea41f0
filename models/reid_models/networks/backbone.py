"""Trunks of the networks: convolutional timm models with four stages S1 to S4."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .pretrained import Pretrained, create_timm

STAGES = (1, 2, 3, 4)
STRIDED = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)


class Backbone(nn.Module):
    """A timm model's stages; see :func:`create_backbone`.

    Attributes:
        body: timm's feature extractor, with timm's state-dict keys.
        channels: of the features behind S1 to S4.
        layers: dotted names, in ``body``, of the layers that S1 to S4 end with.
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], layers: Sequence[str]) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(channels)
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to features behind S4, (N, C, H/16, W/16); with ``last_stride=2`` a 32nd."""
        features: Tensor = self.body(images)[-1]
        return features

    def stages(self) -> dict[str, nn.Module]:
        """What S1 to S4 end with, as ``"stage1"`` to ``"stage4"``."""
        return {
            f"stage{n}": self.body.get_submodule(name) for n, name in zip(STAGES, self.layers, strict=True)
        }


def create_backbone(
    name: str = "resnet50", *, pretrained: Pretrained = False, last_stride: int = 1
) -> Backbone:
    """A trunk of four stages from any convolutional timm model.

    Args:
        name: timm's name: ``"resnet50"``, ``"seresnet50"`` and ``"res2net50_26w_4s"`` in HSGNet's Table V.
        pretrained: True for timm's ImageNet weights, from its cache or downloaded, or a file of them, see
            :func:`reid_models.networks.pretrained.create_timm`.
        last_stride: 1 takes the down-sampling before S4 away by setting strides to 1 ("last stride = 1"; no
            dilation, and no weight changes its shape); 2 leaves the network as timm has it.

    Raises:
        ValueError: timm has no such model, it has no four convolutional stages, its last stride can't be set
            to 1, or ``last_stride`` is neither 1 nor 2; a file is damaged or of another network.
        FileNotFoundError: no such file.
        RuntimeError: the weights asked for do not exist or can't be fetched.

    Example:
        >>> create_backbone("resnet50")(torch.rand(1, 3, 256, 128)).shape
        torch.Size([1, 2048, 16, 8])
    """
    if last_stride not in (1, 2):
        raise ValueError(f"create_backbone: last_stride must be 1 or 2, got {last_stride!r}")
    body = create_timm(name, pretrained, owner="create_backbone", features_only=True)
    info = body.feature_info.info[-len(STAGES) :]  # type: ignore[union-attr, index]
    reductions = [stage["reduction"] for stage in info]
    if len(info) < len(STAGES) or any(b != 2 * a for a, b in pairwise(reductions)):
        raise ValueError(
            f"create_backbone: name must be a network of four stages, each half the size of the one before; "
            f"{name} has features at 1/{', 1/'.join(map(str, reductions))}"
        )
    layers = [_layer_name(body, stage["module"]) for stage in info]
    if last_stride == 1:
        _remove_stride(body, layers[-2])
    backbone = Backbone(body, [stage["num_chs"] for stage in info], layers)
    _check_features(backbone, name, reductions[-1] // (2 if last_stride == 1 else 1))
    return backbone


def _layer_name(body: nn.Module, module: str) -> str:
    """The layer's name in the feature extractor, which may have flattened ``stages.0`` to ``stages_0``."""
    names = dict(body.named_modules())
    return module if module in names else module.replace(".", "_")


def _remove_stride(body: nn.Module, stage: str) -> None:
    """Sets every stride 2 behind ``stage`` to 1; a pooling of 2x2 that only down-samples goes."""
    behind = False
    for name, module in list(body.named_modules()):
        if name == stage or name.startswith(f"{stage}."):
            behind = True
        elif not behind or not isinstance(module, STRIDED) or not _twos(module.stride):
            continue
        elif isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif _twos(module.kernel_size):
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, nn.Identity())
        else:
            module.stride = 1


def _twos(value: int | tuple[int, ...] | None) -> bool:
    return value == 2 or value == (2, 2)


@torch.no_grad()
def _check_features(backbone: Backbone, name: str, reduction: int) -> None:
    """Runs one small image through, so that a network that does not fit says so when it is made."""
    size = 128
    training = {module: module.training for module in backbone.modules()}
    parameter = next(backbone.parameters())
    try:
        shape = tuple(backbone.eval()(parameter.new_zeros(1, 3, size, size)).shape)
    except Exception as error:
        raise ValueError(f"create_backbone: {name} can't run on images of {size}x{size} ({error})") from error
    finally:
        for module, mode in training.items():
            module.training = mode
    expected = (1, backbone.channels[-1], size // reduction, size // reduction)
    if shape != expected:
        raise ValueError(
            f"create_backbone: {name} must give features {expected} for images of {size}x{size}, got "
            f"{shape}; its last stride may be one that can't be changed: pass last_stride=2"
        )
