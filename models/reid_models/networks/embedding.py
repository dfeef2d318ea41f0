"""Any timm network for re-identification: pooled features, and for training a neck and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .network import Network, Output
from .pooling import PooledBackbone
from .pretrained import Pretrained

FEATURES = ("pooled", "neck")


class Embedding(Network):
    """Pooled features of a timm network; in training with a batch norm ("BNNeck") and a classifier behind.

    Before training the features are those of ImageNet's weights alone. The neck is that of "Bag of Tricks and
    a Strong Baseline for Deep Person Re-identification" (Luo et al., 2019): triplet loss before it,
    classifier behind.

    Args:
        num_classes: training identities.
        backbone: any timm name: convolutional, ViT, Swin, ...
        pretrained: True for ImageNet weights, a file of them, or False; see
            :func:`reid_models.networks.pretrained.create_timm`.
        image_size: height and width; None: the network's own.
        pool: ``"own"``, ``"gap"``, ``"gmp"`` or ``"gem"``, see :class:`PooledBackbone`.
        test_feature: what evaluation gives: ``"pooled"`` or, behind the batch norm, ``"neck"``.
        freeze_batch_norm: keep the backbone's batch norms as they are, statistics and weights: sets too small
            for statistics of their own.
        classifier: False: no neck and no classifier; nothing of it depends on the training identities.

    Attributes:
        mean, std, interpolation: of the backbone's images, as timm says.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives ``{"logits": (N, num_classes), "features":
        (N, D)}``, without a classifier the features alone; evaluation features (N, D).

    Raises:
        TypeError, ValueError, FileNotFoundError, RuntimeError: an option is not as described; as
            :class:`PooledBackbone`.

    Example:
        >>> model = create_model("embedding", 12, backbone="vit_tiny_patch16_224", image_size=(224, 224))
        >>> model.eval()(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 192])
    """

    name: ClassVar[str] = "embedding"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: Pretrained = False,
        image_size: Sequence[int] | None = None,
        pool: str = "own",
        test_feature: str = "pooled",
        freeze_batch_norm: bool = False,
        classifier: bool = True,
    ) -> None:
        if test_feature not in FEATURES:
            raise ValueError(f'{self.name}: test_feature must be "pooled" or "neck", got {test_feature!r}')
        if test_feature == "neck" and not classifier:
            raise ValueError(f'{self.name}: test_feature must be "pooled" without a classifier, got "neck"')
        # Sizes are checked before anything is made of them.
        super().__init__(num_classes, (1, 1) if image_size is None else image_size)
        trunk = PooledBackbone(backbone, pretrained=pretrained, pool=pool, image_size=image_size)
        self.image_size, self.fixed_size = trunk.image_size, trunk.fixed_size
        self.mean, self.std, self.interpolation = trunk.mean, trunk.std, trunk.interpolation
        self.options |= {"image_size": list(self.image_size), "backbone": backbone, "pool": pool}
        self.options |= {"test_feature": test_feature, "freeze_batch_norm": freeze_batch_norm}
        self.options |= {"classifier": classifier}
        self.test_feature, self.freeze_batch_norm = test_feature, freeze_batch_norm
        self.backbone = trunk
        self.feature_length = trunk.feature_length
        self.neck: nn.BatchNorm1d | None = None
        self.classifier: nn.Linear | None = None
        if classifier:
            self.neck = nn.BatchNorm1d(self.feature_length)
            self.classifier = nn.Linear(self.feature_length, num_classes, bias=False)
            nn.init.normal_(self.classifier.weight, std=0.001)
        if freeze_batch_norm:
            for module in self._norms():
                module.requires_grad_(False)
        self.train(self.training)

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """Logits (N, num_classes), where there is a classifier, and features (N, D) before the neck."""
        features: Tensor = self.backbone(images)
        if self.neck is None or self.classifier is None:
            return {"features": features}
        return {"logits": self.classifier(self.neck(features)), "features": features}

    def encode(self, images: Tensor) -> Tensor:
        """The test feature (N, feature_length)."""
        features: Tensor = self.backbone(images)
        return features if self.neck is None or self.test_feature == "pooled" else self.neck(features)

    def layers(self) -> dict[str, nn.Module]:
        """The backbone's stages or blocks."""
        return self.backbone.layers()

    def as_map(self, output: Tensor) -> Tensor:
        """A layer's output as a map (N, C, h, w): tokens and channels-last maps are brought to it."""
        return self.backbone.as_map(output)

    def classifiers(self) -> tuple[str, ...]:
        """The identity classifier."""
        return () if self.classifier is None else ("classifier",)

    def train(self, mode: bool = True) -> Embedding:
        """As of every module, but batch norms that are frozen stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self._norms():
                module.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        """The backbone's batch norms."""
        kind = torch.nn.modules.batchnorm._BatchNorm
        return [module for module in self.backbone.modules() if isinstance(module, kind)]
