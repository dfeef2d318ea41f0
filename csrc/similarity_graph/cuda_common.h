// similarity_graph on CUDA: element types, sums over warps and blocks, and how blocks walk the features.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/launch.h"
#include "similarity_graph/kernels.h"

namespace reid_ops::similarity_graph {
namespace {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarp = 32;
constexpr int kThreads = 128;  // of every block
constexpr int kWarps = kThreads / kWarp;
constexpr int kPixelsPerLane = 4;
constexpr int kSegment = kWarp * kPixelsPerLane;  // pixels of a region a block works on at a time
constexpr int kChannelsPerWarp = kChannelChunk / kWarps;
static_assert(kChannelChunk == kThreads, "channels-last kernels give every thread one channel of a chunk");

// Storage type S to computing type T and back.
template <typename T>
__device__ __forceinline__ T widen(float value) {
  return value;
}
template <typename T>
__device__ __forceinline__ T widen(double value) {
  return value;
}
template <typename T>
__device__ __forceinline__ T widen(__half value) {
  return __half2float(value);
}
template <typename T>
__device__ __forceinline__ T widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
template <typename T>
__device__ __forceinline__ void narrow(T value, float* target) {
  *target = value;
}
template <typename T>
__device__ __forceinline__ void narrow(T value, double* target) {
  *target = value;
}
template <typename T>
__device__ __forceinline__ void narrow(T value, __half* target) {
  *target = __float2half_rn(value);
}
template <typename T>
__device__ __forceinline__ void narrow(T value, __nv_bfloat16* target) {
  *target = __float2bfloat16_rn(value);
}

// One exchange of warp_sums: each lane keeps one half of its values, summed over it and its partner.
template <int kCount, int kStep, typename T>
__device__ __forceinline__ T fold_sums(T (&values)[kCount]) {
  constexpr int kDistance = kWarp / 2 / kStep;
  if constexpr (kDistance == 0) {
    return values[0];
  } else if constexpr (kStep >= kCount) {
    values[0] += __shfl_xor_sync(kFullWarp, values[0], kDistance);
  } else {
    constexpr int kHalf = kCount / 2 / kStep;
    const bool upper = threadIdx.x & kDistance;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T kept = upper ? values[i + kHalf] : values[i], given = upper ? values[i] : values[i + kHalf];
      values[i] = kept + __shfl_xor_sync(kFullWarp, given, kDistance);
    }
  }
  if constexpr (kDistance > 0) return fold_sums<kCount, 2 * kStep>(values);
}

// Sums of kCount values over a warp, all at once: each exchange halves the values a lane still holds, so
// 8 values take 9 shuffles and not 40. kCount is 1, 2, 4, 8 or 16. Lane `index * (32 / kCount)` gets sum
// `index`.
template <int kCount, typename T>
__device__ __forceinline__ T warp_sums(T (&values)[kCount]) {
  return fold_sums<kCount, 1>(values);
}

// The sum over a block, for every thread. All threads must call it.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double warps[kWarps];
  double one[1] = {value};
  const double sum = warp_sums<1>(one);
  __syncthreads();  // the last call's readers are done
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = sum;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += warps[warp];
  return total;
}

// A block's place: one image's chunk of channels in one region.
struct BlockPlace {
  std::int64_t image, chunk, first_channel;
  int region, channels;
  Area area;

  __device__ __forceinline__ BlockPlace(const Features& features, std::int64_t block) {
    const Geometry& geometry = features.geometry;
    const int regions = geometry.regions();
    region = static_cast<int>(block % regions);
    const std::int64_t chunks = features.chunks();
    chunk = block / regions % chunks;
    image = block / regions / chunks;
    first_channel = chunk * kChannelChunk;
    const std::int64_t left = geometry.channels - first_channel;
    channels = left < kChannelChunk ? static_cast<int>(left) : kChannelChunk;
    area = geometry.region(region);
  }
  // Pixel `index` of the region, as an offset in the map.
  __device__ __forceinline__ int pixel(int index, int width) const {
    return (area.top + index / area.columns()) * width + area.left + index % area.columns();
  }
};

// The pixels a lane owns in one segment of a region: -1 where there is none.
struct LanePixels {
  int offset[kPixelsPerLane];

  __device__ __forceinline__ LanePixels(const BlockPlace& place, int segment, int width) {
#pragma unroll
    for (int j = 0; j < kPixelsPerLane; ++j) {
      const int index = segment * kSegment + j * kWarp + static_cast<int>(threadIdx.x) % kWarp;
      offset[j] = index < place.area.size() ? place.pixel(index, width) : -1;
    }
  }
};

inline std::int64_t blocks_of(const Features& features) {
  return features.geometry.batch * features.chunks() * features.geometry.regions();
}

inline dim3 grid_of(std::int64_t blocks) {
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(blocks, 0x7fffffff)));
}

// A grid with a thread for every item; kernels loop, so a smaller one would do.
inline dim3 grid_of_items(std::int64_t items) { return grid_of((items + kThreads - 1) / kThreads); }

__device__ __forceinline__ std::int64_t first_item() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
__device__ __forceinline__ std::int64_t item_step() {
  return static_cast<std::int64_t>(gridDim.x) * kThreads;
}

}  // namespace
}  // namespace reid_ops::similarity_graph
