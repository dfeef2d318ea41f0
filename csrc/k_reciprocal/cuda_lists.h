// k_reciprocal on CUDA: lists of neighbours, and the sets that are made of them.
#pragma once

#include "k_reciprocal/cuda_common.h"

namespace reid_ops::k_reciprocal {
namespace {

// Puts a candidate into an ascending list in global memory, behind those equally near.
template <typename T>
__device__ __forceinline__ void insert(T* distances, std::int32_t* indices, std::int64_t length, T distance,
                                       std::int32_t index) {
  std::int64_t base = (length - 1) / 32 * 32;
  while (true) {  // 32 places at a time, from the far end: what is farther moves one place on
    const std::int64_t place = base + lane_index();
    const bool valid = place < length;
    const T mine = valid ? distances[place] : distance;
    const std::int32_t number = valid ? indices[place] : 0;
    const bool moves = valid && mine > distance;
    __syncwarp(kAll);
    if (moves && place + 1 < length) distances[place + 1] = mine, indices[place + 1] = number;
    const unsigned staying = __ballot_sync(kAll, valid && !moves);
    if (staying != 0 || base == 0) {
      if (lane_index() == 0) distances[base + __popc(staying)] = distance;
      if (lane_index() == 0) indices[base + __popc(staying)] = index;
      break;
    }
    base -= 32;
  }
  __syncwarp(kAll);
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) nearest_kernel(Nearest call) {
  constexpr int kLoads = 4;
  const std::int64_t candidates = call.by_column ? call.block.rows : call.block.columns;
  for (std::int64_t item = warp_index(); item < call.items(); item += warp_count()) {
    T* distances = static_cast<T*>(call.distances) + item * call.neighbours;
    std::int32_t* indices = call.indices + item * call.neighbours;
    const std::int64_t self = call.self_candidate + item - call.first_candidate;
    T threshold = distances[call.neighbours - 1], largest = static_cast<T*>(call.largest)[item];
    for (std::int64_t base = 0; base < candidates; base += 32 * kLoads) {
      T value[kLoads];
      bool near = false;
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const std::int64_t candidate = base + load * 32 + lane_index();
        value[load] = threshold;
        if (candidate < candidates) {
          value[load] = call.by_column ? measured<T>(call.block, candidate, item)
                                       : measured<T>(call.block, item, candidate);
          if (candidate == self) value[load] = T(0);
          largest = value[load] > largest ? value[load] : largest;
        }
        near |= value[load] < threshold;
      }
      if (!__any_sync(kAll, near)) continue;
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        unsigned hits = __ballot_sync(kAll, value[load] < threshold);
        for (; hits != 0; hits &= hits - 1) {
          const int lane = __ffs(static_cast<int>(hits)) - 1;
          const T distance = __shfl_sync(kAll, value[load], lane);
          if (!(distance < threshold)) continue;  // an earlier hit has moved the threshold
          insert(distances, indices, call.neighbours, distance,
                 static_cast<std::int32_t>(call.first_candidate + base + load * 32 + lane));
          threshold = distances[call.neighbours - 1];
        }
      }
    }
    largest = warp_max(largest);
    if (lane_index() == 0) static_cast<T*>(call.largest)[item] = largest;
  }
}

__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) reverse_ranks_kernel(ReverseRanks call) {
  const std::int64_t length = call.lists.length, step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       k < call.lists.items * length; k += step) {
    const std::int32_t item = static_cast<std::int32_t>(k / length);
    const std::int64_t other = call.lists.neighbours[k];
    std::int64_t place = 0;
    if (other < 0 || other >= call.lists.items) place = length;
    while (place < length && call.lists.neighbours[other * length + place] != item) ++place;
    call.reverse[k] = static_cast<std::int32_t>(place);
  }
}

// Appends the marked lanes' numbers, in order of lanes, to a list that has none twice.
__device__ __forceinline__ void append(std::int32_t* list, std::int64_t& size, std::int64_t capacity,
                                       bool marked, std::int32_t number) {
  for (unsigned marks = __ballot_sync(kAll, marked); marks != 0; marks &= marks - 1) {
    const std::int32_t wanted = __shfl_sync(kAll, number, __ffs(static_cast<int>(marks)) - 1);
    bool known = false;
    for (std::int64_t k = lane_index(); k < size; k += 32) known |= list[k] == wanted;
    if (__any_sync(kAll, known) || size == capacity) continue;
    if (lane_index() == 0) list[size] = wanted;
    ++size;
    __syncwarp(kAll);
  }
}

__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) sets_kernel(Sets call) {
  const std::int64_t length = call.lists.length, capacity = call.capacity();
  if (warp_index() >= call.scratch_rows) return;  // the whole warp
  std::int32_t* list = call.scratch + warp_index() * capacity;
  // Lane's neighbour of `of`, and whether it returns the favour within `places`.
  const auto reciprocal = [&](std::int64_t of, std::int64_t place, std::int64_t places, std::int32_t& other) {
    if (place >= places) return false;
    other = call.lists.neighbours[of * length + place];
    return other >= 0 && other < call.lists.items && call.reverse[of * length + place] < places;
  };
  for (std::int64_t item = warp_index(); item < call.lists.items; item += call.scratch_rows) {
    std::int64_t size = 0;
    std::int32_t other = 0;
    for (std::int64_t base = 0; base < call.list; base += 32) {
      const bool marked = reciprocal(item, base + lane_index(), call.list, other);
      append(list, size, capacity, marked, other);
    }
    const std::int64_t members = size;
    for (std::int64_t k = 0; k < members; ++k) {
      const std::int64_t candidate = list[k];
      int overlap = 0, total = 0;
      for (std::int64_t base = 0; base < call.half; base += 32) {
        const bool marked = reciprocal(candidate, base + lane_index(), call.half, other);
        bool known = false;
        for (std::int64_t m = 0; marked && m < members; ++m) known |= list[m] == other;
        total += __popc(__ballot_sync(kAll, marked));
        overlap += __popc(__ballot_sync(kAll, known));
      }
      if (3 * overlap <= 2 * total) continue;
      for (std::int64_t base = 0; base < call.half; base += 32) {
        const bool marked = reciprocal(candidate, base + lane_index(), call.half, other);
        append(list, size, capacity, marked, other);
      }
    }
    if (call.columns == nullptr) {
      if (lane_index() == 0) call.sizes[item] = size;
    } else {
      for (std::int64_t k = lane_index(); k < size; k += 32) call.columns[call.offsets[item] + k] = list[k];
    }
    __syncwarp(kAll);  // the next item writes the same list
  }
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
