// augmentation: the contract between the torch-aware file (ops.cpp) and the kernels (cpu.cpp, cuda.cu).
// Plain pointers and sizes, no torch header.
//
// Each image is flipped, padded with black, cropped, scaled to [0, 1] and normalised, then loses a
// rectangle and a polygon, in one read and one write. Element (c, y, x) of an image's output is
//   table[c][level] = (level * (1/255) - mean[c]) / std[c]
// for the level of its source pixel, or the level that erases it.
#pragma once

#include <cstdint>

#include "polygon_erasing/kernels.h"

namespace reid_ops::augmentation {

using polygon_erasing::Draws;
using polygon_erasing::ElementType;
using polygon_erasing::FillValues;
using polygon_erasing::kMaxConstants;
using polygon_erasing::Purpose;
using polygon_erasing::Rule;
using polygon_erasing::Seed;

constexpr std::int64_t kMaxChannels = kMaxConstants;

struct Erasing {
  bool active;
  Rule rule;
  FillValues values;  // only the constants, in shares of 255 like mean
};

struct Augment {
  const std::uint8_t* images;  // in  [N, C, H, W], strided
  std::int64_t count, channels, image_height, image_width;
  std::int64_t stride[4];
  const std::int64_t* sizes;  // in  [N, 2] height and width of the valid top-left part, or nullptr
  void* output;               // out [N, C, height, width], contiguous
  ElementType type;           // float32, float16 or bfloat16
  std::int64_t height, width, pad;
  std::int64_t flip;  // flipped when a word is below it: probability * 2^32
  float mean[kMaxChannels], std[kMaxChannels];
  Seed seed;
  Erasing erasings[2];  // the rectangle, then the polygon
};

// How one image's output maps to its source: row y comes from row y + top of the image, column x from
// column x + left of the image (flipped first); what lies outside height x width is black.
struct Geometry {
  int height, width;
  int top, left;
  bool flip;
};

// Words of Purpose::kGeometry, block 0: flip, place across, place down. The crop is uniform where it fits
// the padded image, at its corner where it does not.
REID_OPS_HOST_DEVICE inline Geometry draw_geometry(const Augment& call, std::uint64_t seed, std::int64_t n) {
  const Draws draws = {seed, call.seed.read_first_image() + static_cast<std::uint64_t>(n), 0};
  const PhiloxWords words = draws.words(Purpose::kGeometry, 0);
  std::int64_t height = call.image_height, width = call.image_width;
  if (call.sizes != nullptr) {  // whatever it says, nothing outside the tensor is read
    const std::int64_t valid_height = call.sizes[2 * n], valid_width = call.sizes[2 * n + 1];
    if (valid_height < height) height = valid_height > 0 ? valid_height : 0;
    if (valid_width < width) width = valid_width > 0 ? valid_width : 0;
  }
  const std::int64_t down = height + 2 * call.pad - call.height, across = width + 2 * call.pad - call.width;
  const std::int64_t left = (across > 0 ? scale_word(words.word[1], across + 1) : 0) - call.pad;
  const std::int64_t top = (down > 0 ? scale_word(words.word[2], down + 1) : 0) - call.pad;
  return {static_cast<int>(height), static_cast<int>(width), static_cast<int>(top), static_cast<int>(left),
          words.word[0] < static_cast<std::uint64_t>(call.flip)};
}

// The product rounded once: never the first half of a fused multiply-add.
REID_OPS_HOST_DEVICE inline float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  volatile float product = a * b;
  return product;
#endif
}

// A level as torchvision's to_dtype(scale=True) and normalize make it, in float32.
REID_OPS_HOST_DEVICE inline float normalized_level(int level, float mean, float std) {
  return (rounded_product(static_cast<float>(level), static_cast<float>(1.0 / 255.0)) - mean) / std;
}

// A constant fill, given as a share of 255.
REID_OPS_HOST_DEVICE inline float normalized_share(double share, float mean, float std) {
  return (static_cast<float>(share) - mean) / std;
}

// CPU. One item an image; the caller runs [0, items) in any split over any number of threads.
std::int64_t cpu_items(const Augment& call, std::int64_t threads);
void cpu_run(const Augment& call, std::int64_t items, std::int64_t begin, std::int64_t end);

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`, one launch.
cudaError_t cuda_launch(const Augment& call, cudaStream_t stream);
#endif

}  // namespace reid_ops::augmentation
