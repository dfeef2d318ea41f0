// augmentation on the CPU: one image at a time, a table lookup an element.
#include <algorithm>
#include <cstdint>

#include "augmentation/kernels.h"
#include "common/cpu_scratch.h"
#include "polygon_erasing/cpu_region.h"

namespace reid_ops::augmentation {
namespace {

using polygon_erasing::CpuPainter;
using polygon_erasing::CpuRegion;
using polygon_erasing::element_of;
using polygon_erasing::Fill;
using polygon_erasing::Span;

// One row of one channel: black, `count` looked-up elements from column `first` on, black.
template <typename T>
inline void write_row(const std::uint8_t* source, std::int64_t step, std::int64_t first, std::int64_t count,
                      std::int64_t width, const T* table, T* target) {
  std::fill(target, target + first, table[0]);
  T* const middle = target + first;
  for (std::int64_t x = 0; x < count; ++x) middle[x] = table[source[x * step]];
  std::fill(middle + count, target + width, table[0]);
}

template <typename T>
void copy_image(const Augment& call, const Geometry& geometry, std::int64_t n, const T* table, T* output) {
  // Columns of the output that lie in the image, and where the first of them comes from.
  const std::int64_t first = std::clamp<std::int64_t>(-geometry.left, 0, call.width);
  const std::int64_t end = std::clamp<std::int64_t>(geometry.width - geometry.left, first, call.width);
  const std::int64_t column = first + geometry.left;
  const std::int64_t step = geometry.flip ? -call.stride[3] : call.stride[3];
  const std::int64_t start = (geometry.flip ? geometry.width - 1 - column : column) * call.stride[3];
  for (std::int64_t y = 0; y < call.height; ++y) {
    const std::int64_t row = y + geometry.top;
    const bool inside = row >= 0 && row < geometry.height && first < end;
    for (std::int64_t channel = 0; channel < call.channels; ++channel) {
      T* const target = output + (channel * call.height + y) * call.width;
      const T* const levels = table + channel * 256;
      if (!inside) {
        std::fill(target, target + call.width, levels[0]);
        continue;
      }
      const std::uint8_t* const source =
          call.images + n * call.stride[0] + channel * call.stride[1] + row * call.stride[2] + start;
      if (step == 1) {  // a constant step lets the compiler simplify the loop
        write_row(source, 1, first, end - first, call.width, levels, target);
      } else {
        write_row(source, step, first, end - first, call.width, levels, target);
      }
    }
  }
}

template <typename T>
void erase_image(const Augment& call, const Erasing& erasing, std::uint64_t seed, std::int64_t n,
                 const T* table, const T* constants, T* values, CpuRegion& region, T* output) {
  if (!erasing.active) return;
  const Draws draws =
      draws_of(erasing.rule, seed, call.seed.read_first_image() + static_cast<std::uint64_t>(n));
  if (!region.draw(erasing.rule, draws, call.height, call.width)) return;
  const std::int64_t plane = call.height * call.width;
  std::copy(constants, constants + call.channels, values);
  const CpuPainter<T> painter = {
      output, call.channels, call.height, call.width, {plane, call.width, 1}, erasing.rule.fill,
      draws,  table,         256,         values};
  painter.choose_values();
  for (std::int64_t row = region.rows().first; row <= region.rows().last; ++row) {
    region.spans_of_row(row, [&](Span span) { painter.paint(row, span); });
  }
}

template <typename T>
void augment_images(const Augment& call, std::int64_t begin, std::int64_t end) {
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<CpuRegion>(1) + CpuScratch::bytes_of<T>(256 * call.channels) +
                  3 * CpuScratch::bytes_of<T>(call.channels));
  CpuRegion& region = *scratch.take<CpuRegion>(1);
  T* const table = scratch.take<T>(256 * call.channels);
  T* const values = scratch.take<T>(call.channels);
  T* const constants[2] = {scratch.take<T>(call.channels), scratch.take<T>(call.channels)};
  for (std::int64_t channel = 0; channel < call.channels; ++channel) {
    const float mean = call.mean[channel], std = call.std[channel];
    for (int level = 0; level < 256; ++level) {
      table[channel * 256 + level] = element_of<T>(normalized_level(level, mean, std));
    }
    for (int k = 0; k < 2; ++k) {
      const FillValues& fill = call.erasings[k].values;
      const double share = fill.constants[fill.constant_count == 1 ? 0 : channel];
      constants[k][channel] = element_of<T>(normalized_share(share, mean, std));
    }
  }
  const std::uint64_t seed = call.seed.read();
  for (std::int64_t n = begin; n < end; ++n) {
    T* const output = static_cast<T*>(call.output) + n * call.channels * call.height * call.width;
    copy_image(call, draw_geometry(call, seed, n), n, table, output);
    for (int k = 0; k < 2; ++k) {
      erase_image(call, call.erasings[k], seed, n, table, constants[k], values, region, output);
    }
  }
}

}  // namespace

std::int64_t cpu_items(const Augment& call, std::int64_t) { return call.count; }

void cpu_run(const Augment& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  switch (call.type) {
    case ElementType::kFloat16:
      return augment_images<Float16>(call, begin, end);
    case ElementType::kBFloat16:
      return augment_images<BFloat16>(call, begin, end);
    default:
      return augment_images<float>(call, begin, end);
  }
}

}  // namespace reid_ops::augmentation
