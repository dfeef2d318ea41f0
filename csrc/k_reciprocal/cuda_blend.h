// k_reciprocal on CUDA: blocks of re-ranked distances.
#pragma once

#include "k_reciprocal/cuda_common.h"

namespace reid_ops::k_reciprocal {
namespace {

// m of every pair. A list names a row once, so lanes never meet; lists follow each other.
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) overlap_kernel(Blend call) {
  for (std::int64_t row = warp_index(); row < call.block.rows; row += warp_count()) {
    T* shared = static_cast<T*>(call.scratch) + row * call.block.columns;
    const std::int64_t item = call.first_row + row;
    for (std::int64_t e = call.rows.offsets[item]; e < call.rows.offsets[item + 1]; ++e) {
      const std::int64_t column = call.rows.columns[e];
      const T weight = static_cast<const T*>(call.rows.weights)[e];
      const std::int64_t end = call.inverse.offsets[column + 1];
      for (std::int64_t k = call.inverse.offsets[column] + lane_index(); k < end; k += 32) {
        const T other = static_cast<const T*>(call.inverse.weights)[k];
        shared[call.inverse.columns[k]] += other < weight ? other : weight;
      }
      __syncwarp(kAll);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) blend_kernel(Blend call) {
  const std::int64_t columns = call.block.columns;
  const T rest = static_cast<T>(1 - call.lambda), lambda = static_cast<T>(call.lambda);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t row = blockIdx.y; row < call.block.rows; row += gridDim.y) {
    const T* shared = static_cast<const T*>(call.scratch) + row * columns;
    T* output = static_cast<T*>(call.output) + row * call.block.stride;
    const T factor = call.scale == nullptr ? lambda : lambda * static_cast<const T*>(call.scale)[row];
    for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < columns;
         k += step) {
      T both = T(2) - shared[k];
      if (call.row_sums != nullptr) {
        both = static_cast<const T*>(call.row_sums)[row] + static_cast<const T*>(call.column_sums)[k] -
               shared[k];
      }
      const T jaccard = both > T(0) ? T(1) - shared[k] / both : T(1);
      const T distance = call.block.measure == Measure::kNone ? T(0) : measured<T>(call.block, row, k);
      output[k] = rest * (jaccard > T(0) ? jaccard : T(0)) + factor * distance;
    }
  }
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
