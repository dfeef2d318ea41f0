"""One evaluator behind the public functions: a gallery prepared once, then any number of query blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _extension

from . import _inputs, _torch_ranks
from .report import Measures

BACKENDS = ("auto", "host", "torch")

# Rows of half precision are widened a block at a time, so that no second matrix is made.
_WIDENED = 1 << 22


class Engine:
    """Ranks queries against one gallery. Distances on the CPU go through C++, all others through torch."""

    def __init__(
        self,
        identities: np.ndarray,
        cameras: np.ndarray | None,
        junk: int | None,
        rule: str,
        backend: str,
        op: str,
    ) -> None:
        check_backend(backend, op)
        self.identities, self.cameras, self.junk, self.rule = identities, cameras, junk, rule
        self.backend, self.op = backend, op
        self.used = "torch"
        self._host_gallery: Any = None
        self._labels: dict[torch.device, _torch_ranks.Labels] = {}

    def evaluate(
        self, distance: _inputs.Matrix, identities: np.ndarray, cameras: np.ndarray | None, first_row: int = 0
    ) -> Measures:
        """Measures of a block of queries; ``first_row`` numbers its first query in errors."""
        measures, bad_row = self._run(distance, identities, cameras)
        if bad_row >= 0:
            raise _inputs.nan_error(first_row + bad_row, self.op)
        return measures

    def _run(
        self, distance: _inputs.Matrix, identities: np.ndarray, cameras: np.ndarray | None
    ) -> tuple[Measures, int]:
        host = runs_on_host(distance, self.backend, self.op)
        self.used = "host" if host else "torch"
        if host:
            return self._run_host(distance, identities, cameras)
        tensor = _inputs.as_torch(distance)
        device = tensor.device
        if device not in self._labels:
            self._labels[device] = _torch_ranks.Labels.on(device, self.identities, self.cameras)
        query = _torch_ranks.Labels.on(device, identities, cameras)
        return _torch_ranks.evaluate(tensor, query, self._labels[device], self.junk, self.rule)

    def _run_host(
        self, distance: _inputs.Matrix, identities: np.ndarray, cameras: np.ndarray | None
    ) -> tuple[Measures, int]:
        if self._host_gallery is None:
            self._host_gallery = _extension._host.Gallery(self.identities, self.cameras, self.junk, self.rule)
        threads = torch.get_num_threads()
        blocks = []
        for start, block in host_blocks(distance):
            rows = slice(start, start + block.shape[0])
            chosen = None if cameras is None else cameras[rows]
            bad_row, *values = self._host_gallery.evaluate(block, identities[rows], chosen, threads)
            if bad_row >= 0:
                return Measures(*values), start + bad_row
            blocks.append(Measures(*values))
        return (blocks[0] if len(blocks) == 1 else Measures.join(blocks)), -1


def check_backend(backend: str, op: str) -> None:
    """A known one, and built."""
    _inputs.choice(backend, "backend", BACKENDS, op)
    if backend == "host" and _extension._host is None:
        raise RuntimeError(f'{op}: backend "host" needs the compiled module reid_ops._host: build it')


def runs_on_host(distance: _inputs.Matrix, backend: str, op: str) -> bool:
    """Whether C++ is to read these distances."""
    on_cpu = not isinstance(distance, Tensor) or distance.device.type == "cpu"
    if backend == "host" and not on_cpu:
        raise ValueError(
            f'{op}: backend "host" needs distances on the CPU, got a tensor on {distance.device}'
        )
    return backend == "host" or (backend == "auto" and on_cpu and _extension._host is not None)


def host_blocks(distance: _inputs.Matrix) -> Any:
    """(first row, float32 or float64 rows with adjacent columns): the whole matrix wherever it fits."""
    dtypes = (torch.float32, torch.float64) if isinstance(distance, Tensor) else (np.float32, np.float64)
    wide = distance.dtype in dtypes
    if isinstance(distance, Tensor):
        adjacent = distance.stride(1) == 1 and distance.stride(0) >= 0
    else:
        adjacent = distance.strides[1] == distance.itemsize and distance.flags.aligned
    if wide and adjacent:
        yield 0, distance.numpy() if isinstance(distance, Tensor) else distance
        return
    step = max(1, _WIDENED // max(1, distance.shape[1]))
    for start in range(0, distance.shape[0], step):
        block = distance[start : start + step]
        if isinstance(block, Tensor):
            yield start, block.to(block.dtype if wide else torch.float32).contiguous().numpy()
        else:
            yield start, np.ascontiguousarray(block, np.float64 if block.itemsize == 8 else np.float32)
