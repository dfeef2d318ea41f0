// k_reciprocal on CUDA: the sparse rows of V, from distances to inverted lists.
#pragma once

#include "k_reciprocal/cuda_common.h"

namespace reid_ops::k_reciprocal {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) pair_distances_kernel(PairDistances call) {
  const T* features = static_cast<const T*>(call.features);
  for (std::int64_t item = warp_index(); item < call.items; item += warp_count()) {
    for (std::int64_t e = call.offsets[item]; e < call.offsets[item + 1]; ++e) {
      const std::int64_t other = call.columns[e];
      T sum = T(0);
      if (other >= 0 && other < call.items) {
        for (std::int64_t k = lane_index(); k < call.dimension; k += 32) {
          const T difference = features[item * call.dimension + k] - features[other * call.dimension + k];
          sum += difference * difference;
        }
      } else {
        sum = T(INFINITY);
      }
      sum = warp_sum(sum);
      if (lane_index() == 0) static_cast<T*>(call.distances)[e] = sum;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) encode_kernel(Encode call) {
  const T* distances = static_cast<const T*>(call.distances);
  T* weights = static_cast<T*>(call.weights);
  for (std::int64_t item = warp_index(); item < call.items; item += warp_count()) {
    const T scale = static_cast<const T*>(call.scale)[item];
    const std::int64_t begin = call.offsets[item] + lane_index(), end = call.offsets[item + 1];
    T total = T(0);
    for (std::int64_t e = begin; e < end; e += 32) total += exp(-(distances[e] * scale));
    total = warp_sum(total);
    for (std::int64_t e = begin; e < end; e += 32) {
      const T weight = exp(-(distances[e] * scale));
      weights[e] = total > T(0) ? weight / total : weight;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) expand_kernel(Expand call) {
  const std::int64_t length = call.lists.length;
  const std::int64_t members = call.members < length ? call.members : length;
  const T* source = static_cast<const T*>(call.source.weights);
  for (std::int64_t item = warp_index(); item < call.lists.items; item += warp_count()) {
    const std::int32_t* neighbours = call.lists.neighbours + item * length;
    std::int64_t size = 0;
    int rows = 0;
    for (std::int64_t r = 0; r < members; ++r) {
      rows += neighbours[r] >= 0 && neighbours[r] < call.lists.items;
    }
    // Where row r holds `column`, or -1.
    const auto find = [&](std::int64_t r, std::int32_t column) {
      const std::int64_t other = neighbours[r];
      if (other < 0 || other >= call.lists.items) return std::int64_t{-1};
      std::int64_t e = call.source.offsets[other];
      const std::int64_t end = call.source.offsets[other + 1];
      while (e < end && call.source.columns[e] != column) ++e;
      return e < end ? e : std::int64_t{-1};
    };
    for (std::int64_t r = 0; r < members; ++r) {
      const std::int64_t other = neighbours[r];
      if (other < 0 || other >= call.lists.items) continue;
      const std::int64_t end = call.source.offsets[other + 1];
      for (std::int64_t base = call.source.offsets[other]; base < end; base += 32) {
        const std::int64_t e = base + lane_index();
        const std::int32_t column = e < end ? call.source.columns[e] : -1;
        bool first = e < end;
        for (std::int64_t before = 0; first && before < r; ++before) first = find(before, column) < 0;
        const unsigned firsts = __ballot_sync(kAll, first);
        if (call.columns != nullptr && first) {
          T sum = source[e];
          for (std::int64_t after = r + 1; after < members; ++after) {
            const std::int64_t found = find(after, column);
            if (found >= 0) sum += source[found];
          }
          const std::int64_t place = call.offsets[item] + size + lanes_before(firsts);
          call.columns[place] = column;
          static_cast<T*>(call.weights)[place] = sum / static_cast<T>(rows);
        }
        size += __popc(firsts);
      }
    }
    if (call.columns == nullptr && lane_index() == 0) call.sizes[item] = size;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) invert_kernel(Invert call) {
  for (std::int64_t row = call.first_row + warp_index(); row < call.items; row += warp_count()) {
    const std::int64_t end = call.source.offsets[row + 1];
    for (std::int64_t e = call.source.offsets[row] + lane_index(); e < end; e += 32) {
      const std::int64_t column = call.source.columns[e];
      const std::int64_t place = static_cast<std::int64_t>(
          atomicAdd(reinterpret_cast<unsigned long long*>(call.sizes + column), 1ull));
      if (call.rows == nullptr) continue;
      call.rows[call.offsets[column] + place] = static_cast<std::int32_t>(row - call.first_row);
      static_cast<T*>(call.weights)[call.offsets[column] + place] =
          static_cast<const T*>(call.source.weights)[e];
    }
  }
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
