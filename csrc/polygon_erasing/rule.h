// What is erased from an image: the random draws of Random Polygon Erasing (HENet, Algorithm 1) and
// of random erasing, as functions of (seed, image number). No torch header.
//
// The CPU kernels, the CUDA kernels and the PyTorch reference must erase the same pixels bit for
// bit. So everything is decided in integers: lengths in pixels / 2^12, probabilities and areas in
// units of 2^-32. Floating point appears in draw_box alone, as single operations that IEEE rounds
// correctly (conversion, *, /, sqrt in double). Nowhere is a product added to anything, so there is
// nothing that a compiler could contract to a fused multiply-add.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "common/philox.h"

namespace reid_ops::polygon_erasing {

constexpr int kMinPoints = 3;
constexpr int kMaxPoints = 256;
constexpr int kSubpixelBits = 12;  // a pixel is 2^12 units wide
constexpr std::int64_t kPixel = std::int64_t{1} << kSubpixelBits;
constexpr std::int64_t kHalfPixel = kPixel / 2;
constexpr std::int64_t kMaxSide = std::int64_t{1} << 17;      // then products of two coordinates need 58 bits
constexpr std::int64_t kMaxElements = std::int64_t{1} << 34;  // of an image: one word each for "pixel" fills
constexpr int kMaxConstants = 16;  // channels that can have their own constant fill

enum class Shape : std::int64_t { kHull, kStar, kRectangle };

// Where the box lies, and what its points and edges may be.
enum class Placement : std::int64_t {
  kContinuous,     // Algorithm 1: real box inside the image, real points
  kPublishedCode,  // the authors' code: whole pixels, the box's centre is point 0
  kCorner,         // random erasing: whole pixels, uniform top-left corner
  kCenter,         // random erasing: whole pixels around a uniform pixel, cut off at the image's edges
};

enum class Fill : std::int64_t { kRandom, kChannel, kPixel, kConstant };

// The arguments of an erasing op as integers. Python fills it in (reid_ops/polygon_erasing/rule.py).
struct Rule {
  std::int64_t threshold;                // erase when a word is below it: p * 2^32
  std::int64_t area_low, area_span;      // share of the image, units of 2^-32
  std::int64_t aspect_low, aspect_span;  // height / width, units of 2^-24
  std::int64_t points;
  Shape shape;
  Placement placement;
  Fill fill;
  std::int64_t max_attempts;
};
constexpr int kRuleLength = 10;

// One image's source of random words. Every purpose has its own counters, so that the number of
// words one takes never shifts another's; rectangles and polygons are independent under one seed.
enum class Purpose : std::uint32_t { kBox = 0, kPoints = 1, kFill = 2, kGeometry = 8 };

struct Draws {
  std::uint64_t seed, image;
  std::uint32_t family;  // 0 polygons, 4 rectangles

  REID_OPS_HOST_DEVICE PhiloxWords words(Purpose purpose, std::uint64_t block) const {
    const std::uint64_t stream = static_cast<std::uint32_t>(purpose) + family;
    return philox4x32(seed, (stream << 32) | (block & 0xffffffffu), image);
  }
};

REID_OPS_HOST_DEVICE inline Draws draws_of(const Rule& rule, std::uint64_t seed, std::uint64_t image) {
  return {seed, image, rule.shape == Shape::kRectangle ? 4u : 0u};
}

// In units of a pixel / 2^12. `attempts`: 0 when p decided against erasing, -1 when no box of
// max_attempts fitted (then the image stays as it is), else the attempt that fitted, from 1.
struct Box {
  std::int64_t left, top, width, height;
  int attempts;
};

REID_OPS_HOST_DEVICE inline std::int64_t whole_pixels(std::int64_t length) {
  return (length + kHalfPixel) >> kSubpixelBits;
}

// Algorithm 1, lines 1-9: S_e = U(s_l, s_h) W H, r_e = U(r, 1/r), W_e = sqrt(S_e / r_e),
// H_e = sqrt(S_e r_e), again until the box fits. Words: block 0 decides, block k is attempt k:
// area, aspect, place across, place down.
REID_OPS_HOST_DEVICE inline Box draw_box(const Rule& rule, const Draws& draws, std::int64_t height,
                                         std::int64_t width) {
  Box box = {0, 0, 0, 0, 0};
  if (draws.words(Purpose::kBox, 0).word[0] >= static_cast<std::uint64_t>(rule.threshold)) return box;
  for (std::int64_t attempt = 1; attempt <= rule.max_attempts; ++attempt) {
    const PhiloxWords words = draws.words(Purpose::kBox, static_cast<std::uint64_t>(attempt));
    const double area = static_cast<double>(rule.area_low + scale_word(words.word[0], rule.area_span)) *
                        static_cast<double>(height * width);  // pixels, units of 2^-32
    const double aspect = static_cast<double>(rule.aspect_low + scale_word(words.word[1], rule.aspect_span));
    // Scaling by powers of two is exact: (area / aspect) 2^-8 pixels^2 are 2^16 (area / aspect) units^2.
    box.width = static_cast<std::int64_t>(sqrt(area / aspect * 65536.0));
    box.height = static_cast<std::int64_t>(sqrt(area * aspect * 2.3283064365386963e-10));  // 2^-32
    if (rule.placement == Placement::kContinuous) {
      if (box.width > width * kPixel || box.height > height * kPixel) continue;
      box.left = scale_word(words.word[2], width * kPixel - box.width + 1);
      box.top = scale_word(words.word[3], height * kPixel - box.height + 1);
    } else {
      std::int64_t columns = whole_pixels(box.width), rows = whole_pixels(box.height), left, top;
      if (columns >= width || rows >= height) continue;
      if (rule.placement == Placement::kCenter) {
        left = scale_word(words.word[2], width) - columns / 2;
        top = scale_word(words.word[3], height) - rows / 2;
      } else {
        if (rule.placement == Placement::kPublishedCode) columns -= columns % 2, rows -= rows % 2;
        left = scale_word(words.word[2], width - columns + 1);
        top = scale_word(words.word[3], height - rows + 1);
      }
      box.width = columns * kPixel, box.height = rows * kPixel;
      box.left = left * kPixel, box.top = top * kPixel;
    }
    box.attempts = static_cast<int>(attempt);
    return box;
  }
  return {0, 0, 0, 0, -1};
}

// Coordinates in units of a pixel / 2^12, from the image's top-left corner; a pixel's centre lies
// half a pixel from its own corner.
struct Point {
  std::int32_t x, y;
};

// Algorithm 1, lines 10-13: point `index` uniform in the box, edges included.
REID_OPS_HOST_DEVICE inline Point draw_point(const Rule& rule, const Draws& draws, const Box& box,
                                             int index) {
  const PhiloxWords words = draws.words(Purpose::kPoints, static_cast<std::uint64_t>(index / 2));
  const std::uint32_t across = index % 2 ? words.word[2] : words.word[0];
  const std::uint32_t down = index % 2 ? words.word[3] : words.word[1];
  std::int64_t x, y;
  if (rule.placement == Placement::kPublishedCode) {
    // Whole pixels, drawn at their centres; up to and including the box's far edge.
    const std::int64_t columns = box.width / kPixel, rows = box.height / kPixel;
    const std::int64_t column = index == 0 ? columns / 2 : scale_word(across, columns + 1);
    const std::int64_t row = index == 0 ? rows / 2 : scale_word(down, rows + 1);
    x = box.left + column * kPixel + kHalfPixel;
    y = box.top + row * kPixel + kHalfPixel;
  } else {
    x = box.left + scale_word(across, box.width + 1);
    y = box.top + scale_word(down, box.height + 1);
  }
  return {static_cast<std::int32_t>(x), static_cast<std::int32_t>(y)};
}

// A fill's level in 0..255 for element (channel, row * width + column): one level an image, one a
// channel, or one an element.
REID_OPS_HOST_DEVICE inline int level_of(const PhiloxWords& words, std::int64_t index) {
  const std::uint32_t even = index & 2 ? words.word[2] : words.word[0];
  const std::uint32_t odd = index & 2 ? words.word[3] : words.word[1];
  return static_cast<int>((index & 1 ? odd : even) >> 24);
}

REID_OPS_HOST_DEVICE inline int draw_level(const Draws& draws, std::int64_t index) {
  return level_of(draws.words(Purpose::kFill, static_cast<std::uint64_t>(index) >> 2), index);
}

// The fill for a level: low + level (high - low) / 255. The division stands between product and sum.
REID_OPS_HOST_DEVICE inline double value_of_level(int level, double low, double span) {
  return low + static_cast<double>(level) * span / 255.0;
}

}  // namespace reid_ops::polygon_erasing
