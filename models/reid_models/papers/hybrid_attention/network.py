"""Hybrid attention with multiple-resolution features: stages, attention, windows, heads (section III)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ops import reference, stripe_pool

from ..._suggest import unknown
from ...networks.backbone import STAGES, create_backbone
from ...networks.network import Network, Output
from ...networks.pretrained import Pretrained
from .attention import FORMS, ChannelAttention, SpatialAttention
from .heads import Embedded, WindowHeads

STEPS = ("S", "cat", "C")
HEADS = ("separate", "shared")
IMPLEMENTATIONS = ("fused", "reference")
TRIPLET_LEVELS = ("level", "window")
FEATURES = ("pre_bn", "post_bn")
REDUCTION = 16  # of the maps that are concatenated, with a last stride of 1


class HybridAttention(Network):
    """ResNet's stages, spatial and channel attention, windows of all granularities, a head for each window.

    The default is the paper's network. Every row of its Tables VI to X is options alone: the plain baseline
    is ``stages=(4,), order=("cat",), multi_granularity=False, multi_pool=False``.

    Args:
        num_classes: training identities.
        backbone: a timm name of four stages, see :func:`reid_models.networks.create_backbone`.
        pretrained: ImageNet weights for the backbone, or a file of them.
        image_size: height and width, (384, 128) in the paper.
        stages: which of the stages 1 to 4 are fused (FMR, section III-A): brought to the last one's size by
            max-pooling and concatenated. Stages behind the last of them are not computed.
        order: steps in the order of application (Table IX): ``"S"`` spatial attention, ``"C"`` channel
            attention, at most once each, and ``"cat"``, the concatenation, exactly once. Attention before it
            is one for each stage.
        windows: stripes k of the multi-granularity operation (MGO, III-C), a divisor of the map's height;
            there are k(k+1)/2 windows.
        multi_granularity: False: the whole map is the one window.
        multi_pool: maximum and mean of each window (MPFE, III-D); False: means alone.
        heads: ``"separate"``, or ``"shared"``: one for all windows, but for its classifier.
        triplets: outputs for the triplet loss (Eq. 5): ``"level"``, the features of a level's windows as one,
            M = 6; ``"window"``, each by itself, M = 21.
        triplet_feature: ``"pre_bn"`` as the text has it, ``"post_bn"`` as the authors' code.
        test_feature: likewise of :meth:`encode`.
        channel_form: ``"cbam"`` or ``"printed"``, see :class:`ChannelAttention`.
        channel_ratio, spatial_kernel: of the attention modules.
        reduced_width, feature_width: of the heads; 256 and 512 in the authors' code.
        negative_slope: of the heads' ReLU, 0 in the text, 0.1 in the authors' code.
        impl: ``"fused"`` reads the fused map once for channel attention and all windows, by
            :func:`reid_ops.stripe_pool`; ``"reference"`` takes step by step as written. They agree to
            rounding.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives ``{"logits": 21 tensors (N, num_classes),
        "features": 6 tensors (N, 512 p), p = 1 to 6 windows}``; evaluation the windows' features side by
        side, (N, 10752).

    Raises:
        TypeError, ValueError: an option or the images are not as described.
        RuntimeError: the pretrained weights can't be fetched.

    Example:
        >>> model = create_model("hybrid_attention", 751)
        >>> outputs = model(torch.rand(4, 3, 384, 128))
        >>> len(outputs["logits"]), [feature.shape[1] for feature in outputs["features"]]
        (21, [512, 1024, 1536, 2048, 2560, 3072])
        >>> model.eval()(torch.rand(4, 3, 384, 128)).shape
        torch.Size([4, 10752])
    """

    name: ClassVar[str] = "hybrid_attention"
    spatial: nn.ModuleList  # one for each map that it is applied to; only where order has its step
    channel: nn.ModuleList

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: Pretrained = False,
        image_size: Sequence[int] = (384, 128),
        stages: Sequence[int] = STAGES,
        order: Sequence[str] = ("S", "cat", "C"),
        windows: int = 6,
        multi_granularity: bool = True,
        multi_pool: bool = True,
        heads: str = "separate",
        triplets: str = "level",
        triplet_feature: str = "pre_bn",
        test_feature: str = "post_bn",
        channel_form: str = "cbam",
        channel_ratio: int = 16,
        spatial_kernel: int = 7,
        reduced_width: int = 256,
        feature_width: int = 512,
        negative_slope: float = 0.0,
        impl: str = "fused",
    ) -> None:
        super().__init__(num_classes, image_size)
        self.stages, self.order = self._checked_stages(stages), self._checked_order(order)
        given = {"windows": windows, "channel_ratio": channel_ratio, "spatial_kernel": spatial_kernel}
        for argument, value in {
            **given, "reduced_width": reduced_width, "feature_width": feature_width,
        }.items():  # fmt: skip
            self.check_count(value, argument)
        chosen = {
            "heads": (heads, HEADS), "triplets": (triplets, TRIPLET_LEVELS), "impl": (impl, IMPLEMENTATIONS),
            "triplet_feature": (triplet_feature, FEATURES), "test_feature": (test_feature, FEATURES),
            "channel_form": (channel_form, FORMS),
        }  # fmt: skip
        for argument, (choice, known) in chosen.items():
            if choice not in known:
                raise unknown(f"{argument} of {self.name}", choice, known)
        for argument, flag in (("multi_granularity", multi_granularity), ("multi_pool", multi_pool)):
            if not isinstance(flag, bool):
                raise TypeError(f"{self.name}: {argument} must be a bool, got {type(flag).__name__}")
        if spatial_kernel % 2 == 0:
            raise ValueError(f"{self.name}: spatial_kernel must be odd, got {spatial_kernel}")
        if not 0 <= negative_slope < 1:
            raise ValueError(f"{self.name}: negative_slope must be in [0, 1), got {negative_slope}")
        self.windows = windows if multi_granularity else 1
        self._check_height()
        self.impl = impl
        self.multi_pool, self.triplets = multi_pool, triplets
        self.triplet_feature, self.test_feature = triplet_feature, test_feature
        self.options |= {
            "backbone": backbone, "stages": list(self.stages), "order": list(self.order), **given,
            "multi_granularity": multi_granularity, "multi_pool": multi_pool, "heads": heads,
            "triplets": triplets, "triplet_feature": triplet_feature, "test_feature": test_feature,
            "channel_form": channel_form, "reduced_width": reduced_width, "feature_width": feature_width,
            "negative_slope": negative_slope, "impl": impl,
        }  # fmt: skip

        self.backbone = create_backbone(backbone, pretrained=pretrained)
        _cut_behind(self.backbone.body, self.backbone.layers[self.stages[-1] - 1])
        widths = [self.backbone.channels[stage - 1] for stage in self.stages]
        place = self.order.index("cat")
        for step, name in (("S", "spatial"), ("C", "channel")):
            if step in self.order:
                before = self.order.index(step) < place
                modules = [
                    SpatialAttention(spatial_kernel)
                    if step == "S"
                    else ChannelAttention(width, channel_ratio, channel_form)
                    for width in (widths if before else [sum(widths)])
                ]
                self.add_module(name, nn.ModuleList(modules))
        count = self.windows * (self.windows + 1) // 2
        self.heads = WindowHeads(
            count, sum(widths) * (2 if multi_pool else 1), num_classes, shared=heads == "shared",
            reduced=reduced_width, width=feature_width, negative_slope=negative_slope,
        )  # fmt: skip
        self.feature_length = count * feature_width

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """``"logits"``: (N, num_classes) a window; ``"features"``: (N, D) a level, or a window."""
        embedded = self._embed(images)
        logits = self.heads.classifier(embedded.post_bn)
        features = self._chosen(embedded, self.triplet_feature)
        groups = [1] * features.shape[1] if self.triplets == "window" else range(1, self.windows + 1)
        return {
            "logits": logits.unbind(1),
            "features": tuple(group.flatten(1) for group in features.split(list(groups), 1)),
        }

    def encode(self, images: Tensor) -> Tensor:
        """The test feature (N, feature_length): of all windows, widest first."""
        return self._chosen(self._embed(images), self.test_feature).flatten(1)

    def layers(self) -> dict[str, nn.Module]:
        """The trunk's stages as far as they are computed."""
        named = zip(STAGES, self.backbone.layers, strict=True)
        body = self.backbone.body
        return {f"stage{n}": body.get_submodule(name) for n, name in named if n <= self.stages[-1]}

    def classifiers(self) -> tuple[str, ...]:
        """The heads' identity classifiers."""
        return ("heads.classifier",)

    def describe(self, images: Tensor) -> Tensor:
        """What the heads see of the windows (N, W, 2, C): maximum and mean of every channel."""
        maps = self._stage_maps(images)
        if self.impl == "fused" and self.order[-1] == "C":
            maps = self._attend(maps, self.order[:-1])
            return self._pooled_with_channel_attention(maps[0])
        return self._pool(self._attend(maps, self.order)[0])

    def _embed(self, images: Tensor) -> Embedded:
        described = self.describe(images)
        embedded: Embedded = self.heads(described.flatten(2) if self.multi_pool else described[:, :, 1])
        return embedded

    def _stage_maps(self, images: Tensor) -> list[Tensor]:
        found = self.backbone.body(images)
        first = (
            len(found) - self.stages[-1]
        )  # of stage 1; what a trunk gives before its stages is passed over
        return [found[first + stage - 1] for stage in self.stages]

    def _attend(self, maps: list[Tensor], order: Sequence[str]) -> list[Tensor]:
        """The maps after the steps, literally."""
        for step in order:
            if step == "cat":
                maps = [self._concatenated(maps)]
            elif step == "S":
                maps = [attention(x) * x for attention, x in zip(self.spatial, maps, strict=True)]
            else:
                maps = [self._channel_factor(i, x)[:, :, None, None] * x for i, x in enumerate(maps)]
        return maps

    def _channel_factor(self, index: int, x: Tensor) -> Tensor:
        """From one read of the map (N, C, H, W), the factors (N, C)."""
        pool = stripe_pool if self.impl == "fused" else reference.stripe_pool
        factor: Tensor = self.channel[index](*(described[:, 0] for described in pool(x, 1)))
        return factor

    def _pool(self, x: Tensor) -> Tensor:
        pool = stripe_pool if self.impl == "fused" else reference.stripe_pool
        return pool(x, self.windows, stacked=True)  # type: ignore[return-value, operator]

    def _pooled_with_channel_attention(self, x: Tensor) -> Tensor:
        """The windows of the map that channel attention would give, without making it.

        The factors are positive, so they commute with maximum and mean; and what they are computed from, the
        whole map's maximum and mean, is the first window. So the map is read once.
        """
        described = self._pool(x)
        maximum, mean = described[:, 0].unbind(1)
        factor: Tensor = self.channel[0](maximum, mean)
        return described * factor[:, None, None]

    def _concatenated(self, maps: list[Tensor]) -> Tensor:
        """Multiple-resolution features (FMR): stages at the last one's size, side by side."""
        _, _, height, width = maps[0].shape
        # Of stage 4, and of stage 3, wherever the trunk ends.
        scale = 2 ** max(0, 3 - self.stages[0])
        size = (-(-height // scale), -(-width // scale))
        return torch.cat([_max_pooled(x, size) for x in maps], 1)

    def _chosen(self, embedded: Embedded, feature: str) -> Tensor:
        return embedded.pre_bn if feature == "pre_bn" else embedded.post_bn

    def _checked_stages(self, stages: Sequence[int]) -> tuple[int, ...]:
        found = tuple(stages)
        if not found or len(set(found)) != len(found) or not set(found) <= set(STAGES):
            raise ValueError(f"{self.name}: stages must be different numbers of 1, 2, 3, 4, got {found}")
        return tuple(sorted(found))

    def _checked_order(self, order: Sequence[str]) -> tuple[str, ...]:
        found = (order,) if isinstance(order, str) else tuple(order)
        for step in found:
            if step not in STEPS:
                raise unknown(f"step in order of {self.name}", step, STEPS)
        if found.count("cat") != 1 or len(set(found)) != len(found):
            raise ValueError(
                f'{self.name}: order must have "cat" exactly once, "S" and "C" at most once, got {found}'
            )
        return found

    def _check_height(self) -> None:
        rows = -(-self.image_size[0] // REDUCTION)
        if rows % self.windows:
            raise ValueError(
                f"{self.name}: windows must divide the map's height, {rows} for images of "
                f"{self.image_size[0]}x{self.image_size[1]}, got {self.windows}"
            )


def _max_pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map at a smaller size, a divisor of its own where images have whole numbers of last pixels."""
    height, width = x.shape[2:]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return F.max_pool2d(x, (height // size[0], width // size[1]))
    return F.adaptive_max_pool2d(x, size)


def _cut_behind(body: nn.Module, layer: str) -> None:
    """Takes the layers behind a stage out of a timm trunk that is a list of layers."""
    if not isinstance(body, nn.ModuleDict):
        return
    names = list(body)
    for name in names[names.index(layer.split(".")[0]) + 1 :]:
        del body[name]
