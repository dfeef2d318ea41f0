"""HENet: one trunk, a last stage for each branch, hierarchical features (section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...networks.backbone import Backbone, create_backbone
from ...networks.network import Network, Output
from ...networks.pretrained import Pretrained
from .decoder import Decoder, seed_of

GLOBAL_LENGTH, PARTIAL_LENGTH, RECOVERY_LENGTH = 512, 256, 512
STRIDE = 16  # of the branches' maps
SPLITS = ("layer3", "conv4_1")
POOLS = ("max", "avg")
HEADS = ("conv", "conv_bn", "conv_bn_relu")
IMPLEMENTATIONS = ("fused", "reference")


class HENet(Network):
    """Hierarchical and efficient network: global, partial and recovery branches.

    A shared trunk ends behind the third stage; every branch has a copy of the fourth, at stride 1. A branch
    b gives a global feature of 512 from its whole map and, for b > 1, b partial features of 256 from its
    horizontal bins; the recovery branch gives one of 512, from which a decoder rebuilds a small image in
    training. The features side by side are what retrieval keeps: P(1, 4) has 2048, with recovery 2560.

    Args:
        num_classes: training identities, at least 1.
        branches: the set P(b1, b2, ...), different numbers of bins that divide the map's height (24 for
            384 x 128): (1, 4) in the paper; () leaves the recovery branch alone.
        recovery: height and width of the rebuilt image, see :class:`Decoder`; None: no recovery branch.
        split: ``"layer3"``: behind the third stage; ``"conv4_1"``: behind its first block.
        global_stride: of branch 1's last stage: 1, or 2 for half the map.
        pool: ``"max"`` or ``"avg"``; the paper does not say.
        head: ``"conv"``, the 1x1 convolution alone as in Eqs. 2 and 4; ``"conv_bn"`` or ``"conv_bn_relu"``.
        backbone: a timm name whose stages are children of the network, see :func:`create_backbone`.
        pretrained: ImageNet weights for the backbone, or a file of them, in every copy.
        image_size: height and width.
        impl: as of every network; none of the package's operators is in this one.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives ``logits``, one (N, num_classes) for each
        feature; ``global`` (N, 512) for each branch and ``partial`` (N, 256) for each bin, as far as there
        are any; ``recovery`` (N, 512) and ``reconstruction`` (N, 3, h, w) with a recovery branch. Evaluation
        gives features (N, D): globals, partials, recovery.

    Raises:
        TypeError, ValueError: an option or the images are not as described.
        RuntimeError: the pretrained weights can't be fetched.

    Example:
        >>> model = create_model("henet", 751, branches=(1, 4), recovery=(16, 16)).eval()
        >>> model(torch.rand(2, 3, 384, 128)).shape
        torch.Size([2, 2560])
    """

    name: ClassVar[str] = "henet"

    def __init__(
        self,
        num_classes: int,
        *,
        branches: Sequence[int] = (1, 4),
        recovery: Sequence[int] | None = (16, 16),
        split: str = "layer3",
        global_stride: int = 1,
        pool: str = "max",
        head: str = "conv",
        backbone: str = "resnet50",
        pretrained: Pretrained = False,
        image_size: Sequence[int] = (384, 128),
        impl: str = "fused",
    ) -> None:
        super().__init__(num_classes, image_size)
        choices = {"split": SPLITS, "pool": POOLS, "head": HEADS, "impl": IMPLEMENTATIONS}
        for value, (argument, known) in zip((split, pool, head, impl), choices.items(), strict=True):
            if value not in known:
                raise ValueError(f"{self.name}: {argument} must be one of {', '.join(known)}, got {value!r}")
        if global_stride not in (1, 2):
            raise ValueError(f"{self.name}: global_stride must be 1 or 2, got {global_stride!r}")
        self.branches = tuple(branches)
        if recovery is not None:
            seed_of(recovery)
        self.recovery = None if recovery is None else (recovery[0], recovery[1])
        self._check_branches()
        self.pool, self.head = pool, head
        self.options |= {
            "branches": list(self.branches),
            "recovery": None if recovery is None else list(recovery),
            "split": split,
            "global_stride": global_stride,
            "pool": pool,
            "head": head,
            "backbone": backbone,
            "impl": impl,
        }
        self._make_stages(create_backbone(backbone, pretrained=pretrained), split, global_stride)
        self._make_heads()

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """Named outputs for the losses; see the class."""
        shared = self.trunk(images)
        whole, parts = self._hierarchy(shared)
        outputs: dict[str, Output] = {}
        features = [*whole, *parts]
        if whole:
            outputs["global"] = tuple(whole)
        if parts:
            outputs["partial"] = tuple(parts)
        if self.decoder is not None:
            code = self._recovered(shared)
            features.append(code)
            outputs |= {"recovery": code, "reconstruction": self.decoder(code)}
        logits = [classify(feature) for classify, feature in zip(self.classifier, features, strict=True)]
        return {"logits": tuple(logits), **outputs}

    def encode(self, images: Tensor) -> Tensor:
        """Features (N, feature_length): globals, partials, recovery."""
        shared = self.trunk(images)
        whole, parts = self._hierarchy(shared)
        last = [] if self.decoder is None else [self._recovered(shared)]
        return torch.cat([*whole, *parts, *last], dim=1)

    def layers(self) -> dict[str, nn.Module]:
        """The trunk, then the branches: ``"trunk"``, ``"branch1"``, ``"branch4"``, ``"recovery"``."""
        return {"trunk": self.trunk, **dict(self.stages.items())}

    def classifiers(self) -> tuple[str, ...]:
        """One for each feature."""
        return ("classifier",)

    def test_parameters(self) -> Iterator[nn.Parameter]:
        """Weights that evaluation needs: all but the decoder's and the classifiers'."""
        unused = ("decoder.", "classifier.")
        return (p for name, p in self.named_parameters() if not name.startswith(unused))

    def _hierarchy(self, shared: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Global features of every branch, then the partial ones (Eqs. 1 and 2)."""
        whole, parts = [], []
        for bins in self.branches:
            features = self.stages[f"branch{bins}"](shared)
            whole.append(self._head(f"global{bins}", self._pooled(features, 1)))
            if bins > 1:
                pooled = self._pooled(features, bins).unbind(2)
                parts += [self._head(f"part{bins}_{j}", part) for j, part in enumerate(pooled, start=1)]
        return whole, parts

    def _recovered(self, shared: Tensor) -> Tensor:
        """The recovery feature (Eqs. 3 and 4)."""
        return self._head("recovery", self._pooled(self.stages["recovery"](shared), 1))

    def _pooled(self, features: Tensor, bins: int) -> Tensor:
        """(N, C, h, w) to (N, C, bins), or (N, C, 1) of the whole map."""
        height = features.shape[2]
        if height % bins:
            raise ValueError(f"{self.name}: branches must divide the map's height {height}, got {bins}")
        rows = features.unflatten(2, (bins, height // bins))
        pooled: Tensor = rows.amax((3, 4)) if self.pool == "max" else rows.mean((3, 4))
        return pooled

    def _head(self, name: str, pooled: Tensor) -> Tensor:
        """A pooled vector (N, C) or (N, C, 1) through its 1x1 convolution."""
        feature: Tensor = self.heads[name](pooled.reshape(*pooled.shape[:2], 1, 1)).flatten(1)
        return feature

    def _check_branches(self) -> None:
        for bins in self.branches:
            self.check_count(bins, "branches")
        if len(set(self.branches)) != len(self.branches):
            raise ValueError(f"{self.name}: branches must be different, got {self.branches}")
        if not self.branches and self.recovery is None:
            raise ValueError(f"{self.name}: branches must have one at least without recovery, got none")
        height = -(-self.image_size[0] // STRIDE)
        for bins in self.branches:
            if height % bins:
                raise ValueError(
                    f"{self.name}: branches must divide the map's height, {height} for images of "
                    f"{self.image_size}, got {bins}"
                )

    def _make_stages(self, backbone: Backbone, split: str, global_stride: int) -> None:
        """The trunk, and each branch's own copy of what comes behind it."""
        trunk, last = _cut(backbone, split)
        self.trunk = trunk
        self.stages = nn.ModuleDict({f"branch{bins}": copy.deepcopy(last) for bins in self.branches})
        if global_stride == 2 and 1 in self.branches:
            wide = create_backbone(self.options["backbone"], last_stride=2)
            wide.load_state_dict(backbone.state_dict())
            self.stages["branch1"] = _cut(wide, split)[1]
        if self.recovery is not None:
            self.stages["recovery"] = copy.deepcopy(last)
        self._channels = backbone.channels[-1]

    def _make_heads(self) -> None:
        lengths = {f"global{bins}": GLOBAL_LENGTH for bins in self.branches}
        for bins in self.branches:
            if bins > 1:
                lengths |= {f"part{bins}_{j}": PARTIAL_LENGTH for j in range(1, bins + 1)}
        self.decoder: Decoder | None = None
        if self.recovery is not None:
            lengths["recovery"] = RECOVERY_LENGTH
            self.decoder = Decoder(RECOVERY_LENGTH, self.recovery)
        self.heads = nn.ModuleDict({name: self._make_head(length) for name, length in lengths.items()})
        linear = [nn.Linear(length, self.num_classes) for length in lengths.values()]
        self.classifier = nn.ModuleList(linear)
        for classify in linear:
            nn.init.normal_(classify.weight, std=0.001)
            nn.init.zeros_(classify.bias)
        self.feature_length = sum(lengths.values())

    def _make_head(self, length: int) -> nn.Sequential:
        convolution = nn.Conv2d(self._channels, length, 1, bias=self.head == "conv")
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        layers: list[nn.Module] = [convolution]
        if self.head != "conv":
            layers.append(nn.BatchNorm2d(length))
        if self.head == "conv_bn_relu":
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)


def _cut(backbone: Backbone, split: str) -> tuple[nn.Sequential, nn.Sequential]:
    """A backbone's layers up to the split, and those behind it."""
    children = dict(backbone.body.named_children())
    third, fourth = backbone.layers[-2:]
    if third not in children or fourth not in children:
        raise ValueError(
            "henet: backbone must have its stages as children of the network, as ResNets do; "
            f"this one has {third} and {fourth} deeper"
        )
    names = list(children)
    before = [children[name] for name in names[: names.index(third) + 1]]
    behind = [children[name] for name in names[names.index(third) + 1 : names.index(fourth) + 1]]
    if split == "conv4_1":
        stage = before.pop()
        if not isinstance(stage, nn.Sequential) or len(stage) < 2:
            raise ValueError(
                f'henet: split must be "layer3": the stage {third} of this backbone has no blocks'
            )
        before.append(stage[0])
        behind = [*stage[1:], *behind]
    return nn.Sequential(*before), nn.Sequential(*behind)
