// similarity_graph: how HSGM cuts its features into maps. Shared by host code and CUDA kernels.
//
// Every level cuts H x W into rows x columns maps; map r of R begins at floor(r * H / R). A region is
// a rectangle that no level cuts: the product of all levels' row cuts and column cuts. So all pixels
// of a region lie in the same map of each level, which is what the kernels loop over.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/host_device.h"

namespace reid_ops::similarity_graph {

constexpr int kMaxLevels = 6;
constexpr int kMaxScales = 8;
constexpr int kMaxParts = 32;  // rows (columns) of maps in one level
constexpr int kMaxCuts = 64;   // row (column) boundaries of all levels together

struct Area {  // rows [top, bottom), columns [left, right)
  int top, bottom, left, right;
  REID_OPS_HOST_DEVICE int rows() const { return bottom - top; }
  REID_OPS_HOST_DEVICE int columns() const { return right - left; }
  REID_OPS_HOST_DEVICE int size() const { return rows() * columns(); }
};

struct Geometry {
  std::int64_t batch, channels;
  int height, width;
  int levels;
  int parts_down[kMaxLevels], parts_across[kMaxLevels];
  int region_rows, region_columns;
  int row_cuts[kMaxCuts + 1], column_cuts[kMaxCuts + 1];

  REID_OPS_HOST_DEVICE int pixels() const { return height * width; }
  REID_OPS_HOST_DEVICE int regions() const { return region_rows * region_columns; }
  REID_OPS_HOST_DEVICE int maps_before(int level) const {
    int count = 0;
    for (int l = 0; l < level; ++l) count += parts_down[l] * parts_across[l];
    return count;
  }
  REID_OPS_HOST_DEVICE int maps() const { return maps_before(levels); }

  // The largest r with floor(r * size / parts) <= index.
  static REID_OPS_HOST_DEVICE int part_of(int index, int size, int parts) {
    return ((index + 1) * parts - 1) / size;
  }
  REID_OPS_HOST_DEVICE int map_of_pixel(int level, int row, int column) const {
    return maps_before(level) + part_of(row, height, parts_down[level]) * parts_across[level] +
           part_of(column, width, parts_across[level]);
  }
  REID_OPS_HOST_DEVICE int level_of(int map) const {
    int level = 0;
    while (map >= maps_before(level + 1)) ++level;
    return level;
  }
  REID_OPS_HOST_DEVICE Area map_area(int map) const {
    const int level = level_of(map), index = map - maps_before(level);
    const int down = parts_down[level], across = parts_across[level];
    const int row = index / across, column = index % across;
    return {row * height / down, (row + 1) * height / down, column * width / across,
            (column + 1) * width / across};
  }
  REID_OPS_HOST_DEVICE Area region(int index) const {
    const int row = index / region_columns, column = index % region_columns;
    return {row_cuts[row], row_cuts[row + 1], column_cuts[column], column_cuts[column + 1]};
  }
  REID_OPS_HOST_DEVICE int map_of_region(int level, int index) const {
    return map_of_pixel(level, row_cuts[index / region_columns], column_cuts[index % region_columns]);
  }
};

// Fills `cuts` with all levels' boundaries along one axis; returns the number of intervals, or -1
// when there are more than kMaxCuts.
inline int collect_cuts(int size, const int* parts, int levels, int* cuts) {
  int count = 0;
  for (int position = 0; position <= size; ++position) {
    bool is_cut = false;
    for (int l = 0; l < levels; ++l) {
      const int part = position == size ? parts[l] : Geometry::part_of(position, size, parts[l]);
      is_cut |= part * size / parts[l] == position;
    }
    if (!is_cut) continue;
    if (count > kMaxCuts) return -1;
    cuts[count++] = position;
  }
  return count - 1;
}

// AP_k along one axis of a map of `size` pixels: which pixels are averaged for `position`.
enum class Pooling : int { kSame = 0, kSamePadded = 1, kStride = 2, kValid = 3 };

struct Window {
  int begin, end, divisor;
};

inline REID_OPS_HOST_DEVICE Window pooling_window(int position, int size, int k, Pooling pooling) {
  int begin = position - (k - 1) / 2, end = begin + k;
  if (pooling == Pooling::kStride) {
    begin = position / k * k;
    end = begin + k;
  } else if (pooling == Pooling::kValid) {
    const int window = k < size ? k : size;
    begin = position * (size - window + 1) / size;
    end = begin + window;
  }
  begin = begin > 0 ? begin : 0;
  end = end < size ? end : size;
  return {begin, end, pooling == Pooling::kSamePadded ? k : end - begin};
}

// The adjoint: positions whose window may contain `pixel` lie in [begin, end).
inline REID_OPS_HOST_DEVICE Window positions_pooling(int pixel, int size, int k, Pooling pooling) {
  int begin = pixel - k, end = pixel + k + 1;
  if (pooling == Pooling::kValid && k > 1) {
    // Several positions share a window where the output is larger than the number of windows.
    begin = (pixel - k) * size / (size - (k < size ? k : size) + 1) - 1;
    end = (pixel + 1) * size / (size - (k < size ? k : size) + 1) + 1;
  }
  return {begin > 0 ? begin : 0, end < size ? end : size, 1};
}

}  // namespace reid_ops::similarity_graph
