// polygon_erasing on the CPU: one image at a time, only erased elements are written.
#include "common/cpu_scratch.h"
#include "polygon_erasing/cpu_region.h"
#include "polygon_erasing/kernels.h"

namespace reid_ops::polygon_erasing {
namespace {

template <typename T>
void erase_images(const Erase& call, std::int64_t begin, std::int64_t end) {
  const Images& images = call.images;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<CpuRegion>(1) + CpuScratch::bytes_of<T>(256) +
                  CpuScratch::bytes_of<T>(images.channels));
  CpuRegion& region = *scratch.take<CpuRegion>(1);
  T* const levels = scratch.take<T>(256);
  T* const values = scratch.take<T>(images.channels);
  const FillValues& fill = call.values;
  if (call.rule.fill == Fill::kConstant) {
    for (std::int64_t channel = 0; channel < images.channels; ++channel) {
      values[channel] = element_of<T>(fill.constants[fill.constant_count == 1 ? 0 : channel]);
    }
  } else {
    for (int level = 0; level < 256; ++level) {
      levels[level] = element_of<T>(value_of_level(level, fill.low, fill.span));
    }
  }

  const std::uint64_t seed = call.seed.read();
  for (std::int64_t n = begin; n < end; ++n) {
    const Draws draws =
        draws_of(call.rule, seed, call.seed.read_first_image() + static_cast<std::uint64_t>(n));
    const bool erase = region.draw(call.rule, draws, images.height, images.width);
    if (call.attempts != nullptr) call.attempts[n] = region.attempts();
    if (!erase) continue;
    const CpuPainter<T> painter = {static_cast<T*>(images.data) + n * images.stride[0],
                                   images.channels,
                                   images.height,
                                   images.width,
                                   {images.stride[1], images.stride[2], images.stride[3]},
                                   call.rule.fill,
                                   draws,
                                   levels,
                                   0,
                                   values};
    painter.choose_values();
    for (std::int64_t row = region.rows().first; row <= region.rows().last; ++row) {
      region.spans_of_row(row, [&](Span span) {
        painter.paint(row, span);
        if (call.mask != nullptr && span.first <= span.last) {
          bool* const mask = call.mask + (n * images.height + row) * images.width;
          std::fill(mask + span.first, mask + span.last + 1, true);
        }
      });
    }
  }
}

}  // namespace

std::int64_t cpu_items(const Erase& call, std::int64_t) { return call.images.count; }

void cpu_run(const Erase& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  switch (call.images.type) {
    case ElementType::kUInt8:
      return erase_images<std::uint8_t>(call, begin, end);
    case ElementType::kFloat32:
      return erase_images<float>(call, begin, end);
    case ElementType::kFloat64:
      return erase_images<double>(call, begin, end);
    case ElementType::kFloat16:
      return erase_images<Float16>(call, begin, end);
    case ElementType::kBFloat16:
      return erase_images<BFloat16>(call, begin, end);
  }
}

}  // namespace reid_ops::polygon_erasing
