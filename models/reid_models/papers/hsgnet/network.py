"""HSGNet: trunk, hierarchical similarity graph modules behind its stages, and the baseline's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from reid_ops import HSGM

from ..._suggest import unknown
from ...networks.backbone import STAGES, create_backbone
from ...networks.heads import CBRHead
from ...networks.network import Network, Output

#: Rows of Tables III and IV as options of HSGM. Table III's ``baseline`` row is the model of that name.
HSGNET_VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {},
        "wo_ssg_csg": {"spatial": False, "channel": False},
        "wo_hier": {"levels": (1,)},
        "wo_res": {"residual": False},
        "wo_ssg": {"spatial": False},
        "wo_csg": {"channel": False},
        "hsgnet1": {"scales": (1, 1, 1)},
        "hsgnet2": {"scales": (2, 2, 2)},
        "hsgnet3": {"scales": (3, 3, 3)},
    }
)


class HSGNet(Network):
    """Hierarchical similarity graph network: :class:`reid_ops.HSGM` behind stages of a backbone.

    Args:
        num_classes: training identities, at least 1.
        variant: a row of Table III or IV: ``"full"``; without spatial graph, channel graph or both
            (``"wo_ssg"``, ``"wo_csg"``, ``"wo_ssg_csg"``), hierarchy (``"wo_hier"``) or residual
            (``"wo_res"``); sampling sizes 1,1,1 / 2,2,2 / 3,3,3 (``"hsgnet1"`` to ``"hsgnet3"``).
        stages: the stages that a module stands behind: (3,) in the paper; Figs. 6 and 7 compare 1 to 4.
        impl: ``"fused"`` kernels or the ``"reference"`` in PyTorch. Results agree to rounding.
        hsgm: more options of :class:`reid_ops.HSGM`, over those of the variant.
        backbone: a timm name, see :func:`create_backbone`.
        pretrained: ImageNet weights for the backbone.
        image_size: height and width: (256, 256) for vehicles, (256, 128) for persons. Images must have it:
            HSGM has a weight for every pixel.
        last_stride: 1 or 2, see :func:`create_backbone`.
        cbr_width: as for :class:`CBRHead`, like ``test_feature`` and ``triplet_feature``.
        test_feature: ``"gmp"`` or ``"cbr"``.
        triplet_feature: ``"gmp"`` or ``"cbr"``.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives ``{"logits": (N, num_classes), "features":
        (N, D)}``, evaluation features (N, D), as they come (cosine similarity is taken later).

    Raises:
        TypeError, ValueError: an option or the images are not as described; as :class:`reid_ops.HSGM`.
        RuntimeError: the pretrained weights can't be fetched.

    Example:
        >>> model = create_model("hsgnet", num_classes=576)
        >>> outputs = model(torch.rand(4, 3, 256, 256))
        >>> outputs["logits"].shape, outputs["features"].shape
        (torch.Size([4, 576]), torch.Size([4, 2048]))
    """

    name: ClassVar[str] = "hsgnet"
    fixed_size = True

    def __init__(
        self,
        num_classes: int,
        *,
        variant: str = "full",
        stages: Sequence[int] = (3,),
        impl: str = "fused",
        hsgm: Mapping[str, Any] | None = None,
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
        places, given = _checked_stages(stages), _module_options(variant, hsgm)
        self.options |= {"variant": variant, "stages": places, "impl": impl, "hsgm": given}
        self.options |= {"backbone": backbone, "last_stride": last_stride, "cbr_width": cbr_width}
        self.options |= {"test_feature": test_feature, "triplet_feature": triplet_feature}
        self.backbone = create_backbone(backbone, pretrained=pretrained, last_stride=last_stride)
        # The head before the modules: that is the order in which the seed's random numbers are drawn.
        self.head = CBRHead(
            self.backbone.channels[-1], num_classes, width=cbr_width, test_feature=test_feature,
            triplet_feature=triplet_feature, owner=self.name,
        )  # fmt: skip
        for stage in sorted(places):
            HSGM.insert_after(
                self.backbone.body, self.backbone.layers[stage - 1], self.image_size,
                **{**HSGNET_VARIANTS[variant], **given, "impl": impl},
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


def _checked_stages(stages: Sequence[int]) -> list[int]:
    if not stages or len(set(stages)) != len(stages) or not set(stages) <= set(STAGES):
        raise ValueError(f"hsgnet: stages must be different numbers of 1, 2, 3, 4, got {tuple(stages)}")
    return list(stages)


def _module_options(variant: str, hsgm: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of HSGM that go over those of the variant, which must be known."""
    if variant not in HSGNET_VARIANTS:
        raise unknown("variant of hsgnet", variant, HSGNET_VARIANTS)
    if "impl" in (hsgm or {}):
        raise ValueError("hsgnet: impl is an option of its own, not one in hsgm")
    # JSON, from which saved options come back, has no tuples.
    return {key: tuple(v) if isinstance(v, list) else v for key, v in (hsgm or {}).items()}
