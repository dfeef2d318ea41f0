"""Predicts the time of CUDA kernels that cannot be measured here. See docs/gpu.md."""
