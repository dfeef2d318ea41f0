"""Benchmarks: ``python -m benchmarks [op ...]``, one module per operator.

How to read the table
---------------------
Every row is one case (sizes), one mode (what is computed) and one number of threads.

* **ours**: median milliseconds a call over the rounds, and half the inter-quartile range.
* **eager**: the quickest of all plain PyTorch formulations of that operator *for that row in that run*, and
  which one it was. Its ratio is "eager / ours": above 1 we are faster.
* **own bwd**: a PyTorch formulation whose backward pass is written by hand as an ``autograd.Function``; kept
  apart because nobody gets it without deriving the gradient. Only in modes with a backward pass.
* **compiled**: the two quickest eager formulations of that row under ``torch.compile`` (compile time left
  out), the quicker of them. Where compilation takes minutes, an operator's module names fewer rows and
  formulations.
* **GFLOP/s**: two operations per filter tap, taps in the padding counted too (the papers' convention),
  divided by our median. **of matmul** compares it with the measured rate of a large matrix product of the
  same dtype and threads. It may exceed 100 %: taps in the padding need not be computed, and a library's
  product does not reach every processor's peak.
* **of peak**: taps inside the image only, against the highest arithmetic rate found on this machine, be it
  the matrix product or, on CPU, a dense convolution.
* **x floor**: our median over the least time this machine could need, the larger of (bytes that must be read
  and written) / (measured copy bandwidth) and (operations inside the image) / (that peak). 1 is perfect,
  except that inputs small enough for the caches may beat a floor made of memory traffic.
* **MB**: growth of the peak memory of a process of its own for one call, ours and the
  quickest eager one (on CUDA: of the allocator's peak).

How it is measured
------------------
Contenders must first agree with the float64 reference and with each other, in values, shape and layout; if
ours does not, the run stops and nothing is written. They are then timed in turn, A B C A B C ..., so that a
drift of the machine meets all of them alike. The JSON holds the ratio of the medians and the median of the
ratios round by round; where they differ, the machine was not steady. On CUDA the calls rotate over enough
copies of the inputs to defeat the L2 cache. On the CPU freed memory is kept for reuse, so that no
contender pays page faults for its output (see :func:`benchmarks.harness.machine.keep_freed_memory`).

If other processes use more than a tenth of a core meanwhile, the table says so and the JSON has
``"busy": true``: such figures, above all those with two threads, are not results.

Adding an operator: one module in this folder with a ``BENCHMARK`` of type
:class:`benchmarks.harness.model.Benchmark`; it is found by itself.
"""

import sys
from pathlib import Path

# Benchmarks run from a checkout, where reid_models is importable only if it is installed.
sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
