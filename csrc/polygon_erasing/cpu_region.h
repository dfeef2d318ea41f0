// The erased region of one image on the CPU, row by row, and how its elements are filled.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "common/float16.h"
#include "polygon_erasing/polygon.h"

namespace reid_ops::polygon_erasing {

// A value as an element: half types by way of float, uint8 to the nearest.
template <typename T>
inline T element_of(double value) {
  return static_cast<T>(value);
}
template <>
inline std::uint8_t element_of(double value) {
  return static_cast<std::uint8_t>(value + 0.5);
}
template <>
inline Float16 element_of(double value) {
  return to_float16(static_cast<float>(value));
}
template <>
inline BFloat16 element_of(double value) {
  return to_bfloat16(static_cast<float>(value));
}

class CpuRegion {
 public:
  // Draws the image's box and polygon; false when nothing is erased.
  bool draw(const Rule& rule, const Draws& draws, std::int64_t height, std::int64_t width) {
    shape_ = rule.shape;
    height_ = height, width_ = width;
    box_ = draw_box(rule, draws, height, width);
    if (box_.attempts <= 0) return false;
    rows_ = span_between(box_.top, box_.top + box_.height, height);
    if (shape_ == Shape::kRectangle) {
      columns_ = span_between(box_.left, box_.left + box_.width, width);
      return true;
    }
    count_ = static_cast<int>(rule.points);
    for (int i = 0; i < count_; ++i) points_[i] = draw_point(rule, draws, box_, i);
    center_ = center_of(points_, count_);
    std::iota(order_, order_ + count_, 0);
    if (shape_ == Shape::kHull) {
      std::sort(order_, order_ + count_, [this](int i, int j) { return precedes_in_rows(points_, i, j); });
    } else {
      std::sort(order_, order_ + count_,
                [this](int i, int j) { return precedes_in_angle(points_, center_, i, j); });
    }
    for (int i = 0; i < count_; ++i) sorted_[i] = points_[order_[i]];
    std::int64_t top = sorted_[0].y, bottom = sorted_[0].y;
    for (int i = 1; i < count_; ++i) {
      top = std::min<std::int64_t>(top, sorted_[i].y), bottom = std::max<std::int64_t>(bottom, sorted_[i].y);
    }
    rows_ = span_between(top, bottom, height);
    if (shape_ == Shape::kHull) {
      chain_length_[0] = hull_side(sorted_, count_, 1, chain_[0]);
      chain_length_[1] = hull_side(sorted_, count_, -1, chain_[1]);
    }
    return true;
  }

  int attempts() const { return box_.attempts; }
  Span rows() const { return rows_; }

  // Calls paint(span) for the intervals of one row; a star's may touch or overlap.
  template <typename Paint>
  void spans_of_row(std::int64_t row, const Paint& paint) const {
    if (shape_ == Shape::kRectangle) {
      paint(columns_);
    } else if (shape_ == Shape::kHull) {
      Span span = empty_span();
      for (int side = 0; side < 2; ++side)
        extend_span_by_chain(span, chain_[side], chain_length_[side], row, 0, 1);
      paint(clipped(span, width_));
    } else {
      for (int i = 0; i < count_; ++i) {
        paint(clipped(triangle_span(center_, sorted_[i], sorted_[i + 1 < count_ ? i + 1 : 0], row), width_));
      }
    }
  }

 private:
  Shape shape_;
  Box box_;
  std::int64_t height_, width_;
  Span rows_, columns_;
  int count_;
  Point center_;
  int order_[kMaxPoints];
  Point points_[kMaxPoints], sorted_[kMaxPoints];
  Point chain_[2][kMaxPoints];
  int chain_length_[2];
};

// One image's elements and what they are filled with.
template <typename T>
struct CpuPainter {
  T* image;
  std::int64_t channels, height, width;
  std::int64_t stride[3];  // of C, H, W
  Fill fill;
  Draws draws;
  const T* levels;             // [256] of channel 0
  std::int64_t levels_stride;  // to the next channel's: 256, or 0 when channels share them
  T* values;                   // [channels] what a channel is filled with, unless fill is kPixel

  // Before the first span: the values of the channels. Constants are already there.
  void choose_values() const {
    if (fill != Fill::kRandom && fill != Fill::kChannel) return;
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      values[channel] =
          levels[channel * levels_stride + draw_level(draws, fill == Fill::kChannel ? channel : 0)];
    }
  }

  void paint(std::int64_t row, Span span) const {
    if (span.first > span.last) return;
    const std::int64_t count = std::int64_t{span.last} - span.first + 1;
    T* const start = image + row * stride[1] + span.first * stride[2];
    if (fill == Fill::kPixel) {
      for (std::int64_t channel = 0; channel < channels; ++channel) paint_pixels(start, channel, row, span);
    } else if (stride[2] == 1) {
      for (std::int64_t channel = 0; channel < channels; ++channel) {
        std::fill_n(start + channel * stride[0], count, values[channel]);
      }
    } else {
      for (std::int64_t column = 0; column < count; ++column) {
        for (std::int64_t channel = 0; channel < channels; ++channel) {
          start[column * stride[2] + channel * stride[0]] = values[channel];
        }
      }
    }
  }

 private:
  void paint_pixels(T* start, std::int64_t channel, std::int64_t row, Span span) const {
    const T* const table = levels + channel * levels_stride;
    T* const target = start + channel * stride[0];
    const std::int64_t first = (channel * height + row) * width + span.first;
    const std::int64_t last = first + span.last - span.first;
    for (std::int64_t index = first; index <= last;) {  // four levels a block of words
      const PhiloxWords words = draws.words(Purpose::kFill, static_cast<std::uint64_t>(index) >> 2);
      const std::int64_t end = std::min(last, index | 3);
      for (; index <= end; ++index) target[(index - first) * stride[2]] = table[level_of(words, index)];
    }
  }
};

}  // namespace reid_ops::polygon_erasing
