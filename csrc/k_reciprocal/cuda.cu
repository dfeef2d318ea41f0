// k_reciprocal on CUDA: a warp works on an item, its 32 lanes on what the item's row holds.
//
// Deterministic: sums run in a fixed order; the only atomics are integer counters, and nothing depends
// on the order of what they place (a list of `invert` has every row at most once, and the sum of minima
// takes the lists one after another).
#include <algorithm>

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

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) zero_kernel(T* data, std::int64_t count) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < count;
       k += step) {
    data[k] = T(0);
  }
}

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

dim3 blocks_for(std::int64_t threads) {
  return dim3(static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, kMostBlocks)));
}
dim3 blocks_for_warps(std::int64_t warps) { return blocks_for(warps * 32); }

template <typename Single, typename Double, typename Call>
cudaError_t launch_as(DataType type, Single* single, Double* twice, dim3 blocks, const Call& call,
                      cudaStream_t stream) {
  if (type == DataType::kFloat64) return launch(twice, blocks, dim3(kThreads), 0, stream, call);
  return launch(single, blocks, dim3(kThreads), 0, stream, call);
}

template <typename T>
cudaError_t zero(T* data, std::int64_t count, cudaStream_t stream) {
  return launch(zero_kernel<T>, blocks_for(count), dim3(kThreads), 0, stream, data, count);
}

template <typename T>
cudaError_t launch_blend(const Blend& call, cudaStream_t stream) {
  cudaError_t error = zero(static_cast<T*>(call.scratch), call.block.rows * call.block.columns, stream);
  if (error != cudaSuccess) return error;
  error = launch(overlap_kernel<T>, blocks_for_warps(call.block.rows), dim3(kThreads), 0, stream, call);
  if (error != cudaSuccess) return error;
  dim3 blocks = blocks_for(call.block.columns);
  blocks.y = static_cast<unsigned>(std::min<std::int64_t>(call.block.rows, 65535));
  return launch(blend_kernel<T>, blocks, dim3(kThreads), 0, stream, call);
}

}  // namespace

cudaError_t cuda_launch(const Nearest& call, cudaStream_t stream) {
  return launch_as(call.type, nearest_kernel<float>, nearest_kernel<double>, blocks_for_warps(call.items()),
                   call, stream);
}
cudaError_t cuda_launch(const ReverseRanks& call, cudaStream_t stream) {
  return launch(reverse_ranks_kernel, blocks_for(call.lists.items * call.lists.length), dim3(kThreads), 0,
                stream, call);
}
cudaError_t cuda_launch(const Sets& call, cudaStream_t stream) {
  return launch(sets_kernel, blocks_for_warps(call.scratch_rows), dim3(kThreads), 0, stream, call);
}
cudaError_t cuda_launch(const PairDistances& call, cudaStream_t stream) {
  return launch_as(call.type, pair_distances_kernel<float>, pair_distances_kernel<double>,
                   blocks_for_warps(call.items), call, stream);
}
cudaError_t cuda_launch(const Encode& call, cudaStream_t stream) {
  return launch_as(call.type, encode_kernel<float>, encode_kernel<double>, blocks_for_warps(call.items), call,
                   stream);
}
cudaError_t cuda_launch(const Expand& call, cudaStream_t stream) {
  return launch_as(call.type, expand_kernel<float>, expand_kernel<double>, blocks_for_warps(call.lists.items),
                   call, stream);
}
cudaError_t cuda_launch(const Invert& call, cudaStream_t stream) {
  const cudaError_t error = zero(call.sizes, call.items, stream);
  if (error != cudaSuccess || call.first_row >= call.items) return error;
  return launch_as(call.type, invert_kernel<float>, invert_kernel<double>,
                   blocks_for_warps(call.items - call.first_row), call, stream);
}
cudaError_t cuda_launch(const Blend& call, cudaStream_t stream) {
  return call.type == DataType::kFloat64 ? launch_blend<double>(call, stream)
                                         : launch_blend<float>(call, stream);
}

}  // namespace reid_ops::k_reciprocal
