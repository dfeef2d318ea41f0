"""The evaluation rules of the usual datasets, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """How a dataset is evaluated.

    Attributes:
        camera_rule: see :func:`reid_ops.metrics.evaluate_ranking`.
        junk_id: identity that marks junk; None: none.
        single_shot: one gallery item per identity is drawn, ``repeats`` times, and CMC is averaged.
        repeats: draws of a single-shot protocol.
        note: what the rule comes from.
    """

    camera_rule: str
    junk_id: int | None
    single_shot: bool = False
    repeats: int = 0
    note: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for ``evaluate_ranking``, ``evaluate_features`` or ``single_shot_cmc``."""
        shared: dict[str, Any] = {"camera_rule": self.camera_rule, "junk_id": self.junk_id}
        return {**shared, "repeats": self.repeats} if self.single_shot else shared


_CROSS_CAMERA = "items of the query's identity and camera are removed"
_SINGLE_SHOT = "one gallery image per identity, drawn at random; mean over the draws"

PROTOCOLS: dict[str, Protocol] = {
    "market1501": Protocol("same_identity", -1, note=f"{_CROSS_CAMERA}; identity -1 is junk"),
    "dukemtmc": Protocol("same_identity", -1, note=_CROSS_CAMERA),
    "msmt17": Protocol("same_identity", -1, note=_CROSS_CAMERA),
    "cuhk03-np": Protocol("same_identity", -1, note=f"{_CROSS_CAMERA}; the fixed 767/700 split"),
    "veri776": Protocol(
        "same_identity",
        -1,
        note=f"{_CROSS_CAMERA}; image to image, as re-ID papers do (to tracks: evaluate_tracks)",
    ),
    "cuhk03-old": Protocol("same_identity", None, True, 100, f"{_SINGLE_SHOT}; 20 splits, 100 draws each"),
    "cuhk01": Protocol("same_identity", None, True, 100, _SINGLE_SHOT),
    "viper": Protocol("same_identity", None, True, 10, f"{_SINGLE_SHOT}; two images an identity: one draw"),
    "vehicleid": Protocol("none", None, True, 10, f"{_SINGLE_SHOT}; the dataset has no cameras"),
}
