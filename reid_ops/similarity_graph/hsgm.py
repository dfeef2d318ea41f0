"""The hierarchical similarity graph module (HSGNet, section III) over :mod:`.graph`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks, _dispatch, reference
from .fused import evaluate, fused
from .graph import EDGES, MAX_REACH, check_edges, squared_radius
from .insertion import insert_after
from .norm import MapNorm, WithMapNorm, group_of
from .plan import MAX_SCALES, OP, POOLINGS, Plan, check_choice, divisions_of, map_sizes

__all__ = ["HSGM"]

_LARGEST = torch.finfo(torch.float32).max
# What the parameters' shapes and the plan were made of. (impl, momentum and sync_batchnorm may change.)
_FIXED = (
    "channels", "height", "width", "levels", "divisions", "scales", "neighborhood", "channel_window", "edges",
    "split", "residual", "spatial", "channel", "aggregate_scale", "negative_slope", "share_parameters",
    "include_self", "pooling", "ablate", "upsample", "init", "zero_init_residual", "eps", "layout",
)  # fmt: skip


class HSGM(WithMapNorm):
    r"""Hierarchical similarity graph module: features in, features of the same shape out.

    The features are divided into the maps of several levels (one whole, two halves, four quarter stripes).
    Every map g of h x w pixels gets, from its own two graphs, a rank-one map that is normalised and added
    (HSGNet, Eqs. 1-11):

    .. math::
        a_g = \sum_k \Theta_{g,k} \odot (I + E)\,\mathrm{AP}_k(\operatorname{mean}_c x_g), \qquad
        b_g = \delta_g \odot (I + E)\,\operatorname{mean}_{hw} x_g, \\
        y = s \sum_{\text{levels}} \big( x + \mathrm{LeakyReLU}(\mathrm{BN}_g(b_g a_g^\top)) \big)

    ``impl="fused"`` computes the batch norm of the product in closed form: forward reads ``x`` twice and
    writes ``y`` once, backward reads ``dy`` twice and writes ``dx`` once and keeps tables of images x maps x
    channels, not the features (sizes in docs/hsgm.md: small unless the features' height and width are).
    ``impl="reference"`` is plain PyTorch with the same parameters, buffers and state dict.

    Args:
        channels, height, width: of the features, all >= 1. A height or width that does not divide is cut at
            ``floor(i * height / parts)``, so that maps differ by at most one row or column.
        levels: number of maps of each level, increasing, 1 to 6 levels of at most 32 rows and columns of
            maps. ``(1,)`` is the paper's ablation without hierarchy.
        scales: window sizes k of the average pools AP_k, 1 to 8 of them, repetitions allowed.
        neighborhood: of the spatial graphs, as in :func:`reid_ops.similarity_graph`: 4, 8 or ("radius", r).
        channel_window: half-width of the channel graphs' window.
        edges: reading of Eq. 3, as in :func:`reid_ops.similarity_graph`.
        split: ``"stripes"`` cuts levels into rows; ``"grid"`` cuts powers of two into rows and columns in
            turn, four maps being 2 x 2.
        residual: False drops ``x`` from the output (ablation).
        spatial, channel: False drops the spatial (channel) graph; its vector is then all ones. With both
            dropped, the product is ``x`` itself: an ordinary batch norm, by PyTorch in either ``impl``.
        ablate: what dropping a graph means: ``"graph"`` as above; ``"edges"`` keeps its nodes and weights and
            sets its E to 0.
        aggregate_scale: s above; 1 is the paper's sum, 1/3 keeps the features' magnitude for three levels.
        negative_slope: of the LeakyReLU.
        share_parameters: False: every map has its own delta and batch-norm weight and bias; ``"level"``: a
            level's maps share them; True: all do. Theta belongs to pixels and batch statistics to maps in any
            case.
        sync_batchnorm: in training, statistics over all processes of the default group.
        impl: ``"fused"`` or ``"reference"``.
        include_self: whether nodes are their own neighbours.
        pooling: how AP_k keeps the size. ``"same"``: stride 1, means over the pixels inside;
            ``"same_padded"``: means over k*k with zeros outside; ``"stride"``: stride k, repeated;
            ``"valid"``: the nearest window wholly inside; ``"stride_bilinear"``, ``"valid_bilinear"``: those
            means up-sampled bilinearly, pixel centres aligned.
        upsample: how a level reaches the extent of the level before. ``"stitch"``: maps stay in their places,
            as in the formula; ``"interp"``: each map, residual included, is interpolated bilinearly to its
            parent's size and added to it, as are the parents: positions are not preserved. Levels must then
            be multiples of the level before, the first 1; each costs a pass of its own.
        init: of Theta and delta: ``"ones"``, or ``"uniform"`` in ±1/sqrt(d), d a graph's number of nodes.
        zero_init_residual: batch-norm weights start at zero, so that the module starts as x times a number.
        eps, momentum: of the batch norms.
        layout: ``"NHWC"``: the features' shape is (N, height, width, channels), as that of Swin's stages.

    Shape:
        ``x`` (N, channels, height, width), float32, float64, float16 or bfloat16 (half types accumulate in
        float32), contiguous or channels-last (kept, not copied; others are made contiguous). N may be 0 (the
        running statistics then stay).

    The options are attributes; all but ``impl``, ``momentum`` and ``sync_batchnorm`` are read-only.

    ``norm``, an ``nn.BatchNorm2d`` that is never called, holds the maps' batch norms in one row, map after
    map: ``weight``, ``bias``, ``running_mean``, ``running_var``, ``num_batches_tracked``. So tools for batch
    norms work: ``nn.SyncBatchNorm.convert_sync_batchnorm`` (as ``sync_batchnorm=True``),
    ``torch.optim.swa_utils.update_bn``, freezing by ``norm.eval()``, groups without weight decay. The same
    tensors as (maps, channels) are attributes of the module itself. As with ``nn.BatchNorm2d``, a pass
    recomputed by ``torch.utils.checkpoint`` updates the statistics a second time.
    Once differentiable. Keeps its input's dtype under ``torch.autocast``.

    Raises:
        TypeError, ValueError: an option or the input is not as described; in training also when a map has
            only one value per channel.

    Example:
        >>> module = reid_ops.HSGM(1024, 16, 16)
        >>> sum(p.numel() for p in module.parameters())
        23808
        >>> module(torch.rand(4, 1024, 16, 16)).shape
        torch.Size([4, 1024, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        levels: Sequence[int] = (1, 2, 4),
        scales: Sequence[int] = (1, 2, 3),
        neighborhood: int | tuple[str, float] = 4,
        channel_window: int = 1,
        edges: str = "softmax",
        split: str = "stripes",
        residual: bool = True,
        spatial: bool = True,
        channel: bool = True,
        aggregate_scale: float = 1.0,
        negative_slope: float = 0.2,
        share_parameters: bool | str = False,
        sync_batchnorm: bool = False,
        impl: str = "fused",
        include_self: bool = False,
        pooling: str = "same",
        ablate: str = "graph",
        upsample: str = "stitch",
        init: str = "ones",
        zero_init_residual: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        for value, name in ((channels, "channels"), (height, "height"), (width, "width")):
            _checks.check_integer(value, name, 1, 2**15, OP)
        for flag, name in (
            (residual, "residual"), (spatial, "spatial"), (channel, "channel"),
            (sync_batchnorm, "sync_batchnorm"), (include_self, "include_self"),
            (zero_init_residual, "zero_init_residual"),
        ):  # fmt: skip
            _checks.check_flag(flag, name, OP)
        for number, name, least, most in (
            (aggregate_scale, "aggregate_scale", -_LARGEST, _LARGEST),
            (negative_slope, "negative_slope", -_LARGEST, _LARGEST),
            (eps, "eps", 0.0, _LARGEST), (momentum, "momentum", 0.0, 1.0),
        ):  # fmt: skip
            _checks.check_number(number, name, least, most, OP)
        for numbers, name in ((levels, "levels"), (scales, "scales")):
            if isinstance(numbers, str) or not isinstance(numbers, Sequence):
                raise TypeError(f"{OP}: {name} must be a sequence of ints, got {type(numbers).__name__}")
        _checks.check_integer(channel_window, "channel_window", 1, MAX_REACH, OP)
        if isinstance(neighborhood, list):
            neighborhood = tuple(neighborhood)
        self.channels, self.height, self.width = channels, height, width
        self.levels, self.scales = tuple(levels), tuple(scales)
        self.divisions = divisions_of(self.levels, split, upsample, height, width)
        if not 1 <= len(self.scales) <= MAX_SCALES:
            raise ValueError(f"{OP}: scales must hold 1 to {MAX_SCALES} window sizes, got {len(self.scales)}")
        for scale in self.scales:
            _checks.check_integer(scale, "scales", 1, 2**15, OP)
        check_edges(edges, OP)
        check_choice(pooling, "pooling", tuple(POOLINGS))
        check_choice(impl, "impl", ("fused", "reference"))
        check_choice(ablate, "ablate", ("graph", "edges"))
        check_choice(init, "init", ("ones", "uniform"))
        check_choice(layout, "layout", ("NCHW", "NHWC"))
        if not (isinstance(share_parameters, bool) or share_parameters == "level"):
            raise ValueError(
                f'{OP}: share_parameters must be False, True or "level", got {share_parameters!r}'
            )
        self.neighborhood, self.channel_window = neighborhood, channel_window
        self.edges, self.split, self.upsample = edges, split, upsample
        self.ablate, self.init, self.zero_init_residual = ablate, init, zero_init_residual
        self.residual, self.spatial, self.channel = residual, spatial, channel
        self.aggregate_scale, self.negative_slope = float(aggregate_scale), float(negative_slope)
        self.share_parameters, self._joint, self.impl = share_parameters, sync_batchnorm, impl
        self.include_self, self.pooling, self.layout = include_self, pooling, layout
        self.eps = float(eps)
        self._plan = Plan(
            rows=tuple(rows for rows, _ in self.divisions),
            columns=tuple(columns for _, columns in self.divisions),
            scales=self.scales,
            pooling=POOLINGS[pooling],
            radius_squared=squared_radius(neighborhood, True, OP),
            channel_radius_squared=squared_radius(channel_window, False, OP),
            include_self=self.include_self,
            edges=EDGES[self._edges_of(spatial)],
            channel_edges=EDGES[self._edges_of(channel)],
            interpolated=upsample == "interp",
            residual=self.aggregate_scale * len(self.levels) if residual else 0.0,
            factor=self.aggregate_scale,
            negative_slope=self.negative_slope,
            eps=self.eps,
        )
        sizes = map_sizes(self._plan, height, width)
        self._smallest_map = min(sizes)
        maps = len(sizes)
        sets = {False: maps, True: 1, "level": len(self.levels)}[share_parameters]
        if self.spatial or ablate == "edges":
            self.theta = nn.Parameter(torch.empty(len(self.levels), len(self.scales), height, width))
        else:
            self.register_parameter("theta", None)
        if self.channel or ablate == "edges":
            self.delta = nn.Parameter(torch.empty(sets, channels))
        else:
            self.register_parameter("delta", None)
        # Of what class it is may change: nn.SyncBatchNorm.convert_sync_batchnorm replaces it.
        self.norm: Any = MapNorm(sets, maps, channels, self.eps, float(momentum))
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in self.__dict__:
            raise AttributeError(f"{OP}: {name} is fixed when the module is made; make another module")
        super().__setattr__(name, value)

    def _edges_of(self, kept: bool) -> str:
        """The reading of Eq. 3 of a graph that is kept, or whose edges alone are dropped."""
        return self.edges if kept or self.ablate == "graph" else "none"

    def reset_parameters(self) -> None:
        """Theta and delta as ``init`` says, weight one (or zero), bias zero, running statistics as new."""
        for parameter in (self.theta, self.delta):
            if parameter is not None:
                nn.init.ones_(parameter)
        if self.init == "uniform":
            if self.delta is not None:
                nn.init.uniform_(self.delta, -(self.channels**-0.5), self.channels**-0.5)
            if self.theta is not None:
                for level, (rows, columns) in zip(self.theta.detach(), self.divisions, strict=True):
                    for top, bottom, left, right in reference.divide(self.height, self.width, rows, columns):
                        bound = ((bottom - top) * (right - left)) ** -0.5
                        nn.init.uniform_(level[:, top:bottom, left:right], -bound, bound)
        nn.init.constant_(self.norm.weight, 0.0 if self.zero_init_residual else 1.0)
        nn.init.zeros_(self.norm.bias)
        self.norm.reset_running_stats()

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) to features of the same shape, dtype and layout."""
        self._check_input(x)
        if self.layout == "NHWC":  # in memory these are channels-last features, so nothing is copied
            return self._forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        training = self.norm.training  # as a rule the module's own mode; a frozen norm is in evaluation
        group = group_of(self.norm, self.sync_batchnorm) if training else None
        if training and group is None and x.shape[0] * self._smallest_map == 1:
            raise ValueError(f"{OP}: training needs more than one value per channel and map, got one")
        if training:
            self.norm.num_batches_tracked.add_(1)
        delta, weight, bias = (self._for_all_maps(p) for p in (self.delta, self.weight, self.bias))
        assert weight is not None and bias is not None
        if self.impl == "reference" or (self.theta is None and self.delta is None):
            return self._reference(x, delta, weight, bias, group)
        precise = torch.float64 if x.dtype == torch.float64 else torch.float32
        theta, delta, weight, bias = (
            None if p is None else p.to(precise).contiguous() for p in (self.theta, delta, weight, bias)
        )
        assert weight is not None and bias is not None
        inputs = (x, theta, delta, weight, bias)
        _dispatch.refuse_forward_mode(OP, *inputs)
        if not (training or self._plan.interpolated) and not (
            torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        ):
            return evaluate(x, theta, delta, weight, bias, self.running_mean, self.running_var, self._plan)
        given = None if training else (self.running_mean, self.running_var)
        y, mean, variance, counts = fused(x, theta, delta, weight, bias, given, self._plan, group)
        if training:
            self._update(mean, variance, counts)
        return y

    def _reference(self, x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, group: Any) -> Tensor:
        precise = torch.float64 if x.dtype == torch.float64 else torch.float32
        theta, delta = (None if p is None else p.to(precise) for p in (self.theta, delta))
        weight, bias = weight.to(precise), bias.to(precise)
        if x.shape[0] == 0 and group is None:  # PyTorch's batch norm has no statistics of nothing
            parameters = (p for p in (theta, delta, weight, bias) if p is not None)
            nothing: Tensor = sum(p.sum() * 0 for p in parameters)  # type: ignore[assignment]
            return x * self._plan.residual + nothing.to(x.dtype)  # the parameters' gradients are zeros
        running_mean, running_var = self.running_mean.to(precise), self.running_var.to(precise)
        # Meta tensors have no autocast that could be left.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            y = reference.hsgm(
                x, theta, delta, weight, bias, running_mean, running_var,
                divisions=self.divisions, scales=self.scales, neighborhood=self.neighborhood,
                channel_window=self.channel_window, include_self=self.include_self,
                edges=self._edges_of(self.spatial), channel_edges=self._edges_of(self.channel),
                pooling=self.pooling, upsample=self.upsample, residual=self.residual,
                aggregate_scale=self.aggregate_scale, negative_slope=self.negative_slope,
                training=self.norm.training, momentum=self._share_of_batch(), eps=self.eps, group=group,
            )  # fmt: skip
        if running_mean.dtype != self.running_mean.dtype:  # features more precise than the buffers, or less
            self.running_mean.copy_(running_mean)
            self.running_var.copy_(running_var)
        return y

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, counts: Tensor) -> None:
        """Running statistics; like PyTorch's, with the unbiased variance. Without any values they stay."""
        count = counts[:, None]
        unbiased = variance * (count / (count - 1).clamp(min=1))
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
            blended = running.lerp(batch.to(running.dtype), self._share_of_batch())
            running.copy_(torch.where(count > 0, blended, running))

    def _share_of_batch(self) -> float:
        """What the newest batch counts for in the running statistics, as in PyTorch's batch norms."""
        return 1 / max(1, int(self.norm.num_batches_tracked)) if self.momentum is None else self.momentum

    def _for_all_maps(self, parameter: Tensor | None) -> Tensor | None:
        """A row for every map from shared rows."""
        if parameter is None or self.share_parameters is False:
            return parameter
        if self.share_parameters is True:
            return parameter.expand(len(self.running_mean), -1)
        counts = [rows * columns for rows, columns in self.divisions]
        return torch.cat(
            [row.expand(count, -1) for row, count in zip(parameter.split(1), counts, strict=True)]
        )

    def _check_input(self, x: Tensor) -> None:
        _checks.check_features(x, "x", tuple(self.layout), OP)
        sizes = {"C": self.channels, "H": self.height, "W": self.width}
        expected = tuple(sizes[side] for side in self.layout[1:])
        if tuple(x.shape[1:]) != expected:
            shape = ", ".join(map(str, ("N", *expected)))
            raise ValueError(f"{OP}: x must have shape ({shape}), got {tuple(x.shape)}")
        device = self.norm.weight.device
        if x.device != device:
            raise ValueError(f"{OP}: x must be on the device of the parameters ({device}), got {x.device}")

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, {self.height}, {self.width}, levels={self.levels}, scales={self.scales}, "
            f"neighborhood={self.neighborhood!r}, channel_window={self.channel_window}, "
            f"edges={self.edges!r}, split={self.split!r}, residual={self.residual}, spatial={self.spatial}, "
            f"channel={self.channel}, ablate={self.ablate!r}, upsample={self.upsample!r}, impl={self.impl!r}"
        )

    @classmethod
    def insert_after(cls, model: nn.Module, name: str, image_size: tuple[int, int], **options: Any) -> HSGM:
        """Puts a module behind the layer ``name`` of ``model`` (HSGNet, Figs. 6 and 7) and returns it.

        Args:
            model: any network of images (1, 3, H, W), such as a torchvision or timm ResNet.
            name: the layer's dotted name, ``"layer3"`` for the paper's best place. An ``nn.Sequential`` gets
                the module as its last child ``hsgm``, so that existing state-dict keys stay; another layer
                (also a Sequential with a forward of its own) is replaced by a Sequential of ``body`` (the
                layer) and ``hsgm``. Stages that give (N, H, W, C), as Swin's do, are noticed.
            image_size: height and width of the images: one is run through the model, up to the layer, to see
                the features' size.
            **options: of :class:`HSGM`.

        Raises:
            ValueError: no such layer, it has an ``hsgm`` already, it gives no features of four dimensions, or
                it can't be told which of them are height and width (then say ``layout``).

        Example:
            >>> model = torchvision.models.resnet50()
            >>> module = reid_ops.HSGM.insert_after(model, "layer3", image_size=(256, 256))
        """
        module: HSGM = insert_after(cls, model, name, image_size, options)
        return module
