// The erased region of one image, found by one block of threads and filled warp by warp.
//
// Points, sorting by rank and the two sides of the hull run side by side; a warp shares a row's edges
// out to its lanes. All functions are called by whole warps.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "polygon_erasing/polygon.h"

namespace reid_ops::polygon_erasing {

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

template <typename T>
__device__ __forceinline__ T element_of(double value) {
  return static_cast<T>(value);
}
template <>
__device__ __forceinline__ std::uint8_t element_of(double value) {
  return static_cast<std::uint8_t>(value + 0.5);
}
template <>
__device__ __forceinline__ __half element_of(double value) {
  return __float2half_rn(static_cast<float>(value));
}
template <>
__device__ __forceinline__ __nv_bfloat16 element_of(double value) {
  return __float2bfloat16_rn(static_cast<float>(value));
}

// What the threads of a block share. `first` holds the points as drawn, then the hull's left side.
struct CudaPolygon {
  Point first[kMaxPoints];
  Point sorted[kMaxPoints];  // in row order or by angle
  Point second[kMaxPoints];  // the hull's right side
  int length[2];
};

// A block's view of one image's region. Needs at least two warps.
struct CudaRegion {
  Box box = {};
  Span rows = {}, columns = {};
  Point center = {};
  int count = 0;
  Shape shape = Shape::kHull;
  std::int64_t width = 0;

  // Draws the image's box and polygon; false, without a barrier, when nothing is erased. Every thread
  // draws the same box, which is quicker than handing it round.
  __device__ bool draw(const Rule& rule, const Draws& draws, std::int64_t image_height,
                       std::int64_t image_width, CudaPolygon& polygon) {
    shape = rule.shape, width = image_width;
    box = draw_box(rule, draws, image_height, image_width);
    if (box.attempts <= 0) return false;
    rows = span_between(box.top, box.top + box.height, image_height);
    if (shape == Shape::kRectangle) {
      columns = span_between(box.left, box.left + box.width, image_width);
      return true;
    }
    count = static_cast<int>(rule.points);
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    for (int i = thread; i < count; i += threads) polygon.first[i] = draw_point(rule, draws, box, i);
    __syncthreads();
    center = center_of(polygon.first, count);
    for (int i = thread; i < count; i += threads) {
      int rank = 0;
      for (int j = 0; j < count; ++j) {
        rank += shape == Shape::kHull ? precedes_in_rows(polygon.first, j, i)
                                      : precedes_in_angle(polygon.first, center, j, i);
      }
      polygon.sorted[rank] = polygon.first[i];
    }
    __syncthreads();
    if (shape == Shape::kHull) {
      if (thread == 0) polygon.length[0] = hull_side(polygon.sorted, count, 1, polygon.first);
      if (thread == kWarp) polygon.length[1] = hull_side(polygon.sorted, count, -1, polygon.second);
      __syncthreads();
      rows = span_between(polygon.sorted[0].y, polygon.sorted[count - 1].y, image_height);
    } else if (rule.placement == Placement::kPublishedCode) {
      rows = span_between(box.top, box.top + box.height + kPixel, image_height);  // points at pixel centres
    }
    return true;
  }

  // How many intervals a row may have.
  __device__ int pieces() const { return shape == Shape::kStar ? count : 1; }

  // Interval `piece` of a row, the same for all lanes of the warp.
  __device__ Span span(const CudaPolygon& polygon, std::int64_t row, int piece) const {
    if (shape == Shape::kRectangle) return columns;
    if (shape == Shape::kStar) {
      const int next = piece + 1 < count ? piece + 1 : 0;
      return clipped(triangle_span(center, polygon.sorted[piece], polygon.sorted[next], row), width);
    }
    Span span = empty_span();
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    extend_span_by_chain(span, polygon.first, polygon.length[0], row, lane, kWarp);
    extend_span_by_chain(span, polygon.second, polygon.length[1], row, lane, kWarp);
    span.first = __reduce_min_sync(kFullWarp, span.first);
    span.last = __reduce_max_sync(kFullWarp, span.last);
    return clipped(span, width);
  }
};

// Fills one interval of a row by one warp. `value(channel, level)` is the element for a drawn level,
// or for Fill::kConstant the channel's constant whatever the level.
template <typename T, typename Value>
__device__ __forceinline__ void paint(T* image, std::int64_t channels, std::int64_t height,
                                      std::int64_t width, const std::int64_t (&stride)[3], Fill fill,
                                      const Draws& draws, std::int64_t row, Span span, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int columns = span.last - span.first + 1;
  T* const start = image + row * stride[1] + span.first * stride[2];
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    const std::int64_t first = (channel * height + row) * width + span.first;
    const int level = fill == Fill::kRandom || fill == Fill::kChannel
                          ? draw_level(draws, fill == Fill::kChannel ? channel : 0)
                          : 0;
    const T whole = value(channel, level);
    for (int column = lane; column < columns; column += kWarp) {
      // race: a star's triangles overlap, and a pixel's value is the same in each
      start[channel * stride[0] + column * stride[2]] =
          fill == Fill::kPixel ? value(channel, draw_level(draws, first + column)) : whole;
    }
  }
}

}  // namespace reid_ops::polygon_erasing
