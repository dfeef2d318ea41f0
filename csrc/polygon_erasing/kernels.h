// polygon_erasing: the contract between the torch-aware file (ops.cpp) and the kernels (cpu.cpp,
// cuda.cu). Plain pointers and sizes, no torch header.
//
// Image i of a batch is erased by the words of (seed, first_image + i) alone, see rule.h: the result
// does not depend on how a set of images is cut into batches, on threads, or on the device.
#pragma once

#include <cstdint>

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "polygon_erasing/rule.h"

namespace reid_ops::polygon_erasing {

enum class ElementType { kUInt8, kFloat32, kFloat64, kFloat16, kBFloat16 };

// Strides are in elements and may be anything that does not overlap.
struct Images {
  void* data;  // in and out  [N, C, H, W]
  std::int64_t count, channels, height, width;
  std::int64_t stride[4];
  ElementType type;
};

struct Seed {
  std::uint64_t value;
  const std::int64_t* pointer;  // when not nullptr: read by the kernel instead of `value`
  std::uint64_t first_image;    // the number of the batch's first image
  bool counts;                  // pointer has a second element, which the kernel adds to first_image

  REID_OPS_HOST_DEVICE std::uint64_t read() const {
    return pointer == nullptr ? value : static_cast<std::uint64_t>(*pointer);
  }
  REID_OPS_HOST_DEVICE std::uint64_t read_first_image() const {
    return counts ? first_image + static_cast<std::uint64_t>(pointer[1]) : first_image;
  }
};

// What erased elements become: low + level span / 255 for the levels that fills draw, and
// constants[channel] (constants[0] for all when there is one only) for Fill::kConstant.
struct FillValues {
  double low, span;
  double constants[kMaxConstants];
  int constant_count;
};

struct Erase {
  Images images;
  Rule rule;
  Seed seed;
  FillValues values;
  bool* mask;              // out  [N, H, W], all false before; true where erased; nullptr: not wanted
  std::int32_t* attempts;  // out  [N], Box::attempts; nullptr: not wanted
};

// CPU. One item an image; the caller runs [0, items) in any split over any number of threads.
std::int64_t cpu_items(const Erase& call, std::int64_t threads);
void cpu_run(const Erase& call, std::int64_t items, std::int64_t begin, std::int64_t end);

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`, one launch.
cudaError_t cuda_launch(const Erase& call, cudaStream_t stream);
#endif

}  // namespace reid_ops::polygon_erasing
