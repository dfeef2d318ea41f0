"""HSGNet's baseline: trunk, global max pooling, CBR and classifier (section III-A)."""

from __future__ import annotations

from typing import ClassVar

from .trunk_and_head import TrunkAndHead


class Baseline(TrunkAndHead):
    """:class:`TrunkAndHead` with nothing between ("baseline" in Tables I to III and V).

    Args:
        num_classes: training identities, at least 1.
        **trunk_and_head: options of :class:`TrunkAndHead`. The baseline takes images of other sizes than
            ``image_size`` as well.

    Shape:
        as :class:`TrunkAndHead`.

    Raises:
        TypeError, ValueError, RuntimeError: as there.

    Example:
        >>> model = create_model("baseline", num_classes=576, backbone="resnet18").eval()
        >>> model(torch.rand(2, 3, 256, 256)).shape
        torch.Size([2, 512])
    """

    name: ClassVar[str] = "baseline"
