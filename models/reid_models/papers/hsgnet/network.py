"""HSGNet: the baseline with hierarchical similarity graph modules behind its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from reid_ops import HSGM

from ..._suggest import unknown
from ...networks.backbone import STAGES
from ...networks.baseline import Baseline

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


class HSGNet(Baseline):
    """Hierarchical similarity graph network: :class:`reid_ops.HSGM` behind stages of a backbone.

    Args:
        num_classes: training identities.
        variant: a row of Table III or IV: ``"full"``; without spatial graph, channel graph or both
            (``"wo_ssg"``, ``"wo_csg"``, ``"wo_ssg_csg"``), hierarchy (``"wo_hier"``) or residual
            (``"wo_res"``); sampling sizes 1,1,1 / 2,2,2 / 3,3,3 (``"hsgnet1"`` to ``"hsgnet3"``).
        stages: the stages that a module stands behind: (3,) in the paper; Figs. 6 and 7 compare 1 to 4.
        impl: ``"fused"`` kernels or the ``"reference"`` in PyTorch. Results agree to rounding.
        hsgm: more options of :class:`reid_ops.HSGM`, over those of the variant.
        **options: of :class:`Baseline`. Images must have ``image_size``: HSGM has a weight for every pixel.

    Shape:
        as :class:`Baseline`.

    Raises:
        TypeError, ValueError, RuntimeError: as :class:`Baseline` and :class:`reid_ops.HSGM`.

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
        **options: Any,
    ) -> None:
        if variant not in HSGNET_VARIANTS:
            raise unknown("variant of hsgnet", variant, HSGNET_VARIANTS)
        stages = tuple(stages)
        if not stages or len(set(stages)) != len(stages) or not set(stages) <= set(STAGES):
            raise ValueError(f"{self.name}: stages must be different numbers of 1, 2, 3, 4, got {stages}")
        # JSON, from which saved options come back, has no tuples.
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in (hsgm or {}).items()}
        if "impl" in given:
            raise ValueError(f"{self.name}: impl is an option of its own, not one in hsgm")
        super().__init__(num_classes, **options)
        self.options |= {"variant": variant, "stages": list(stages), "impl": impl, "hsgm": given}
        for stage in sorted(stages):
            HSGM.insert_after(
                self.backbone.body,
                self.backbone.layers[stage - 1],
                self.image_size,
                **{**HSGNET_VARIANTS[variant], **given, "impl": impl},
            )
