// k_reciprocal on CUDA: what a warp does together, and how a block's elements become distances.
#pragma once

#include "common/launch.h"
#include "k_reciprocal/kernels.h"

namespace reid_ops::k_reciprocal {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocksAtLeast = 8;  // on a multiprocessor: leaves 64 registers a thread, none spilled
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr std::int64_t kMostBlocks = 1 << 20;  // items beyond that are taken in turn

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ std::int64_t warp_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + (threadIdx.x >> 5);
}
__device__ __forceinline__ std::int64_t warp_count() { return static_cast<std::int64_t>(gridDim.x) * kWarps; }
__device__ __forceinline__ int lanes_before(unsigned mask) {
  return __popc(mask & ((1u << lane_index()) - 1u));
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}
template <typename T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAll, value, step);
    value = other > value ? other : value;
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T measured(const Block& block, std::int64_t row, std::int64_t column) {
  T value = static_cast<const T*>(block.values)[row * block.stride + column];
  if (block.measure != Measure::kGiven) {
    const T a = static_cast<const T*>(block.row_terms)[row];
    const T b = static_cast<const T*>(block.column_terms)[column];
    if (block.measure == Measure::kEuclidean) {
      value = (a + b) - T(2) * value;
      value = value > T(0) ? value : T(0);
    } else {
      value = T(1) - value * a * b;
    }
  }
  for (std::int64_t time = 0; time < block.squarings; ++time) value = value * value;
  return value;
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
