"""What every network of the package is: :class:`Network`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from .._numbers import check_integer

#: A named output of training: a tensor, or one for each of several heads.
Output = Tensor | tuple[Tensor, ...]


class Network(nn.Module):
    """The base of all networks: what training, evaluation, files and figures ask of one.

    A network of a paper derives from it and gives :meth:`outputs` and :meth:`encode`; one that compares pairs
    of images gives :meth:`match` and :meth:`match_pairs` as well. Everything else (activation maps, export,
    weights, fingerprints, transfer to other identities) asks the methods here, never a class or a name.

    Args:
        num_classes: training identities, at least 1.
        image_size: height and width that images are brought to.

    Attributes:
        name: in messages and, of a paper's network, under which :func:`reid_models.create_model` makes it.
        num_classes, image_size: as given.
        options: keyword arguments that make the same network again: JSON, without ``pretrained``.
        feature_length: D of :meth:`encode`.
        fixed_size: whether images must have ``image_size`` exactly.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Example:
        >>> class Mean(Network):
        ...     name, feature_length = "mean", 3
        ...     def __init__(self, num_classes, *, image_size=(64, 64)):
        ...         super().__init__(num_classes, image_size)
        ...         self.classifier = nn.Linear(3, num_classes)
        ...     def encode(self, images):
        ...         return images.mean((2, 3))
        ...     def outputs(self, images):
        ...         features = self.encode(images)
        ...         return {"features": features, "logits": self.classifier(features)}
        ...     def classifiers(self):
        ...         return ("classifier",)
    """

    name: ClassVar[str] = "network"
    feature_length: int
    fixed_size: bool = False

    def __init__(self, num_classes: int, image_size: Sequence[int]) -> None:
        super().__init__()
        self.check_count(num_classes, "num_classes")
        if len(image_size) != 2:
            raise ValueError(f"{self.name}: image_size must be (height, width), got {tuple(image_size)}")
        for value in image_size:
            self.check_count(value, "image_size")
        self.num_classes = num_classes
        self.image_size = (image_size[0], image_size[1])
        self.options: dict[str, Any] = {"image_size": list(self.image_size)}

    def outputs(self, images: Tensor, **inputs: Any) -> Mapping[str, Output]:
        """Named outputs for the losses, whatever the mode.

        Args:
            images: (N, 3, H, W), normalised floats.
            **inputs: what else of the batch the network's own signature names: ``identities`` (N,) int64 or
                ``pairs`` (B, 2) int64, rows of the batch that a sampler put together.
        """
        raise NotImplementedError(f"{self.name}: a network must give outputs")

    def encode(self, images: Tensor) -> Tensor:
        """Features (N, feature_length) of normalised images (N, 3, H, W): what retrieval keeps."""
        raise NotImplementedError(f"{self.name}: a network must give encode")

    def match(self, codes_a: Tensor, codes_b: Tensor) -> Tensor:
        """Similarities (A, B) of all pairs of codes from :meth:`encode`, (A, D) and (B, D).

        Raises:
            TypeError: this network does not compare pairs: its features are compared by a distance.
        """
        raise TypeError(f"{self.name}: match is not for this network: it gives features, not scores of pairs")

    def match_pairs(self, codes_a: Tensor, codes_b: Tensor, pairs: Tensor) -> Tensor:
        """Similarities (P,) of listed pairs (P, 2) int64: rows of ``codes_a`` and of ``codes_b``.

        Raises:
            TypeError: as :meth:`match`.
        """
        raise TypeError(
            f"{self.name}: match_pairs is not for this network: it gives features, not scores of pairs"
        )

    @property
    def compares_pairs(self) -> bool:
        """Whether the network has a :meth:`match` of its own."""
        return type(self).match is not Network.match

    def layers(self) -> dict[str, nn.Module]:
        """Modules by name, from the images on, whose outputs (N, C, h, w) activation maps may show."""
        return {}

    def as_map(self, output: Tensor) -> Tensor:
        """The output of one of :meth:`layers` as a map (N, C, h, w), which it is in most networks."""
        return output

    def classifiers(self) -> tuple[str, ...]:
        """Names of the submodules that belong to the training identities: transfer leaves them behind."""
        return ()

    def use_reference(self) -> None:
        """Puts the reference in PyTorch in the place of every fused operator, for what can't express kernels.

        Submodules that have ``impl`` take ``"reference"``. Results agree to rounding.
        """
        for module in self.modules():
            if getattr(module, "impl", None) == "fused":
                module.impl = "reference"  # type: ignore[assignment]

    def forward(self, images: Tensor, **inputs: Any) -> Any:
        """:meth:`outputs` in training, :meth:`encode` in evaluation."""
        self.check_images(images)
        return self.outputs(images, **inputs) if self.training else self.encode(images)

    def check_images(self, images: Tensor) -> None:
        """Raises TypeError or ValueError unless images are normalised floats (N, 3, H, W)."""
        if not isinstance(images, Tensor):
            raise TypeError(f"{self.name}: images must be a torch.Tensor, got {type(images).__name__}")
        if not images.is_floating_point():
            dtype = str(images.dtype).removeprefix("torch.")
            raise TypeError(f"{self.name}: images must be normalised floats, got {dtype}")
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{self.name}: images must have shape (N, 3, H, W), got {tuple(images.shape)}")
        if self.fixed_size and tuple(images.shape[2:]) != self.image_size:
            got = tuple(images.shape[2:])
            raise ValueError(f"{self.name}: images must have the image_size {self.image_size}, got {got}")

    def check_count(self, value: int, argument: str) -> None:
        """Raises TypeError or ValueError unless the argument is an int, at least 1."""
        check_integer(value, argument, self.name, 1)
