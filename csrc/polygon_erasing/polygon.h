// The polygon through an image's points and the pixels it erases, in integers.
//
// The raster rule: a pixel is erased when its centre lies in or on the polygon. A polygon is a set
// of convex pieces (the hull is one, a star one triangle a point), and a row meets a convex piece in
// one interval, from the least to the greatest crossing of its edges with the line through the
// row's pixel centres.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "polygon_erasing/rule.h"

namespace reid_ops::polygon_erasing {

// (b - a) x (c - a): positive when c lies to the left of a -> b (y pointing up).
REID_OPS_HOST_DEVICE inline std::int64_t cross(Point a, Point b, Point c) {
  return (std::int64_t{b.x} - a.x) * (std::int64_t{c.y} - a.y) -
         (std::int64_t{b.y} - a.y) * (std::int64_t{c.x} - a.x);
}

// ------------------------------------------------------------------------------------ order of points

// The hull's order: down the image, then across; ties by index make it total.
REID_OPS_HOST_DEVICE inline bool precedes_in_rows(const Point* points, int i, int j) {
  if (points[i].y != points[j].y) return points[i].y < points[j].y;
  if (points[i].x != points[j].x) return points[i].x < points[j].x;
  return i < j;
}

// 0 at the centre itself, 1 for angles in [0, pi), 2 for [pi, 2 pi).
REID_OPS_HOST_DEVICE inline int half_turn(Point center, Point point) {
  if (point.x == center.x && point.y == center.y) return 0;
  return point.y > center.y || (point.y == center.y && point.x > center.x) ? 1 : 2;
}

// The star's order: by angle around the centre, then outwards, then by index.
REID_OPS_HOST_DEVICE inline bool precedes_in_angle(const Point* points, Point center, int i, int j) {
  const int half_i = half_turn(center, points[i]), half_j = half_turn(center, points[j]);
  if (half_i != half_j) return half_i < half_j;
  const std::int64_t turn = cross(center, points[i], points[j]);
  if (turn != 0) return turn > 0;
  const std::int64_t xi = std::int64_t{points[i].x} - center.x, yi = std::int64_t{points[i].y} - center.y;
  const std::int64_t xj = std::int64_t{points[j].x} - center.x, yj = std::int64_t{points[j].y} - center.y;
  const std::int64_t far_i = xi * xi + yi * yi, far_j = xj * xj + yj * yj;
  if (far_i != far_j) return far_i < far_j;
  return i < j;
}

// The mean of the points, rounded to the grid. All coordinates are >= 0.
REID_OPS_HOST_DEVICE inline Point center_of(const Point* points, int count) {
  std::int64_t x = 0, y = 0;
  for (int i = 0; i < count; ++i) x += points[i].x, y += points[i].y;
  return {static_cast<std::int32_t>((x + count / 2) / count),
          static_cast<std::int32_t>((y + count / 2) / count)};
}

// One side of the convex hull by Andrew's monotone chain: from the first to the last of the points in
// row order, keeping turns to the left (side = 1) or to the right (side = -1) only. The other side
// closes the hull. Returns how many points the chain has: at least two, also when all are equal.
REID_OPS_HOST_DEVICE inline int hull_side(const Point* sorted, int count, int side, Point* chain) {
  int length = 0;
  for (int i = 0; i < count; ++i) {
    while (length >= 2 && side * cross(chain[length - 2], chain[length - 1], sorted[i]) <= 0) --length;
    chain[length++] = sorted[i];
  }
  return length;
}

// ------------------------------------------------------------------------------------- the raster rule

// Columns (or rows) first..last; empty when first > last.
struct Span {
  std::int32_t first, last;
};

REID_OPS_HOST_DEVICE inline Span empty_span() { return {0x7fffffff, -1}; }

// Pixels whose centres lie in [low, high] / denominator pixels, limited to 0..size-1.
REID_OPS_HOST_DEVICE inline Span span_between(std::int64_t low, std::int64_t high, std::int64_t size) {
  const std::int64_t first = (low - kHalfPixel + kPixel - 1) >> kSubpixelBits;  // ceiling
  const std::int64_t last = (high - kHalfPixel) >> kSubpixelBits;               // floor
  return {static_cast<std::int32_t>(first > 0 ? first : 0),
          static_cast<std::int32_t>(last < size - 1 ? last : size - 1)};
}

// Extends a row's span by the edge a-b, if it meets the line y through the row's pixel centres. The
// crossing is the rational number x = a.x + (b.x - a.x)(y - a.y) / (b.y - a.y); the column's number is
// (x - 1/2 pixel) / pixel, rounded up for the first and down for the last, in one exact division.
REID_OPS_HOST_DEVICE inline void extend_span(Span& span, Point a, Point b, std::int64_t y) {
  if (a.y > b.y) {
    const Point swapped = a;
    a = b, b = swapped;
  }
  if (y < a.y || y > b.y) return;
  std::int64_t first, last;
  const std::int64_t rise = std::int64_t{b.y} - a.y;
  if (rise == 0) {
    const std::int64_t low = a.x < b.x ? a.x : b.x, high = a.x < b.x ? b.x : a.x;
    first = (low - kHalfPixel + kPixel - 1) >> kSubpixelBits;
    last = (high - kHalfPixel) >> kSubpixelBits;
  } else {
    const std::int64_t numerator = (a.x - kHalfPixel) * rise + (std::int64_t{b.x} - a.x) * (y - a.y),
                       denominator = rise * kPixel;
    last = numerator / denominator;
    const std::int64_t rest = numerator - last * denominator;
    if (rest < 0) --last;  // division truncates towards zero
    first = rest == 0 ? last : last + 1;
  }
  if (first < span.first) span.first = static_cast<std::int32_t>(first);
  if (last > span.last) span.last = static_cast<std::int32_t>(last);
}

// A row's span of the polyline `chain`, from edge `begin` in steps (a warp shares the edges out).
REID_OPS_HOST_DEVICE inline void extend_span_by_chain(Span& span, const Point* chain, int count,
                                                      std::int64_t row, int begin, int step) {
  const std::int64_t y = row * kPixel + kHalfPixel;
  for (int edge = begin; edge + 1 < count; edge += step) extend_span(span, chain[edge], chain[edge + 1], y);
}

REID_OPS_HOST_DEVICE inline Span triangle_span(Point a, Point b, Point c, std::int64_t row) {
  Span span = empty_span();
  const std::int64_t y = row * kPixel + kHalfPixel;
  extend_span(span, a, b, y), extend_span(span, b, c, y), extend_span(span, c, a, y);
  return span;
}

REID_OPS_HOST_DEVICE inline Span clipped(Span span, std::int64_t size) {
  if (span.first < 0) span.first = 0;
  if (span.last > size - 1) span.last = static_cast<std::int32_t>(size - 1);
  return span;
}

}  // namespace reid_ops::polygon_erasing
