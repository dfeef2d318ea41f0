// similarity_graph on CUDA: the passes over the features.
//
// A block works on one image's chunk of 128 channels in one region, where every level's map is fixed.
// [N,C,H,W]: a warp takes 32 of the channels one by one, its lanes own pixels, so that sums over channels
// stay in registers and only sums over pixels go through shuffles. [N,H,W,C]: the other way round.
// Deterministic: every partial sum has one owner and a fixed order.
#pragma once

#include "similarity_graph/cuda_common.h"

namespace reid_ops::similarity_graph {
namespace {

// kLevels 0: as many as the call says, at most kMaxLevels.
template <int kLevels>
struct LevelCount {
  static constexpr int capacity = kLevels > 0 ? kLevels : kMaxLevels;
  static __device__ __forceinline__ bool has(int level, const Geometry& geometry) {
    return kLevels > 0 || level < geometry.levels;
  }
};

// Offsets of one region in the small arrays: a level's plane of `centred`, its map's row of coefficients.
template <int kLevels>
struct LevelPlaces {
  std::int64_t plane[LevelCount<kLevels>::capacity], map_row[LevelCount<kLevels>::capacity];

  __device__ __forceinline__ LevelPlaces(const Geometry& geometry, const BlockPlace& place) {
#pragma unroll
    for (int l = 0; l < LevelCount<kLevels>::capacity; ++l) {
      plane[l] = map_row[l] = 0;
      if (!LevelCount<kLevels>::has(l, geometry)) continue;
      plane[l] = (place.image * geometry.levels + l) * geometry.pixels();
      map_row[l] =
          (place.image * geometry.maps() + geometry.map_of_region(l, place.region)) * geometry.channels +
          place.first_channel;
    }
  }
};

template <typename T>
__device__ __forceinline__ T leaky(T value, T slope) {
  return value > T(0) ? value : value * slope;
}

// Adds the warps' sums for a segment's pixels and writes them to `target`, planes of `size`.
template <typename T>
__device__ __forceinline__ void write_pixel_sums(const T* warp_sums_of_pixels, int planes,
                                                 const BlockPlace& place, int segment, int width,
                                                 std::int64_t size, T* target) {
  for (int index = static_cast<int>(threadIdx.x); index < planes * kSegment; index += kThreads) {
    const int plane = index / kSegment, pixel = segment * kSegment + index % kSegment;
    if (pixel >= place.area.size()) continue;
    T sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += warp_sums_of_pixels[warp * planes * kSegment + index];
    target[plane * size + place.pixel(pixel, width)] = sum;
  }
}

// ------------------------------------------------------------------ Squeeze

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads, 1) squeeze_planes_kernel(Squeeze call) {
  __shared__ T pixel_sums[kWarps * kSegment];
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels, chunks = call.features.chunks();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t blocks = geometry.batch * chunks * geometry.regions();
  constexpr int kTogether = 4;
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    const S* x = static_cast<const S*>(call.x) + (place.image * channels + place.first_channel) * size;
    T* region_sums = static_cast<T*>(call.region_sums) +
                     (place.image * geometry.regions() + place.region) * channels + place.first_channel;
    const int last = min((warp + 1) * kChannelsPerWarp, place.channels);
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const LanePixels pixels(place, segment, geometry.width);
      T by_pixel[kPixelsPerLane] = {};
      for (int c = warp * kChannelsPerWarp; c < last; c += kTogether) {
        T by_channel[kTogether] = {};
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
#pragma unroll
          for (int j = 0; j < kPixelsPerLane; ++j) {
            const bool exists = c + u < last && pixels.offset[j] >= 0;
            const T value = exists ? widen<T>(x[(c + u) * size + pixels.offset[j]]) : T(0);
            by_channel[u] += value;
            by_pixel[j] += value;
          }
        }
        const T sum = warp_sums(by_channel);
        const int mine = c + lane / (kWarp / kTogether);
        if (lane % (kWarp / kTogether) == 0 && mine < last) {
          region_sums[mine] = segment == 0 ? sum : region_sums[mine] + sum;
        }
      }
#pragma unroll
      for (int j = 0; j < kPixelsPerLane; ++j) pixel_sums[warp * kSegment + j * kWarp + lane] = by_pixel[j];
      __syncthreads();
      write_pixel_sums(pixel_sums, 1, place, segment, geometry.width, size,
                       static_cast<T*>(call.partial) + (place.image * chunks + place.chunk) * size);
      __syncthreads();
    }
  }
}

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads, 1) squeeze_last_kernel(Squeeze call) {
  __shared__ T pixel_sums[kWarps * kSegment];
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels, chunks = call.features.chunks();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int c = static_cast<int>(threadIdx.x);
  const std::int64_t blocks = geometry.batch * chunks * geometry.regions();
  constexpr int kTogether = 4;
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    const S* x = static_cast<const S*>(call.x) + place.image * size * channels + place.first_channel + c;
    T by_channel = 0;
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const int count = min(kSegment, place.area.size() - segment * kSegment);
      for (int k = 0; k < count; k += kTogether) {
        T by_pixel[kTogether];
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
          const bool exists = k + u < count && c < place.channels;
          const int pixel = exists ? place.pixel(segment * kSegment + k + u, geometry.width) : 0;
          by_pixel[u] = exists ? widen<T>(x[pixel * channels]) : T(0);
          by_channel += by_pixel[u];
        }
        const T sum = warp_sums(by_pixel);
        const int mine = k + lane / (kWarp / kTogether);  // below kSegment, a multiple of kTogether
        if (lane % (kWarp / kTogether) == 0) pixel_sums[warp * kSegment + mine] = sum;
      }
      __syncthreads();
      write_pixel_sums(pixel_sums, 1, place, segment, geometry.width, size,
                       static_cast<T*>(call.partial) + (place.image * chunks + place.chunk) * size);
      __syncthreads();
    }
    if (c < place.channels) {
      static_cast<T*>(call.region_sums)[(place.image * geometry.regions() + place.region) * channels +
                                        place.first_channel + c] = by_channel;
    }
  }
}

// The sum over the regions of one map of `source` [N, regions, stride] at a channel.
template <typename T>
__device__ __forceinline__ T sum_of_map(const Geometry& geometry, const T* source, std::int64_t stride,
                                        std::int64_t image, int map) {
  const int level = geometry.level_of(map);
  T sum = 0;
  for (int region = 0; region < geometry.regions(); ++region) {
    if (geometry.map_of_region(level, region) == map)
      sum += source[(image * geometry.regions() + region) * stride];
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) squeeze_finish_kernel(Squeeze call) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels, chunks = call.features.chunks();
  const std::int64_t pixels = geometry.batch * size, maps = geometry.maps();
  for (std::int64_t item = first_item(); item < pixels + geometry.batch * maps * channels;
       item += item_step()) {
    if (item < pixels) {
      const T* partial = static_cast<const T*>(call.partial) + item / size * chunks * size + item % size;
      T sum = 0;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * size];
      static_cast<T*>(call.squeezed)[item] = sum / static_cast<T>(channels);
    } else {
      const std::int64_t place = item - pixels, channel = place % channels;
      const int map = static_cast<int>(place / channels % maps);
      const T sum = sum_of_map(geometry, static_cast<const T*>(call.region_sums) + channel, channels,
                               place / channels / maps, map);
      static_cast<T*>(call.means)[place] = sum / static_cast<T>(geometry.map_area(map).size());
    }
  }
}

// ------------------------------------------------------------------ Excite

template <typename S, typename T, int kLevels>
__global__ void __launch_bounds__(kThreads, 1) excite_planes_kernel(Excite call) {
  constexpr int capacity = LevelCount<kLevels>::capacity;
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const T residual = static_cast<T>(call.residual), factor = static_cast<T>(call.factor);
  const T slope = static_cast<T>(call.negative_slope);
  const std::int64_t blocks = geometry.batch * call.features.chunks() * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    const LevelPlaces<kLevels> at(geometry, place);
    const std::int64_t plane = (place.image * channels + place.first_channel) * size;
    const int last = min((warp + 1) * kChannelsPerWarp, place.channels);
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const LanePixels pixels(place, segment, geometry.width);
      T a[capacity][kPixelsPerLane] = {};
#pragma unroll
      for (int l = 0; l < capacity; ++l) {
        if (!LevelCount<kLevels>::has(l, geometry)) continue;
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          if (pixels.offset[j] >= 0)
            a[l][j] = static_cast<const T*>(call.centred)[at.plane[l] + pixels.offset[j]];
        }
      }
      for (int c = warp * kChannelsPerWarp; c < last; ++c) {
        const S* x = static_cast<const S*>(call.x) + plane + c * size;
        S* y = static_cast<S*>(call.y) + plane + c * size;
        T sum[kPixelsPerLane] = {};
#pragma unroll
        for (int l = 0; l < capacity; ++l) {
          if (!LevelCount<kLevels>::has(l, geometry)) continue;
          const T scale = static_cast<const T*>(call.scale)[at.map_row[l] + c];
          const T shift = static_cast<const T*>(call.shift)[at.map_row[l] + c];
#pragma unroll
          for (int j = 0; j < kPixelsPerLane; ++j) sum[j] += leaky(a[l][j] * scale + shift, slope);
        }
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          if (pixels.offset[j] < 0) continue;
          narrow(widen<T>(x[pixels.offset[j]]) * residual + sum[j] * factor, y + pixels.offset[j]);
        }
      }
    }
  }
}

template <typename S, typename T, int kLevels>
__global__ void __launch_bounds__(kThreads, 1) excite_last_kernel(Excite call) {
  constexpr int capacity = LevelCount<kLevels>::capacity;
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels;
  const int c = static_cast<int>(threadIdx.x);
  const T residual = static_cast<T>(call.residual), factor = static_cast<T>(call.factor);
  const T slope = static_cast<T>(call.negative_slope);
  const std::int64_t blocks = geometry.batch * call.features.chunks() * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    if (c >= place.channels) continue;
    const LevelPlaces<kLevels> at(geometry, place);
    T scale[capacity] = {}, shift[capacity] = {};
#pragma unroll
    for (int l = 0; l < capacity; ++l) {
      if (!LevelCount<kLevels>::has(l, geometry)) continue;
      scale[l] = static_cast<const T*>(call.scale)[at.map_row[l] + c];
      shift[l] = static_cast<const T*>(call.shift)[at.map_row[l] + c];
    }
    const std::int64_t image = place.image * size * channels + place.first_channel + c;
    for (int row = place.area.top; row < place.area.bottom; ++row) {
#pragma unroll 4
      for (int column = place.area.left; column < place.area.right; ++column) {
        const std::int64_t pixel = static_cast<std::int64_t>(row) * geometry.width + column;
        T sum = 0;
#pragma unroll
        for (int l = 0; l < capacity; ++l) {
          if (!LevelCount<kLevels>::has(l, geometry)) continue;
          sum += leaky(static_cast<const T*>(call.centred)[at.plane[l] + pixel] * scale[l] + shift[l], slope);
        }
        const std::int64_t offset = image + pixel * channels;
        narrow(widen<T>(static_cast<const S*>(call.x)[offset]) * residual + sum * factor,
               static_cast<S*>(call.y) + offset);
      }
    }
  }
}

// ------------------------------------------------------------------ Input

template <typename T>
__device__ __forceinline__ T pixel_gradient(const Input& call, std::int64_t image, std::int64_t pixel) {
  if (call.grad_squeezed == nullptr) return T(0);
  const Geometry& geometry = call.features.geometry;
  T sum = 0;
  for (int l = 0; l < geometry.levels; ++l) {
    sum +=
        static_cast<const T*>(call.grad_squeezed)[(image * geometry.levels + l) * geometry.pixels() + pixel];
  }
  return sum / static_cast<T>(geometry.channels);
}

template <typename T>
__device__ __forceinline__ T channel_gradient(const Input& call, const BlockPlace& place, int c) {
  if (call.grad_means == nullptr) return T(0);
  const Geometry& geometry = call.features.geometry;
  T sum = 0;
  for (int l = 0; l < geometry.levels; ++l) {
    const int map = geometry.map_of_region(l, place.region);
    const std::int64_t row = (place.image * geometry.maps() + map) * geometry.channels;
    sum += static_cast<const T*>(call.grad_means)[row + place.first_channel + c] /
           static_cast<T>(geometry.map_area(map).size());
  }
  return sum;
}

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads, 1) input_planes_kernel(Input call) {
  __shared__ T by_channel[kChannelChunk];
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, thread = static_cast<int>(threadIdx.x);
  const T residual = static_cast<T>(call.residual);
  const std::int64_t blocks = geometry.batch * call.features.chunks() * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    if (thread < place.channels) by_channel[thread] = channel_gradient<T>(call, place, thread);
    __syncthreads();
    const std::int64_t plane = (place.image * channels + place.first_channel) * size;
    const int last = min((warp + 1) * kChannelsPerWarp, place.channels);
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const LanePixels pixels(place, segment, geometry.width);
      T by_pixel[kPixelsPerLane] = {};
#pragma unroll
      for (int j = 0; j < kPixelsPerLane; ++j) {
        if (pixels.offset[j] >= 0) by_pixel[j] = pixel_gradient<T>(call, place.image, pixels.offset[j]);
      }
#pragma unroll 4
      for (int c = warp * kChannelsPerWarp; c < last; ++c) {
        const S* grad_y = static_cast<const S*>(call.grad_y) + plane + c * size;
        S* grad_x = static_cast<S*>(call.grad_x) + plane + c * size;
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          if (pixels.offset[j] < 0) continue;
          narrow(widen<T>(grad_y[pixels.offset[j]]) * residual + (by_pixel[j] + by_channel[c]),
                 grad_x + pixels.offset[j]);
        }
      }
    }
    __syncthreads();  // by_channel is written again
  }
}

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads, 1) input_last_kernel(Input call) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels;
  const int c = static_cast<int>(threadIdx.x);
  const T residual = static_cast<T>(call.residual);
  const std::int64_t blocks = geometry.batch * call.features.chunks() * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(call.features, block);
    if (c >= place.channels) continue;
    const T by_channel = channel_gradient<T>(call, place, c);
    const std::int64_t image = place.image * size * channels + place.first_channel + c;
    for (int row = place.area.top; row < place.area.bottom; ++row) {
#pragma unroll 4
      for (int column = place.area.left; column < place.area.right; ++column) {
        const std::int64_t pixel = static_cast<std::int64_t>(row) * geometry.width + column;
        const std::int64_t offset = image + pixel * channels;
        narrow(widen<T>(static_cast<const S*>(call.grad_y)[offset]) * residual +
                   (pixel_gradient<T>(call, place.image, pixel) + by_channel),
               static_cast<S*>(call.grad_x) + offset);
      }
    }
  }
}

}  // namespace
}  // namespace reid_ops::similarity_graph
