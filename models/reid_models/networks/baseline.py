"""HSGNet's baseline: trunk, global max pooling, CBR and classifier (section III-A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from .backbone import STAGES, create_backbone
from .network import Network, Output

FEATURES = ("gmp", "cbr")


class Baseline(Network):
    """HSGNet's trunk and head without HSGM ("baseline" in Tables I to III and V).

    Backbone of stages S1 to S4 with last stride 1, global max pooling (GMP), CBR (1x1 convolution, batch
    norm, ReLU) and a linear classifier without bias (Eq. 13: W^T X).

    Args:
        num_classes: training identities, at least 1.
        backbone: a timm name, see :func:`create_backbone`.
        pretrained: ImageNet weights for the backbone.
        image_size: height and width of the images: (256, 256) for vehicles, (256, 128) for persons. The
            baseline takes other sizes as well.
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
        >>> model = create_model("baseline", num_classes=576, backbone="resnet18").eval()
        >>> model(torch.rand(2, 3, 256, 256)).shape
        torch.Size([2, 512])
    """

    name: ClassVar[str] = "baseline"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: bool = False,
        image_size: Sequence[int] = (256, 256),
        last_stride: int = 1,
        cbr_width: int = 256,
        test_feature: str = "gmp",
        triplet_feature: str = "gmp",
    ) -> None:
        super().__init__(num_classes, image_size)
        self.check_count(cbr_width, "cbr_width")
        for argument, feature in (("test_feature", test_feature), ("triplet_feature", triplet_feature)):
            if feature not in FEATURES:
                raise ValueError(f'{self.name}: {argument} must be "gmp" or "cbr", got {feature!r}')
        self.test_feature, self.triplet_feature = test_feature, triplet_feature
        self.options |= {
            "backbone": backbone,
            "last_stride": last_stride,
            "cbr_width": cbr_width,
            "test_feature": test_feature,
            "triplet_feature": triplet_feature,
        }
        self.backbone = create_backbone(backbone, pretrained=pretrained, last_stride=last_stride)
        channels = self.backbone.channels[-1]
        convolution = nn.Conv2d(channels, cbr_width, 1, bias=False)
        self.cbr = nn.Sequential(convolution, nn.BatchNorm2d(cbr_width), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(cbr_width, num_classes, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.001)
        self.feature_length = channels if test_feature == "gmp" else cbr_width

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """Logits (N, num_classes) and, for the triplet loss, features (N, D)."""
        gmp = self._pooled(images)
        cbr = self._reduce(gmp)
        return {
            "logits": self.classifier(cbr),
            "features": gmp if self.triplet_feature == "gmp" else cbr,
        }

    def encode(self, images: Tensor) -> Tensor:
        """The test feature (N, feature_length)."""
        gmp = self._pooled(images)
        return gmp if self.test_feature == "gmp" else self._reduce(gmp)

    def layers(self) -> dict[str, nn.Module]:
        """The trunk's stages, ``"stage1"`` to ``"stage4"``."""
        body, names = self.backbone.body, self.backbone.layers
        return {f"stage{stage}": body.get_submodule(name) for stage, name in zip(STAGES, names, strict=True)}

    def classifiers(self) -> tuple[str, ...]:
        """The identity classifier."""
        return ("classifier",)

    def _pooled(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.backbone(images).amax(dim=(2, 3))
        return pooled

    def _reduce(self, gmp: Tensor) -> Tensor:
        reduced: Tensor = self.cbr(gmp[:, :, None, None]).flatten(1)
        return reduced
