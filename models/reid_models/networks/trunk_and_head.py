"""What networks of one trunk and HSGNet's head share: :class:`TrunkAndHead`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .backbone import create_backbone
from .heads import CBRHead
from .network import Network, Output
from .pretrained import Pretrained


class TrunkAndHead(Network):
    """Stages S1 to S4 of a backbone, then :class:`CBRHead`: the base of ``baseline`` and ``hsgnet``.

    A network derived from it passes these arguments on and changes :attr:`backbone` afterwards.

    Args:
        num_classes: training identities, at least 1.
        backbone: a timm name, see :func:`create_backbone`.
        pretrained: ImageNet weights for the backbone, or a file of them.
        image_size: height and width of the images: (256, 256) for vehicles, (256, 128) for persons.
        last_stride: 1 or 2, see :func:`create_backbone`.
        cbr_width: channels of the CBR; the paper does not say how many.
        test_feature: what evaluation gives: ``"gmp"`` (2048 long for the paper's backbones) or ``"cbr"``.
        triplet_feature: what the triplet loss sees: ``"gmp"`` or ``"cbr"``.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives ``{"logits": (N, num_classes), "features":
        (N, D)}``, evaluation features (N, D), as they come (cosine similarity is taken later).

    Raises:
        TypeError, ValueError: an option or the images are not as described.
        RuntimeError: the pretrained weights can't be fetched.

    Example:
        >>> class Plain(TrunkAndHead):
        ...     name = "plain"
        >>> Plain(576, backbone="resnet18").eval()(torch.rand(2, 3, 256, 256)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: Pretrained = False,
        image_size: Sequence[int] = (256, 256),
        last_stride: int = 1,
        cbr_width: int = 256,
        test_feature: str = "gmp",
        triplet_feature: str = "gmp",
    ) -> None:
        super().__init__(num_classes, image_size)
        self.check_count(cbr_width, "cbr_width")
        self.options |= {"backbone": backbone, "last_stride": last_stride, "cbr_width": cbr_width}
        self.options |= {"test_feature": test_feature, "triplet_feature": triplet_feature}
        self.backbone = create_backbone(backbone, pretrained=pretrained, last_stride=last_stride)
        self.head = CBRHead(
            self.backbone.channels[-1], num_classes, width=cbr_width, test_feature=test_feature,
            triplet_feature=triplet_feature, owner=self.name,
        )  # fmt: skip
        self.feature_length = self.head.feature_length

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """Logits (N, num_classes) and, for the triplet loss, features (N, D)."""
        outputs: dict[str, Output] = self.head(self.backbone(images))
        return outputs

    def encode(self, images: Tensor) -> Tensor:
        """The test feature (N, feature_length)."""
        return self.head.encode(self.backbone(images))

    def layers(self) -> dict[str, nn.Module]:
        """The trunk's stages with what stands behind them, ``"stage1"`` to ``"stage4"``."""
        return self.backbone.stages()

    def classifiers(self) -> tuple[str, ...]:
        """The head's identity classifier."""
        return ("head.classifier",)
