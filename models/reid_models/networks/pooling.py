"""Pooled features of any timm network: convolutional ones, and those of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .pretrained import Pretrained, create_timm, data_configuration

POOLS = ("own", "gap", "gmp", "gem")
GEM_POWER = 3.0  # p of generalised-mean pooling, as its authors start from
GEM_LEAST = 1e-6
ATTENTION = ("AttentionPool2d", "AttentionPoolLatent", "RotAttentionPool2d", "AttentionPoolPrr")


class PooledBackbone(nn.Module):
    """A timm network whose features are one vector an image, pooled before the classifier.

    Args:
        name: timm's name; four stages are not needed.
        pretrained: see :func:`reid_models.networks.pretrained.create_timm`.
        pool: ``"own"``: as the network itself pools (mean, class token, attention); ``"gap"``, ``"gmp"`` or
            ``"gem"``: the mean, the maximum or the generalised mean with p = 3 (of values above 0) over all
            places, without class and register tokens. What the network has behind its pooling follows; behind
            an attention pooling nothing does.
        image_size: height and width; None: the network's own.

    Attributes:
        body: timm's network, with timm's state-dict keys.
        image_size, mean, std, interpolation: of its images, as timm's data configuration says.
        fixed_size: whether images must have ``image_size``.
        feature_length: D.

    Shape:
        normalised images (N, 3, H, W) to (N, D).

    Raises:
        TypeError, ValueError, FileNotFoundError, RuntimeError: as there; another pool; the network has no
            features that can be pooled.

    Example:
        >>> PooledBackbone("vit_tiny_patch16_224", pool="gem").eval()(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 192])
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: Pretrained = False,
        pool: str = "own",
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        owner = "PooledBackbone"
        if pool not in POOLS:
            raise ValueError(f"{owner}: pool must be one of {', '.join(POOLS)}, got {pool!r}")
        fixed = _has_fixed_size(name)
        sized: dict[str, Any] = {"img_size": tuple(image_size)} if fixed and image_size is not None else {}
        body = create_timm(name, pretrained, owner=owner, **sized)
        if not (hasattr(body, "forward_features") and hasattr(body, "forward_head")):
            raise ValueError(f"{owner}: {name} must have features before a head, as most of timm's have")
        known = data_configuration(body)
        height, width = image_size or known["input_size"][1:]
        self.body, self.pool, self.fixed_size = body, pool, fixed
        self.image_size = (int(height), int(width))
        self.mean, self.std = tuple(known["mean"]), tuple(known["std"])
        self.interpolation = known["interpolation"]
        attends = any(type(module).__name__ in ATTENTION for module in body.modules())
        self._head = pool == "own" or not attends
        length = body.head_hidden_size if self._head else body.num_features
        self.feature_length = int(length)  # type: ignore[arg-type]
        if fixed and image_size is not None:
            self._check_size(name)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D)."""
        features = self.body.forward_features(images)  # type: ignore[operator]
        if self.pool == "own":
            return self._behind(features)
        places = self._places(features)
        pooled = _pool(places, self.pool)
        if not self._head:
            return pooled
        # As the features of an image of one place: any pooling leaves it as it is.
        if features.dim() == 3:
            # Class and register tokens as well: whichever the head takes, it takes the pooled one.
            count = 1 + self._prefix(features.shape[1])
            return self._behind(pooled[:, None].expand(-1, count, -1))
        return self._behind(pooled[:, None, None, :] if self._channels_last else pooled[:, :, None, None])

    def layers(self) -> dict[str, nn.Module]:
        """What stages end with, from ``"stage1"``; of one resolution: blocks, from ``"block1"``."""
        described = list(getattr(self.body, "feature_info", None) or ())
        names = [stage["module"] for stage in described]
        present = dict(self.body.named_modules())
        found = [present[name] for name in names if name in present]
        if found and len({stage["reduction"] for stage in described}) == 1:
            # Behind the last block only the class token may count: what goes into it does in any case.
            return {f"block{n}": getattr(block, "norm1", block) for n, block in enumerate(found, start=1)}
        return {f"stage{n}": layer for n, layer in enumerate(found[-4:], start=1)}

    def as_map(self, output: Tensor) -> Tensor:
        """A layer's output as a map (N, C, h, w)."""
        if output.dim() == 3:
            tokens = output[:, self._prefix(output.shape[1]) :]
            height, width = self._grid(tokens.shape[1])
            return tokens.transpose(1, 2).unflatten(2, (height, width))
        return output.permute(0, 3, 1, 2) if self._channels_last else output

    @torch.no_grad()
    def _check_size(self, name: str) -> None:
        """One image of the size asked for: networks of tokens or windows do not take any."""
        height, width = self.image_size
        parameter = next(self.body.parameters())
        training = {module: module.training for module in self.body.modules()}
        try:
            self.body.eval().forward_features(parameter.new_zeros(1, 3, height, width))  # type: ignore[operator]
        except Exception as error:  # timm's own checks are assertions, and not all
            reason = " ".join(str(error).split())
            raise ValueError(f"{name} can't take images of {height}x{width} ({reason})") from error
        finally:
            for module, mode in training.items():
                module.training = mode

    def _behind(self, features: Tensor) -> Tensor:
        """The network's own pooling and what follows it, (N, D)."""
        given: Tensor = self.body.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return given.flatten(1)

    def _places(self, features: Tensor) -> Tensor:
        """Features as (N, C, places)."""
        if not isinstance(features, Tensor) or features.dim() not in (3, 4):
            raise ValueError(f'pool must be "own" for a network that has several maps, got {self.pool!r}')
        if features.dim() == 3:
            return features[:, self._prefix(features.shape[1]) :].transpose(1, 2)
        return (features.permute(0, 3, 1, 2) if self._channels_last else features).flatten(2)

    def _prefix(self, count: int) -> int:
        """How many of so many tokens, the first, are no places of the image: class and register tokens."""
        known = getattr(self.body, "num_prefix_tokens", None)
        if known is not None:
            return int(known)
        reduction = self.body.feature_info[-1]["reduction"]  # type: ignore[union-attr, index]
        height, width = self.image_size
        return int(max(0, count - (height // reduction) * (width // reduction)))

    @property
    def _channels_last(self) -> bool:
        return str(getattr(self.body, "output_fmt", "NCHW")).upper().endswith("NHWC")

    def _grid(self, places: int) -> tuple[int, int]:
        """Rows and columns of so many tokens."""
        height, width = self.image_size
        rows = max(1, round((places * height / width) ** 0.5))
        if rows * (places // rows) != places:
            raise ValueError(f"PooledBackbone: {places} tokens are no grid of an image of {height}x{width}")
        return rows, places // rows


def _pool(places: Tensor, kind: str) -> Tensor:
    """(N, C, places) to (N, C)."""
    if kind == "gmp":
        return places.amax(2)
    if kind == "gap":
        return places.mean(2)
    return places.clamp(min=GEM_LEAST).pow(GEM_POWER).mean(2).pow(1 / GEM_POWER)


def _has_fixed_size(name: str) -> bool:
    import timm

    known = timm.get_pretrained_cfg(name) if isinstance(name, str) else None
    return bool(known is not None and known.fixed_input_size)
