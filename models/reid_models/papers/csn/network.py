"""CSN: pairs of images compared by correlating the maps of one with the parts of the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reid_ops import PartCorrelation

from ...networks.network import Network, Output
from .codes import CodeLayout, Codes
from .layers import CHANNELS, VARIANTS, DecisionHead, Extractor, RankingNet, halve
from .localisation import Localiser, central_crop, divide, sample

LEVELS = (2, 3, 4)
SCORES = ("similarity", "probability")
EMBEDDING = 256


class CSN(Network):
    """Convolution similarity network (CSN, sections 3 and 4; multi-level similarity).

    Of an image: maps x of conv2 and conv3 (levels 2 and 3; 4 of a further convolution), three overlapping
    horizontal parts of each, and in each part a spatial transformer's sample of f x f. Of a pair: every
    channel of one image's maps correlated with the same channel of the other's parts (Eq. 2), both ways, 576
    maps a level; three convolutions decide on match or no match. A ranking net embeds an image's parts.

    What depends on one image is computed once: :meth:`encode` gives its code, :meth:`match` the scores of
    all pairs of codes, :meth:`match_pairs` those of some.

    Args:
        num_classes: kept, but not used: the network decides between match and no match.
        levels: those compared, of 2, 3 and 4.
        l4_variant: what level 4 stands on: ``"text"``, one more convolution, as section 4.3 says, or
            ``"table5"``, three more, which fit the parameters, depth and operations of Table 5.
        similarity_size: height and width of the maps that are decided on, a sixteenth of the images (10, 4)
            or, without level 4, an eighth (20, 8); None: a sixteenth.
        parts: ``"stn"``; ``"central"``, the middle of each part in place of a transformer (C2 of Table 4); or
            ``"none"``, a transformer on the whole map (C1).
        undivided_parts: samples of ``"none"``: 1, or 3 of one transformer.
        part_sizes: f of levels 2, 3 and 4 (the paper gives those of 2 and 3).
        inclusive_rows: parts with both of the rows that the paper names, see :func:`divide`.
        pooling: ``"ceil"``, which gives the sizes printed, or ``"floor"``.
        score_lambda: weight of the embedding's distance in SimiScore (Eq. 7).
        score_epsilon: what keeps Eq. 7 finite.
        image_size: height and width; images must have them.
        backbone: ``"csn"``, the paper's own; there is no other.
        pretrained: False; the paper trains from scratch.
        impl: ``"fused"`` kernels for the correlation or the ``"reference"`` in PyTorch.

    Shape:
        images (N, 3, H, W), normalised floats. Training gives, for pairs (B, 2) of the batch's rows,
        ``{"logits": (B, 2), "embeddings": (B, 2, 256)}`` and, with transformers, ``"transforms"``, for each
        level (N, P, 2, 3). Evaluation gives codes (N, D).

    Raises:
        TypeError, ValueError: an option, the images, codes or pairs are not as described.

    Example:
        >>> model = create_model("csn", 2, levels=(2, 3)).eval()
        >>> query, gallery = model.encode(torch.rand(2, 3, 160, 60)), model.encode(torch.rand(5, 3, 160, 60))
        >>> model.match(query, gallery).shape
        torch.Size([2, 5])
    """

    name: ClassVar[str] = "csn"
    fixed_size = True

    def __init__(
        self,
        num_classes: int = 2,
        *,
        levels: Sequence[int] = (2, 3),
        l4_variant: str = "text",
        similarity_size: Sequence[int] | None = None,
        parts: str = "stn",
        undivided_parts: int = 1,
        part_sizes: Sequence[int] = (10, 5, 3),
        inclusive_rows: bool = False,
        pooling: str = "ceil",
        score_lambda: float = 0.2,
        score_epsilon: float = 1e-4,
        image_size: Sequence[int] = (160, 60),
        backbone: str = "csn",
        pretrained: bool = False,
        impl: str = "fused",
    ) -> None:
        super().__init__(num_classes, image_size)
        self._check_choices(
            backbone=(backbone, ("csn",)), pretrained=(pretrained, (False,)),
            pooling=(pooling, ("ceil", "floor")), l4_variant=(l4_variant, VARIANTS),
            parts=(parts, ("stn", "central", "none")),
            undivided_parts=(undivided_parts, (1, 3)), impl=(impl, ("fused", "reference")),
        )  # fmt: skip
        self.levels = tuple(sorted(set(levels)))
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(f"{self.name}: levels must be of {LEVELS}, got {tuple(levels)}")
        if len(part_sizes) != len(LEVELS):
            raise ValueError(f"{self.name}: part_sizes must be three, of {LEVELS}, got {tuple(part_sizes)}")
        for size in part_sizes:
            self.check_count(size, "part_sizes")
        if not score_epsilon > 0:
            raise ValueError(f"{self.name}: score_epsilon must be above 0, got {score_epsilon}")
        self.score_lambda, self.score_epsilon = float(score_lambda), float(score_epsilon)
        self.parts, self.inclusive_rows = parts, inclusive_rows
        self.part_count = undivided_parts if parts == "none" else 3
        self.part_sizes = {level: part_sizes[level - 2] for level in self.levels}
        self.map_sizes = {level: halve(self.image_size, pooling, level) for level in self.levels}
        least, rows = (4 if inclusive_rows else 2), self.map_sizes[self.levels[-1]][0]
        if rows < least:
            raise ValueError(
                f"{self.name}: image_size must leave level {self.levels[-1]} {least} rows or more, got "
                f"{self.image_size}, which leave {rows}"
            )
        pools = self._choose_pools(similarity_size, pooling)
        if pooling == "floor" and min(*self.part_sizes.values(), *self.similarity_size) < 2:
            raise ValueError(
                f'{self.name}: pooling must be "ceil" where maps or parts have one row or column'
            )
        self.options |= {
            "levels": list(self.levels), "l4_variant": l4_variant,
            "similarity_size": list(self.similarity_size), "parts": parts,
            "undivided_parts": undivided_parts, "part_sizes": list(part_sizes),
            "inclusive_rows": inclusive_rows, "pooling": pooling, "score_lambda": self.score_lambda,
            "score_epsilon": self.score_epsilon, "impl": impl,
        }  # fmt: skip

        self.extractor = Extractor(self.levels, variant=l4_variant, rounding=pooling)
        self.localisers = nn.ModuleDict(
            {
                str(level): Localiser(
                    self._part_size(level),
                    self.part_sizes[level],
                    count=self.part_count if parts == "none" else 1,
                    rounding=pooling,
                )
                for level in (self.levels if parts != "central" else ())
            }
        )
        self.correlations = nn.ModuleDict(
            {str(level): PartCorrelation(pools[level], impl=impl) for level in self.levels}
        )
        groups = 2 * self.part_count * len(self.levels)
        self.head = DecisionHead(CHANNELS * groups, rounding=pooling)
        self.ranking = RankingNet(len(self.levels), EMBEDDING, rounding=pooling)
        self._initialise()
        self.layout = CodeLayout(
            {level: (CHANNELS, *self.map_sizes[level]) for level in self.levels},
            {level: (self.part_count, CHANNELS, size, size) for level, size in self.part_sizes.items()},
            EMBEDDING,
        )
        self.feature_length = self.layout.length

    # ------------------------------------------------------------------------------------- one image

    def codes(self, images: Tensor) -> Codes:
        """Maps, parts, embedding and transforms of images."""
        maps = self.extractor(images)
        parts, transforms = {}, {}
        for level, found in maps.items():
            parts[level], moved = self._find_parts(level, found)
            if moved is not None:
                transforms[level] = moved
        return Codes(maps, parts, self.ranking(list(parts.values())), transforms)

    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, feature_length): all that scoring needs of an image."""
        self.check_images(images)
        return self.codes(images).flatten()

    def embed(self, codes: Tensor) -> Tensor:
        """The ranking net's embeddings (N, 256), of length 1, in codes: what a shortlist is made by."""
        self._check_codes(codes, "codes")
        return self.layout.embed(codes)

    def part_rows(self, level: int) -> tuple[slice, slice, slice]:
        """Rows of a level's map that its parts have."""
        return divide(self.map_sizes[level][0], inclusive=self.inclusive_rows)

    def _find_parts(self, level: int, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples (N, P, C, f, f) and their transforms (N, P, 2, 3)."""
        size = self.part_sizes[level]
        if self.parts == "none":
            transforms = self.localisers[str(level)](maps)
            return sample(maps, transforms, size), transforms
        stripes = [maps[:, :, rows] for rows in self.part_rows(level)]
        if self.parts == "central":
            return torch.stack([central_crop(stripe, size) for stripe in stripes], dim=1), None
        samples, transforms = [], []
        for stripe, found in zip(stripes, self._locate(level, stripes), strict=True):
            samples.append(sample(stripe, found, size))
            transforms.append(found)
        return torch.cat(samples, dim=1), torch.cat(transforms, dim=1)

    def _locate(self, level: int, stripes: Sequence[Tensor]) -> Sequence[Tensor]:
        """Each stripe's transforms; those of one height go through the network together."""
        localiser = self.localisers[str(level)]
        found: dict[int, Tensor] = {}
        for height in dict.fromkeys(stripe.shape[2] for stripe in stripes):
            alike = [i for i, stripe in enumerate(stripes) if stripe.shape[2] == height]
            together = localiser(torch.cat([stripes[i] for i in alike]))
            found |= dict(zip(alike, together.chunk(len(alike)), strict=True))
        return [found[i] for i in range(len(stripes))]

    # ------------------------------------------------------------------------------------- a pair

    def outputs(self, images: Tensor, pairs: Tensor | None = None, **inputs: Any) -> dict[str, Output]:
        """Logits and embeddings of pairs, and the transforms of the images."""
        if pairs is None:
            raise ValueError(
                f"{self.name}: outputs needs pairs of the batch's images: data.sampler must be "
                "{name: pairs}"
            )
        codes = self.codes(images)
        logits = self._decide(codes, codes, pairs)
        found: dict[str, Output] = {"logits": logits, "embeddings": codes.embedding[pairs]}
        if codes.transforms:
            found["transforms"] = tuple(codes.transforms.values())
        return found

    def similarity(self, left: Codes, right: Codes, pairs: Tensor) -> Tensor:
        """Maps of all levels, (B, 2 * P * C * levels, h, w), of pairs: both directions, Eq. 2, pooled."""
        back, (height, width) = pairs.flip(1), self.similarity_size
        maps = []
        for level in self.levels:
            correlate = self.correlations[str(level)]
            for first, second, rows in ((left, right, pairs), (right, left, back)):
                found = correlate(first.maps[level], second.parts[level], rows)
                maps.append(found[:, :, :height, :width])  # flooring: less than the fused pooling's ceil
        return torch.cat(maps, dim=1)

    def match(
        self, codes_a: Tensor, codes_b: Tensor, *, score: str = "similarity", megabytes: float = 64.0
    ) -> Tensor:
        """Similarities (A, B) of all pairs of codes (A, D) and (B, D), a block at a time.

        Args:
            codes_a: from :meth:`encode`. The decision is of (a, b) in this order.
            codes_b: likewise.
            score: ``"similarity"``, SimiScore p(match) + lambda / (d + epsilon) (Eq. 7), or
                ``"probability"``, p(match) alone.
            megabytes: working memory of a block; the same however many codes there are.
        """
        count = len(codes_b)
        found = codes_a.new_empty(len(codes_a) * count, dtype=self._dtype(codes_a))
        for rows in self._blocks(found.numel(), megabytes):
            numbers = torch.arange(rows.start, rows.stop, device=codes_a.device)
            pairs = torch.stack([numbers // count, numbers % count], dim=1)
            found[rows] = self._score(codes_a, codes_b, pairs, score)
        return found.view(len(codes_a), count)

    def match_pairs(
        self,
        codes_a: Tensor,
        codes_b: Tensor,
        pairs: Tensor,
        *,
        score: str = "similarity",
        megabytes: float = 64.0,
    ) -> Tensor:
        """Similarities (P,) of pairs (P, 2) int64, rows of ``codes_a`` and ``codes_b``; as :meth:`match`."""
        if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
            raise TypeError(f"{self.name}: pairs must be an int64 tensor (P, 2)")
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ValueError(f"{self.name}: pairs must have shape (P, 2), got {tuple(pairs.shape)}")
        found = codes_a.new_empty(len(pairs), dtype=self._dtype(codes_a))
        for rows in self._blocks(len(pairs), megabytes):
            found[rows] = self._score(codes_a, codes_b, pairs[rows], score)
        return found

    def _decide(self, left: Codes, right: Codes, pairs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.similarity(left, right, pairs))
        return logits

    @torch.no_grad()
    def _score(self, codes_a: Tensor, codes_b: Tensor, pairs: Tensor, score: str) -> Tensor:
        if score not in SCORES:
            raise ValueError(f"{self.name}: score must be of {', '.join(SCORES)}, got {score!r}")
        self._check_codes(codes_a, "codes_a")
        self._check_codes(codes_b, "codes_b")
        left, right = self.layout.split(codes_a), self.layout.split(codes_b)
        training = self.head.training
        self.head.eval()  # batch statistics would have a pair's score depend on its block
        try:
            matched = self._decide(left, right, pairs).softmax(dim=1)[:, 1]
        finally:
            self.head.train(training)
        if score == "probability":
            return matched
        apart = left.embedding[pairs[:, 0]] - right.embedding[pairs[:, 1]]
        return matched + self.score_lambda / (apart.norm(dim=1) + self.score_epsilon)

    def _blocks(self, pairs: int, megabytes: float) -> list[slice]:
        """Pairs in blocks whose maps, twice (apart and together), and conv6's take so much memory."""
        if not megabytes > 0:
            raise ValueError(f"{self.name}: megabytes must be above 0, got {megabytes}")
        height, width = self.similarity_size
        each = 4 * height * width * (2 * self.head.channels + 3 * 500)
        step = max(1, int(megabytes * 1e6 / each))
        return [slice(start, min(pairs, start + step)) for start in range(0, pairs, step)]

    # ------------------------------------------------------------------------------------- the rest

    @property
    def depth(self) -> int:
        """Convolutions as Table 5 counts them: extractor, decision, and the transformers of all levels."""
        return self.extractor.convolutions + 3 + 3 * len(self.localisers)

    def layers(self) -> dict[str, nn.Module]:
        """The extractor's stages, ``"stage1"`` on."""
        return {f"stage{i}": stage for i, stage in enumerate(self.extractor.stages, start=1)}

    def _part_size(self, level: int) -> tuple[int, int]:
        height, width = self.map_sizes[level]
        return (height, width) if self.parts == "none" else (height // 2, width)

    def _choose_pools(self, similarity_size: Sequence[int] | None, rounding: str) -> dict[int, int]:
        """The pooling of each level's maps to the size that is decided on, which is kept."""
        sizes = {
            depth: halve(self.image_size, rounding, depth) for depth in (3, 4) if depth >= self.levels[-1]
        }
        sizes = {depth: size for depth, size in sizes.items() if min(size) > 0}
        wanted = sizes[max(sizes)] if similarity_size is None else tuple(similarity_size)
        for depth, size in sizes.items():
            if size == wanted:
                self.similarity_size = size
                return {level: 2 ** (depth - level) for level in self.levels}
        raise ValueError(
            f"{self.name}: similarity_size must be {' or '.join(map(str, sizes.values()))} for levels "
            f"{self.levels} of images {self.image_size}, got {wanted}"
        )

    def _check_choices(self, **choices: tuple[Any, tuple[Any, ...]]) -> None:
        for argument, (value, known) in choices.items():
            if value not in known:
                names = ", ".join(map(repr, known))
                raise ValueError(f"{self.name}: {argument} must be of {names}, got {value!r}")

    def _check_codes(self, codes: Tensor, argument: str) -> None:
        if not isinstance(codes, Tensor) or not codes.is_floating_point():
            raise TypeError(f"{self.name}: {argument} must be a floating tensor, as encode gives")
        if codes.dim() != 2 or codes.shape[1] != self.feature_length:
            raise ValueError(
                f"{self.name}: {argument} must have shape (N, {self.feature_length}), as encode gives, got "
                f"{tuple(codes.shape)}"
            )

    def _dtype(self, codes: Tensor) -> torch.dtype:
        return codes.dtype if codes.dtype == torch.float64 else torch.float32

    def _initialise(self) -> None:
        """He's, for ReLU; the transformers' last layers stay at the central crop."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
