// Small kernels whose loops tests/tools/test_cuda_loops.py counts by hand in loops.sass:
//   nvcc -std=c++17 -O3 -lineinfo -cubin -arch=sm_90 loops.cu -o loops.cubin; nvdisasm -c -gi loops.cubin
#include <cuda_runtime.h>

// What is loaded is stored at once: the compiler may not move a load of `from` over a store to `to`.
__global__ void one_by_one(const float* from, float* to, int size) {
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += 64) {
    to[i] = from[i] * 2.0f;
    to[i + 32] = from[i + 32] * 2.0f;
  }
}

// All four loads before the stores.
__global__ void four_first(const float* __restrict__ from, float* __restrict__ to, int size) {
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += 128) {
    const float a = from[i], b = from[i + 32], c = from[i + 64], d = from[i + 96];
    to[i] = a, to[i + 32] = b, to[i + 64] = c, to[i + 96] = d;
  }
}

// A loop in a loop, with a division's slow path and a branch that one thread takes.
__global__ void sums(const float4* __restrict__ rows, double* out, int columns, int count) {
  __shared__ float partial[32];
  for (int row = 0; row < count; ++row) {
    float sum = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < columns; i += 32) {
      const float4 v = rows[row * columns + i];
      sum += v.x / v.y + v.z * v.w;
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) out[row] = static_cast<double>(partial[3]) / static_cast<double>(partial[4]);
    __syncthreads();
  }
}
