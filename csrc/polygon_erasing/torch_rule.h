// From operator arguments to the kernels' plain structs, with checks. Torch-aware, for ops.cpp files.
//
// The checks keep a call that bypasses the Python functions from reading or writing out of bounds or
// overflowing the integer arithmetic; the Python side raises friendlier errors first.
#pragma once

#include <vector>

#include "common/torch_glue.h"
#include "polygon_erasing/kernels.h"

namespace reid_ops::polygon_erasing {

inline ElementType element_type_of(const Tensor& tensor, const char* op, const char* argument) {
  if (tensor.scalar_type() == ScalarType::Byte) return ElementType::kUInt8;
  switch (data_type_of(tensor, op, argument)) {
    case DataType::kFloat32:
      return ElementType::kFloat32;
    case DataType::kFloat64:
      return ElementType::kFloat64;
    case DataType::kFloat16:
      return ElementType::kFloat16;
    default:
      return ElementType::kBFloat16;
  }
}

// The layout of `numbers` is that of Rule: reid_ops/polygon_erasing/rule.py, Rule.encode.
inline Rule checked_rule(const std::vector<std::int64_t>& numbers, const char* op) {
  STD_TORCH_CHECK(numbers.size() == kRuleLength, op, ": a rule must have ", kRuleLength, " numbers, got ",
                  numbers.size());
  const auto in_range = [&](int index, std::int64_t least, std::int64_t most, const char* name) {
    STD_TORCH_CHECK(numbers[index] >= least && numbers[index] <= most, op, ": ", name, " must be in [", least,
                    ", ", most, "], got ", numbers[index]);
  };
  constexpr std::int64_t kOne = std::int64_t{1} << 32;
  in_range(0, 0, kOne, "the threshold of p");
  in_range(1, 0, kOne, "the least area");
  in_range(2, 0, kOne - numbers[1], "the span of areas");
  in_range(3, 1 << 16, kOne, "the least aspect");
  in_range(4, 0, kOne - numbers[3], "the span of aspects");
  in_range(5, kMinPoints, kMaxPoints, "points");
  in_range(6, 0, 2, "the shape");
  in_range(7, 0, 3, "the placement");
  in_range(8, 0, 3, "the fill");
  in_range(9, 1, 1000000, "max_attempts");
  Rule rule = {};
  rule.threshold = numbers[0];
  rule.area_low = numbers[1], rule.area_span = numbers[2];
  rule.aspect_low = numbers[3], rule.aspect_span = numbers[4];
  rule.points = numbers[5];
  rule.shape = static_cast<Shape>(numbers[6]);
  rule.placement = static_cast<Placement>(numbers[7]);
  rule.fill = static_cast<Fill>(numbers[8]);
  rule.max_attempts = numbers[9];
  const bool whole = rule.placement == Placement::kCorner || rule.placement == Placement::kCenter;
  STD_TORCH_CHECK(rule.shape == Shape::kRectangle || !whole, op,
                  ": polygons have no corner or center placement");
  return rule;
}

inline Seed checked_seed(std::int64_t seed, const std::optional<Tensor>& seed_tensor,
                         std::int64_t first_index, const Tensor& like, const char* op) {
  Seed result = {static_cast<std::uint64_t>(seed), nullptr, static_cast<std::uint64_t>(first_index), false};
  if (seed_tensor.has_value()) {
    STD_TORCH_CHECK(seed_tensor->scalar_type() == ScalarType::Long && seed_tensor->numel() >= 1 &&
                        seed_tensor->numel() <= 2 && seed_tensor->is_contiguous() &&
                        seed_tensor->is_cuda() == like.is_cuda() &&
                        seed_tensor->get_device_index() == like.get_device_index(),
                    op,
                    ": seed must be a contiguous int64 tensor of one or two elements on the images' device");
    result.counts = seed_tensor->numel() == 2;
    result.pointer = seed_tensor->const_data_ptr<std::int64_t>();
  }
  return result;
}

// `values`: the constants for Fill::kConstant (one, or one a channel), else low and high - low.
// Those for bytes must round to bytes: other conversions are not defined.
inline FillValues checked_values(const std::vector<double>& values, Fill fill, std::int64_t channels,
                                 bool are_bytes, const char* op) {
  FillValues result = {};
  const std::int64_t count = static_cast<std::int64_t>(values.size());
  const auto check_bytes = [&](double value) {
    STD_TORCH_CHECK(!are_bytes || (value >= 0 && value < 255.5), op,
                    ": values must be in [0, 255] for uint8 images, got ", value);
  };
  if (fill == Fill::kConstant) {
    STD_TORCH_CHECK(count == 1 || (count == channels && count <= kMaxConstants), op,
                    ": values must hold one constant, or one for each of up to ", kMaxConstants,
                    " channels, got ", count);
    for (std::int64_t k = 0; k < count; ++k) check_bytes(values[k]), result.constants[k] = values[k];
    result.constant_count = static_cast<int>(count);
  } else {
    STD_TORCH_CHECK(count == 2, op, ": values must hold the least value and the span of values, got ", count);
    result.low = values[0], result.span = values[1];
    check_bytes(result.low), check_bytes(result.span), check_bytes(result.low + result.span);
  }
  return result;
}

inline void check_image_sizes(std::int64_t channels, std::int64_t height, std::int64_t width,
                              const char* op) {
  STD_TORCH_CHECK(channels >= 1 && height >= 1 && width >= 1, op,
                  ": images must have at least one channel, row and column");
  STD_TORCH_CHECK(height <= kMaxSide && width <= kMaxSide && channels <= kMaxElements / (height * width), op,
                  ": images may have sides up to ", kMaxSide, " and ", kMaxElements, " elements, got ",
                  channels, "x", height, "x", width);
}

}  // namespace reid_ops::polygon_erasing
