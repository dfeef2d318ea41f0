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

// AP_k along one axis of a map of `size` pixels.
enum class Pooling : int {
  kSame = 0,
  kSamePadded = 1,
  kStride = 2,
  kValid = 3,
  kStrideBilinear = 4,
  kValidBilinear = 5
};

struct Window {  // pixels [begin, end), their sum divided by `divisor`
  int begin, end, divisor;
};

// A position's value is the mean of one window, or between those of two neighbouring ones. (Loops over
// them have a fixed length, so that the arrays stay in registers on CUDA.)
struct Taps {
  int count;
  Window window[2];
  int share[2], of;

  template <typename T>
  REID_OPS_HOST_DEVICE T weight(int tap) const {
    return static_cast<T>(share[tap]) / static_cast<T>(of);
  }
  // What a pixel counts for.
  template <typename T>
  REID_OPS_HOST_DEVICE T share_of(int pixel) const {
    T sum = 0;
    for (int tap = 0; tap < 2; ++tap) {
      const Window& own = window[tap];
      if (tap < count && pixel >= own.begin && pixel < own.end)
        sum += weight<T>(tap) / static_cast<T>(own.divisor);
    }
    return sum;
  }
};

// The windows that bilinear up-sampling starts from: side by side, or at every pixel and wholly inside.
inline REID_OPS_HOST_DEVICE int pooling_windows(int size, int k, Pooling pooling) {
  return pooling == Pooling::kStrideBilinear ? (size + k - 1) / k : size - (k < size ? k : size) + 1;
}

inline REID_OPS_HOST_DEVICE Taps pooling_taps(int position, int size, int k, Pooling pooling) {
  if (pooling == Pooling::kStrideBilinear || pooling == Pooling::kValidBilinear) {
    // Pixel centres are aligned as in PyTorch: window `above / below` of `windows`, edges repeated.
    const int windows = pooling_windows(size, k, pooling), below = 2 * size;
    int above = (2 * position + 1) * windows - size;  // below 2^31 for sizes up to 2^15
    above = above > 0 ? above : 0;
    const int first = above / below, rest = above % below;
    const int step = pooling == Pooling::kStrideBilinear ? k : 1, length = k < size ? k : size;
    Taps taps = {};
    taps.count = rest > 0 && first + 1 < windows ? 2 : 1;
    for (int tap = 0; tap < 2; ++tap) {
      const int begin = (first + tap) * step, end = begin + length < size ? begin + length : size;
      taps.window[tap] = {begin, end, end - begin};
    }
    taps.of = taps.count == 2 ? below : 1;
    taps.share[0] = taps.count == 2 ? below - rest : 1;
    taps.share[1] = rest;
    return taps;
  }
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
  return {1, {{begin, end, pooling == Pooling::kSamePadded ? k : end - begin}, {}}, {1, 0}, 1};
}

// The adjoint: positions whose windows may contain `pixel` lie in [begin, end).
inline REID_OPS_HOST_DEVICE Window positions_pooling(int pixel, int size, int k, Pooling pooling) {
  std::int64_t begin = pixel - k, end = std::int64_t{pixel} + k + 1;
  if (pooling == Pooling::kValid && k > 1) {
    // Several positions share a window where the output is larger than the number of windows.
    const std::int64_t windows = size - (k < size ? k : size) + 1;
    begin = begin * size / windows - 1;
    end = (std::int64_t{pixel} + 1) * size / windows + 1;
  } else if (pooling == Pooling::kStrideBilinear || pooling == Pooling::kValidBilinear) {
    // Window i reaches positions whose place among the windows lies between i - 1 and i + 1.
    const bool is_stride = pooling == Pooling::kStrideBilinear;
    const std::int64_t windows = pooling_windows(size, k, pooling);
    const std::int64_t first = is_stride ? pixel / k : begin, last = is_stride ? first : pixel;
    begin = (2 * first - 1) * size / (2 * windows) - 2;
    end = (2 * last + 3) * size / (2 * windows) + 1;
  }
  return {static_cast<int>(begin > 0 ? begin : 0), static_cast<int>(end < size ? end : size), 1};
}

}  // namespace reid_ops::similarity_graph
