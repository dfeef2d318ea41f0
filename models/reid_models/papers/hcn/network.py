"""HCN, and ResNet-50 as its baseline: three heads over a trunk and two cross maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...networks.backbone import STAGES, create_backbone
from ...networks.network import Network, Output
from ...networks.pretrained import Pretrained
from .cross_map import IMPLEMENTATIONS, MERGES, CrossMap, average

HEADS = ("r5", "c1", "c2")
TEST_FEATURES = (*HEADS, "all")
INPUTS = ("normalised", "caffe")
IMAGENET_STD = (0.229, 0.224, 0.225)  # of red, green and blue, in the normalisation of timm's weights


class HCN(Network):
    r"""Hierarchical cross network (section 3.2): cross maps :math:`C_1, C_2` beside :math:`R_5`.

    R2 to R5 are what a ResNet's stages give. :math:`C_1 = up_4(R_5) + W_3 R_3` and
    :math:`C_2 = up_4(R_4) + W_2 R_2`. Each of R5, C1 and C2 has a head: global average pooling, dropout, a
    linear classifier. With ``impl="fused"`` C1 and C2 are never made, see :class:`CrossMap`.

    Args:
        num_classes: training identities, at least 1.
        backbone: a timm name, see :func:`create_backbone`; its last stride stays 2.
        pretrained: ImageNet weights for the backbone, or a file of them.
        image_size: height and width of the images. Others will do, if multiples of 32.
        merge: ``"deconvolution"``, ``"interpolation"`` or ``"learned"``, see :class:`CrossMap`.
        smoothing: a 3x3 convolution behind each merge.
        heads: which there are: ``("r5",)`` is the paper's ResNet-50.
        test_feature: what evaluation gives: ``"r5"`` (2048 long over ResNet-50), ``"c1"`` (2048), ``"c2"``
            (1024), or ``"all"`` there are, one after the other.
        dropout: before each classifier, in [0, 1).
        freeze_batch_norm: the trunk's batch norms keep their stored means and variances, in training as well;
            their factors learn. Meant for pretrained weights.
        zero_lateral: W2 and W3 begin at 0, as in the authors' network; else by Kaiming's rule.
        input: ``"normalised"``: images as the backbone's weights expect them; ``"caffe"``: blue, green, red
            in [0, 255] less their means, as the authors have it. The first convolution is changed to this
            order and scale once, when the network is made.
        impl: ``"fused"`` or ``"literal"``, results agree to rounding.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives the logits ``{"r5": (N, num_classes), "c1":
        ..., "c2": ...}``, evaluation features (N, D), as they come.

    Raises:
        TypeError, ValueError: an option or the images are not as described.
        RuntimeError: the pretrained weights can't be fetched.

    Example:
        >>> model = create_model("hcn", num_classes=751, test_feature="all").eval()
        >>> model(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 5120])
    """

    name: ClassVar[str] = "hcn"

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: Pretrained = False,
        image_size: Sequence[int] = (224, 224),
        merge: str = "deconvolution",
        smoothing: bool = False,
        heads: Sequence[str] = HEADS,
        test_feature: str = "r5",
        dropout: float = 0.5,
        freeze_batch_norm: bool = True,
        zero_lateral: bool = True,
        input: str = "normalised",
        impl: str = "fused",
    ) -> None:
        super().__init__(num_classes, image_size)
        heads = tuple(heads)
        self._check(heads, test_feature, dropout, merge, input, impl)
        self.heads, self.test_feature = heads, test_feature
        self.freeze_batch_norm = freeze_batch_norm
        self.options |= {
            "backbone": backbone,
            "merge": merge,
            "smoothing": smoothing,
            "heads": list(heads),
            "test_feature": test_feature,
            "dropout": dropout,
            "freeze_batch_norm": freeze_batch_norm,
            "zero_lateral": zero_lateral,
            "input": input,
            "impl": impl,
        }
        self.backbone = create_backbone(backbone, pretrained=pretrained, last_stride=2)
        if input == "caffe":
            _take_caffe_input(self.backbone.body)
        two, three, four, five = self.backbone.channels
        maps = {"c1": (five, three), "c2": (four, two)}
        self.cross_maps = nn.ModuleDict(
            {
                head: CrossMap(
                    *maps[head], merge=merge, smoothing=smoothing, zero_lateral=zero_lateral, impl=impl
                )
                for head in heads
                if head in maps
            }
        )
        self.dropout = nn.Dropout(dropout)
        widths = {"r5": five, "c1": five, "c2": four}
        self.classifier = nn.ModuleDict({head: nn.Linear(widths[head], num_classes) for head in heads})
        classifier: Any
        for classifier in self.classifier.values():
            nn.init.normal_(classifier.weight, std=0.001)
            nn.init.zeros_(classifier.bias)
        self.feature_length = sum(widths[head] for head in self._tested)
        self.train()

    def outputs(self, images: Tensor, **inputs: Any) -> dict[str, Output]:
        """Logits (N, num_classes) of each head, by its name."""
        pooled = self._pooled(images, self.heads)
        return {head: self.classifier[head](self.dropout(feature)) for head, feature in pooled.items()}

    def encode(self, images: Tensor) -> Tensor:
        """The test feature (N, feature_length)."""
        return torch.cat([*self._pooled(images, self._tested).values()], dim=1)

    def layers(self) -> dict[str, nn.Module]:
        """The trunk's stages, ``"stage1"`` (R2) to ``"stage4"`` (R5)."""
        body, names = self.backbone.body, self.backbone.layers
        return {f"stage{stage}": body.get_submodule(name) for stage, name in zip(STAGES, names, strict=True)}

    def classifiers(self) -> tuple[str, ...]:
        """Those of all heads."""
        return tuple(f"classifier.{head}" for head in self.heads)

    def train(self, mode: bool = True) -> HCN:
        """As for every module, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def _tested(self) -> tuple[str, ...]:
        return self.heads if self.test_feature == "all" else (self.test_feature,)

    def _pooled(self, images: Tensor, heads: Sequence[str]) -> dict[str, Tensor]:
        """The averages that heads begin with: R5 and C1 (N, 2048), C2 (N, 1024)."""
        two, three, four, five = self.backbone.body(images)[-len(STAGES) :]
        sources = {"c1": (five, three), "c2": (four, two)}
        return {
            head: average(five) if head == "r5" else self.cross_maps[head](*sources[head]) for head in heads
        }

    def _check(
        self, heads: tuple[str, ...], test_feature: str, dropout: float, merge: str, input: str, impl: str
    ) -> None:
        if not heads or len(set(heads)) != len(heads) or not set(heads) <= set(HEADS):
            raise ValueError(f"{self.name}: heads must be different ones of r5, c1, c2, got {heads}")
        if test_feature != "all" and test_feature not in heads:
            known = ", ".join((*heads, "all"))
            raise ValueError(f"{self.name}: test_feature must be one of {known}, got {test_feature!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"{self.name}: dropout must be in [0, 1), got {dropout}")
        for value, argument, known_values in (
            (merge, "merge", MERGES),
            (input, "input", INPUTS),
            (impl, "impl", IMPLEMENTATIONS),
        ):
            if value not in known_values:
                raise ValueError(
                    f"{self.name}: {argument} must be one of {', '.join(known_values)}, got {value!r}"
                )


@torch.no_grad()
def _take_caffe_input(body: nn.Module) -> None:
    """The first convolution: from normalised red, green, blue to blue, green, red in [0, 255] less means.

    Exact but for the means, which Caffe rounds to whole numbers: at most 0.013 standard deviations.
    """
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    scale = 255 * torch.tensor(IMAGENET_STD)
    first.weight.copy_((first.weight / scale[:, None, None]).flip(1))
