// similarity_graph on CUDA: all sums of the backward pass from one read of the output's gradient.
#pragma once

#include "similarity_graph/cuda_features.h"

namespace reid_ops::similarity_graph {
namespace {

// 2 * levels values go through one warp_sums, in powers of two: 3 levels are 6 of 8, 6 levels 12 of 16.
template <int kLevels>
constexpr int kSumsTogether = LevelCount<kLevels>::capacity <= 1   ? 2
                              : LevelCount<kLevels>::capacity <= 2 ? 4
                              : LevelCount<kLevels>::capacity <= 4 ? 8
                                                                   : 16;

template <typename S, typename T, int kLevels>
__global__ void __launch_bounds__(kThreads, 1) sums_planes_kernel(Sums call) {
  constexpr int capacity = LevelCount<kLevels>::capacity, kTogether = kSumsTogether<kLevels>;
  __shared__ T pixel_sums[kWarps * capacity * kSegment];
  const Excite& excite = call.excite;
  const Geometry& geometry = excite.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels,
                     chunks = excite.features.chunks();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int levels = kLevels > 0 ? kLevels : geometry.levels;
  const T factor = static_cast<T>(excite.factor),
          slope = static_cast<T>(excite.factor * excite.negative_slope);
  const std::int64_t blocks = geometry.batch * chunks * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(excite.features, block);
    const LevelPlaces<kLevels> at(geometry, place);
    const S* grad_y = static_cast<const S*>(excite.x) + (place.image * channels + place.first_channel) * size;
    const int last = min((warp + 1) * kChannelsPerWarp, place.channels);
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const LanePixels pixels(place, segment, geometry.width);
      T a[capacity][kPixelsPerLane] = {}, by_pixel[capacity][kPixelsPerLane] = {};
#pragma unroll
      for (int l = 0; l < capacity; ++l) {
        if (!LevelCount<kLevels>::has(l, geometry)) continue;
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          if (pixels.offset[j] >= 0)
            a[l][j] = static_cast<const T*>(excite.centred)[at.plane[l] + pixels.offset[j]];
        }
      }
      for (int c = warp * kChannelsPerWarp; c < last; ++c) {
        T grad[kPixelsPerLane];
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          grad[j] = pixels.offset[j] >= 0 ? widen<T>(grad_y[c * size + pixels.offset[j]]) : T(0);
        }
        T by_channel[kTogether] = {};  // totals of all levels, then moments
#pragma unroll
        for (int l = 0; l < capacity; ++l) {
          if (!LevelCount<kLevels>::has(l, geometry)) continue;
          const T scale = static_cast<const T*>(excite.scale)[at.map_row[l] + c];
          const T shift = static_cast<const T*>(excite.shift)[at.map_row[l] + c];
#pragma unroll
          for (int j = 0; j < kPixelsPerLane; ++j) {
            const T d = grad[j] * (a[l][j] * scale + shift > T(0) ? factor : slope);
            by_channel[l] += d;
            by_channel[kTogether / 2 + l] += d * a[l][j];
            by_pixel[l][j] += d * scale;
          }
        }
        const T sum = warp_sums(by_channel);
        const int index = lane / (kWarp / kTogether), level = index % (kTogether / 2);
        if (lane % (kWarp / kTogether) == 0 && level < levels) {
          T* target = static_cast<T*>(index < kTogether / 2 ? call.region_total : call.region_moment) +
                      ((place.image * geometry.regions() + place.region) * levels + level) * channels +
                      place.first_channel + c;
          *target = segment == 0 ? sum : *target + sum;
        }
      }
#pragma unroll
      for (int l = 0; l < capacity; ++l) {
        if (!LevelCount<kLevels>::has(l, geometry)) continue;
#pragma unroll
        for (int j = 0; j < kPixelsPerLane; ++j) {
          pixel_sums[(warp * levels + l) * kSegment + j * kWarp + lane] = by_pixel[l][j];
        }
      }
      __syncthreads();
      write_pixel_sums(pixel_sums, levels, place, segment, geometry.width, size,
                       static_cast<T*>(call.partial) + (place.image * chunks + place.chunk) * levels * size);
      __syncthreads();
    }
  }
}

template <typename S, typename T, int kLevels>
__global__ void __launch_bounds__(kThreads, 1) sums_last_kernel(Sums call) {
  constexpr int capacity = LevelCount<kLevels>::capacity;
  constexpr int kTogether = kSumsTogether<kLevels> / 2;  // one pixel's levels
  __shared__ T pixel_sums[kWarps * capacity * kSegment];
  const Excite& excite = call.excite;
  const Geometry& geometry = excite.features.geometry;
  const std::int64_t size = geometry.pixels(), channels = geometry.channels,
                     chunks = excite.features.chunks();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int c = static_cast<int>(threadIdx.x), levels = kLevels > 0 ? kLevels : geometry.levels;
  const T factor = static_cast<T>(excite.factor),
          slope = static_cast<T>(excite.factor * excite.negative_slope);
  const std::int64_t blocks = geometry.batch * chunks * geometry.regions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace place(excite.features, block);
    const LevelPlaces<kLevels> at(geometry, place);
    const bool active = c < place.channels;
    T scale[capacity] = {}, shift[capacity] = {}, total[capacity] = {}, moment[capacity] = {};
#pragma unroll
    for (int l = 0; l < capacity; ++l) {
      if (!active || !LevelCount<kLevels>::has(l, geometry)) continue;
      scale[l] = static_cast<const T*>(excite.scale)[at.map_row[l] + c];
      shift[l] = static_cast<const T*>(excite.shift)[at.map_row[l] + c];
    }
    const S* grad_y =
        static_cast<const S*>(excite.x) + place.image * size * channels + place.first_channel + c;
    for (int segment = 0; segment * kSegment < place.area.size(); ++segment) {
      const int count = min(kSegment, place.area.size() - segment * kSegment);
#pragma unroll 2
      for (int k = 0; k < count; ++k) {
        const int pixel = place.pixel(segment * kSegment + k, geometry.width);
        const T grad = active ? widen<T>(grad_y[pixel * channels]) : T(0);
        T by_pixel[kTogether] = {};
#pragma unroll
        for (int l = 0; l < capacity; ++l) {
          if (!LevelCount<kLevels>::has(l, geometry)) continue;
          const T a = static_cast<const T*>(excite.centred)[at.plane[l] + pixel];
          const T d = grad * (a * scale[l] + shift[l] > T(0) ? factor : slope);
          total[l] += d;
          moment[l] += d * a;
          by_pixel[l] = d * scale[l];
        }
        const T sum = warp_sums(by_pixel);
        const int level = lane / (kWarp / kTogether);
        if (lane % (kWarp / kTogether) == 0 && level < levels) {
          pixel_sums[(warp * levels + level) * kSegment + k] = sum;
        }
      }
      __syncthreads();
      write_pixel_sums(pixel_sums, levels, place, segment, geometry.width, size,
                       static_cast<T*>(call.partial) + (place.image * chunks + place.chunk) * levels * size);
      __syncthreads();
    }
#pragma unroll
    for (int l = 0; l < capacity; ++l) {
      if (!active || !LevelCount<kLevels>::has(l, geometry)) continue;
      const std::int64_t target =
          ((place.image * geometry.regions() + place.region) * levels + l) * channels + place.first_channel +
          c;
      static_cast<T*>(call.region_total)[target] = total[l];
      static_cast<T*>(call.region_moment)[target] = moment[l];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) sums_finish_kernel(Sums call) {
  const Geometry& geometry = call.excite.features.geometry;
  const std::int64_t channels = geometry.channels, chunks = call.excite.features.chunks(),
                     maps = geometry.maps();
  const std::int64_t size = static_cast<std::int64_t>(geometry.levels) * geometry.pixels();
  const std::int64_t pixels = geometry.batch * size;
  for (std::int64_t item = first_item(); item < pixels + geometry.batch * maps * channels;
       item += item_step()) {
    if (item < pixels) {
      const T* partial = static_cast<const T*>(call.partial) + item / size * chunks * size + item % size;
      T sum = 0;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * size];
      static_cast<T*>(call.sums)[item] = sum;
      continue;
    }
    const std::int64_t place = item - pixels, image = place / channels / maps;
    const int map = static_cast<int>(place / channels % maps);
    const std::int64_t first = geometry.level_of(map) * channels + place % channels;
    const std::int64_t stride = geometry.levels * channels;
    static_cast<T*>(call.total)[place] =
        sum_of_map(geometry, static_cast<const T*>(call.region_total) + first, stride, image, map);
    static_cast<T*>(call.moment)[place] =
        sum_of_map(geometry, static_cast<const T*>(call.region_moment) + first, stride, image, map);
  }
}

}  // namespace
}  // namespace reid_ops::similarity_graph
