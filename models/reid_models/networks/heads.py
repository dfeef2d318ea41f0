"""Heads: from a trunk's last features to what is trained and what is compared."""

from __future__ import annotations

from torch import Tensor, nn

FEATURES = ("gmp", "cbr")


class CBRHead(nn.Module):
    """HSGNet's head (section III-A): global max pooling, convolution with batch norm and ReLU, classifier.

    GMP is the pooling, CBR the 1x1 convolution.

    Args:
        channels: of the trunk's features.
        num_classes: training identities.
        width: channels of the CBR; the paper does not say how many.
        test_feature: what :meth:`encode` gives: ``"gmp"`` or ``"cbr"``.
        triplet_feature: what the triplet loss sees: ``"gmp"`` or ``"cbr"``.
        owner: the network's name, for errors.

    Attributes:
        feature_length: D of :meth:`encode`.

    Raises:
        ValueError: a feature is neither ``"gmp"`` nor ``"cbr"``.

    Example:
        >>> CBRHead(2048, 576)(torch.rand(2, 2048, 16, 16))["logits"].shape
        torch.Size([2, 576])
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 256,
        test_feature: str = "gmp",
        triplet_feature: str = "gmp",
        owner: str = "CBRHead",
    ) -> None:
        super().__init__()
        for argument, feature in (("test_feature", test_feature), ("triplet_feature", triplet_feature)):
            if feature not in FEATURES:
                raise ValueError(f'{owner}: {argument} must be "gmp" or "cbr", got {feature!r}')
        self.test_feature, self.triplet_feature = test_feature, triplet_feature
        convolution = nn.Conv2d(channels, width, 1, bias=False)
        self.cbr = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(width, num_classes, bias=False)  # Eq. 13: W^T X
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.001)
        self.feature_length = channels if test_feature == "gmp" else width

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Features (N, C, h, w) to logits (N, num_classes) and, for the triplet loss, features (N, D)."""
        gmp = _pooled(features)
        cbr = self._reduced(gmp)
        return {
            "logits": self.classifier(cbr),
            "features": gmp if self.triplet_feature == "gmp" else cbr,
        }

    def encode(self, features: Tensor) -> Tensor:
        """The test feature (N, feature_length) of features (N, C, h, w)."""
        gmp = _pooled(features)
        return gmp if self.test_feature == "gmp" else self._reduced(gmp)

    def _reduced(self, gmp: Tensor) -> Tensor:
        reduced: Tensor = self.cbr(gmp[:, :, None, None]).flatten(1)
        return reduced


def _pooled(features: Tensor) -> Tensor:
    return features.amax(dim=(2, 3))
