"""What this machine can do at best: copy bandwidth and arithmetic rates, measured once a run.

A large matrix product is the usual yardstick, but not every library's product reaches the machine's peak on
every processor: where a dense convolution is quicker, the floor takes that. So a share of the matmul rate can
exceed 1, a share of the peak hardly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness.model import Work
from benchmarks.harness.timing import Run, cuda_run, host_run

NOTE = (
    "copy: bytes read plus bytes written by a copy far larger than the caches; "
    "matmul: a square torch.mm, a size of its own and not the case's, TF32 off; "
    "convolution (CPU only, where it is computed directly): 3x3, 256 to 256 channels; best of five each. "
    "The peak is the quicker of both, for half precisions at least float32's, in which one may compute."
)


@dataclass(frozen=True)
class Floor:
    """The least time a piece of work needs here."""

    seconds: float
    bound: str  # "memory" or "compute"


class Floors:
    """Measured rates of one device, kept once measured. Threads are the current number of torch's."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._bandwidth: dict[int, float] = {}
        self._matmul: dict[tuple[str, int], tuple[float, int]] = {}
        self._convolution: dict[tuple[str, int], float] = {}

    def bandwidth(self) -> float:
        """Bytes a second of a large copy, read and written bytes together."""
        threads = torch.get_num_threads()
        if threads not in self._bandwidth:
            elements = (1 << 30 if self._device == "cuda" else 1 << 28) // 4
            source = torch.ones(elements, device=self._device)
            target = torch.empty_like(source).fill_(0.0)
            seconds = _best(self._run(lambda: target.copy_(source)))
            self._bandwidth[threads] = 2 * 4 * elements / seconds
        return self._bandwidth[threads]

    def matmul(self, dtype: torch.dtype) -> float:
        """Operations a second of a large square matrix product."""
        key = (_name(dtype), torch.get_num_threads())
        if key not in self._matmul:
            small, large = (2048, 8192) if self._device == "cuda" else (512, 2048)
            seconds = self._product(small, dtype)
            size = (
                large if seconds * (large / small) ** 3 < 1.0 else small
            )  # some dtypes have no fast product
            if size == large:
                seconds = self._product(large, dtype)
            self._matmul[key] = (2 * size**3 / seconds, size)
        return self._matmul[key][0]

    def convolution(self, dtype: torch.dtype) -> float:
        """Operations a second of a dense 3x3 convolution; 0 on CUDA, where it may be done with fewer."""
        if self._device == "cuda":
            return 0.0
        key = (_name(dtype), torch.get_num_threads())
        if key not in self._convolution:
            rate = self._dense(1, 64, 28, dtype)
            if rate > self.matmul(dtype) / 4:  # else this dtype has no fast one, and a large one takes long
                rate = max(rate, self._dense(4, 256, 56, dtype))
            self._convolution[key] = rate
        return self._convolution[key]

    def peak(self, dtype: torch.dtype) -> float:
        """The highest arithmetic rate found for this dtype."""
        dtypes = {dtype, torch.float32} if dtype.itemsize == 2 else {dtype}
        return max(rate(each) for each in dtypes for rate in (self.matmul, self.convolution))

    def floor(self, work: Work, dtype: torch.dtype) -> Floor:
        """The larger of memory time and compute time."""
        memory = (work.bytes_read + work.bytes_written) / self.bandwidth()
        compute = work.flops_in_bounds / self.peak(dtype)
        return Floor(memory, "memory") if memory > compute else Floor(compute, "compute")

    def to_json(self) -> dict[str, Any]:
        """What was measured, as data."""
        return {
            "copy": [
                {"threads": threads, "bytes_per_second": rate} for threads, rate in self._bandwidth.items()
            ],
            "matmul": [
                {"dtype": dtype, "threads": threads, "size": size, "flops_per_second": rate}
                for (dtype, threads), (rate, size) in self._matmul.items()
            ],
            "convolution": [
                {"dtype": dtype, "threads": threads, "flops_per_second": rate}
                for (dtype, threads), rate in self._convolution.items()
            ],
            "note": NOTE,
        }

    def _product(self, size: int, dtype: torch.dtype) -> float:
        left = torch.randn(size, size, device=self._device).to(dtype)
        right = torch.randn(size, size, device=self._device).to(dtype)
        return _best(self._run(lambda: torch.mm(left, right)))

    def _dense(self, batch: int, channels: int, side: int, dtype: torch.dtype) -> float:
        images = torch.randn(batch, channels, side, side).to(dtype)
        filters = torch.randn(channels, channels, 3, 3).to(dtype)
        try:
            seconds = _best(self._run(lambda: torch.nn.functional.conv2d(images, filters, padding=1)))
        except RuntimeError:  # no convolution for this dtype
            return 0.0
        return 2 * 9 * batch * (channels * side) ** 2 / seconds

    def _run(self, call: Any) -> Run:
        return cuda_run([call]) if self._device == "cuda" else host_run([call])


def _best(run: Run) -> float:
    run(1)
    return min(run(1) for _ in range(5))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
