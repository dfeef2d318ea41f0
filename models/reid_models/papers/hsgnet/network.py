"""HSGNet: trunk, hierarchical similarity graph modules behind its stages, and the baseline's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from reid_ops import HSGM

from ..._suggest import unknown
from ...networks.backbone import STAGES
from ...networks.trunk_and_head import TrunkAndHead

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


class HSGNet(TrunkAndHead):
    """Hierarchical similarity graph network: :class:`reid_ops.HSGM` behind stages of a backbone.

    Args:
        num_classes: training identities, at least 1.
        variant: a row of Table III or IV: ``"full"``; without spatial graph, channel graph or both
            (``"wo_ssg"``, ``"wo_csg"``, ``"wo_ssg_csg"``), hierarchy (``"wo_hier"``) or residual
            (``"wo_res"``); sampling sizes 1,1,1 / 2,2,2 / 3,3,3 (``"hsgnet1"`` to ``"hsgnet3"``).
        stages: the stages that a module stands behind: (3,) in the paper; Figs. 6 and 7 compare 1 to 4.
        impl: ``"fused"`` kernels or the ``"reference"`` in PyTorch. Results agree to rounding.
        hsgm: more options of :class:`reid_ops.HSGM`, over those of the variant.
        **trunk_and_head: options of :class:`TrunkAndHead`. Images must have ``image_size``: HSGM has a weight
            for every pixel.

    Shape:
        as :class:`TrunkAndHead`.

    Raises:
        TypeError, ValueError, RuntimeError: as there; as :class:`reid_ops.HSGM`.

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
        **trunk_and_head: Any,
    ) -> None:
        places, given = _checked_stages(stages), _module_options(variant, hsgm)
        # The head before the modules: that is the order in which the seed's random numbers are drawn.
        super().__init__(num_classes, **trunk_and_head)
        self.options |= {"variant": variant, "stages": places, "impl": impl, "hsgm": given}
        for stage in sorted(places):
            HSGM.insert_after(
                self.backbone.body, self.backbone.layers[stage - 1], self.image_size,
                **{**HSGNET_VARIANTS[variant], **given, "impl": impl},
            )  # fmt: skip


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
