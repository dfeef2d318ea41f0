// similarity_graph: the operators' arguments, checked and turned into what the kernels take.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "common/torch_glue.h"
#include "similarity_graph/kernels.h"

namespace reid_ops::similarity_graph {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Integers = std::vector<std::int64_t>;
constexpr const char* kOp = "similarity_graph";
constexpr std::int64_t kLargestSide = 1 << 15;  // height and width of features, length of a chain's row aside

// ------------------------------------------------------------------ arguments

bool is_double(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

// A contiguous tensor of the computing type (float32 or float64) and of the given shape.
const void* checked(const Tensor& tensor, const char* name, const Tensor& like, const Integers& shape,
                    ScalarType type) {
  bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t k = 0; fits && k < shape.size(); ++k)
    fits = tensor.size(static_cast<std::int64_t>(k)) == shape[k];
  std::string wanted;
  for (const std::int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  STD_TORCH_CHECK(fits, kOp, ": ", name, " must have shape (", wanted, "), got ", shape_of(tensor));
  STD_TORCH_CHECK(tensor.scalar_type() == type, kOp, ": ", name, " must be ",
                  type == ScalarType::Double ? "float64" : "float32", " here");
  STD_TORCH_CHECK(tensor.is_contiguous(), kOp, ": ", name, " must be contiguous");
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(),
                  kOp, ": ", name, " must be on the device of the other arguments");
  return tensor.const_data_ptr();
}

ScalarType precise_type(const Tensor& tensor) {
  return is_double(tensor) ? ScalarType::Double : ScalarType::Float;
}

void check_precise(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(is_double(tensor) || tensor.scalar_type() == ScalarType::Float, kOp, ": ", name,
                  " must be float32 or float64");
}

Neighborhood neighborhood_of(std::int64_t radius_squared, bool include_self, std::int64_t edges) {
  STD_TORCH_CHECK(radius_squared >= 0 && radius_squared <= kLargestSide, kOp,
                  ": radius_squared must be in [0, 32768], got ", radius_squared);
  STD_TORCH_CHECK(edges >= 0 && edges <= 4, kOp, ": edges must be in [0, 4], got ", edges);
  Neighborhood result = {static_cast<int>(radius_squared), 0, include_self, static_cast<Edges>(edges)};
  while ((result.reach + 1) * (result.reach + 1) <= radius_squared) ++result.reach;
  return result;
}

// REID_OPS_HSGM_CLUSTER in the environment: blocks of a cluster, 0 for none; -1 where the choice is ours.
int wished_cluster() {
  const char* wish = std::getenv("REID_OPS_HSGM_CLUSTER");
  const std::string text = wish == nullptr ? "" : wish;
  if (text.empty() || text == "auto") return -1;
  for (const int blocks : {0, 1, 2, 4, 8, 16}) {
    if (text == std::to_string(blocks)) return blocks;
  }
  STD_TORCH_CHECK(false, kOp, ": REID_OPS_HSGM_CLUSTER must be auto, 0, 1, 2, 4, 8 or 16, got ", text);
  return -1;
}

void check_pooling(std::int64_t pooling, const Integers& scales) {
  STD_TORCH_CHECK(!scales.empty() && scales.size() <= kMaxScales, kOp, ": there must be 1 to 8 scales, got ",
                  scales.size());
  STD_TORCH_CHECK(pooling >= 0 && pooling <= 5, kOp, ": pooling must be in [0, 5], got ", pooling);
  for (const std::int64_t scale : scales) {
    STD_TORCH_CHECK(scale >= 1 && scale <= kLargestSide, kOp, ": scales must be >= 1, got ", scale);
  }
}

Geometry geometry_of(std::int64_t batch, std::int64_t channels, std::int64_t height, std::int64_t width,
                     const Integers& rows, const Integers& columns) {
  const std::int64_t levels = static_cast<std::int64_t>(rows.size());
  STD_TORCH_CHECK(
      channels >= 1 && height >= 1 && width >= 1 && height <= kLargestSide && width <= kLargestSide, kOp,
      ": features must have C, H, W >= 1 and H, W <= 32768, got (", channels, ", ", height, ", ", width, ")");
  STD_TORCH_CHECK(levels >= 1 && levels <= kMaxLevels && columns.size() == rows.size(), kOp,
                  ": there must be 1 to 6 levels, got ", levels);
  Geometry geometry = {};
  geometry.batch = batch;
  geometry.channels = channels;
  geometry.height = static_cast<int>(height);
  geometry.width = static_cast<int>(width);
  geometry.levels = static_cast<int>(levels);
  for (std::int64_t l = 0; l < levels; ++l) {
    STD_TORCH_CHECK(rows[l] >= 1 && rows[l] <= kMaxParts && rows[l] <= height && columns[l] >= 1 &&
                        columns[l] <= kMaxParts && columns[l] <= width,
                    kOp, ": a level must have 1 to 32 rows and columns of maps and none empty, got ", rows[l],
                    "x", columns[l], " maps on ", height, "x", width);
    geometry.parts_down[l] = static_cast<int>(rows[l]);
    geometry.parts_across[l] = static_cast<int>(columns[l]);
  }
  geometry.region_rows =
      collect_cuts(geometry.height, geometry.parts_down, geometry.levels, geometry.row_cuts);
  geometry.region_columns =
      collect_cuts(geometry.width, geometry.parts_across, geometry.levels, geometry.column_cuts);
  STD_TORCH_CHECK(geometry.region_rows > 0 && geometry.region_columns > 0, kOp,
                  ": all levels together may cut the features at 64 rows and 64 columns at most");
  return geometry;
}

bool is_channels_last(const Tensor& tensor) {
  const std::int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
  const std::int64_t strides[4] = {height * width * channels, 1, width * channels, channels};
  for (int k = 0; k < 4; ++k) {
    if (tensor.size(k) > 1 && tensor.stride(k) != strides[k]) return false;
  }
  return true;
}

// Features the kernels can read: as they are when dense in either layout, else a contiguous copy.
Tensor dense(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4, kOp, ": features must have shape (N, C, H, W), got ", shape_of(tensor));
  return tensor.is_contiguous() || is_channels_last(tensor) ? tensor : torch::stable::contiguous(tensor);
}

Features features_of(const Tensor& x, const Integers& rows, const Integers& columns) {
  return {geometry_of(x.size(0), x.size(1), x.size(2), x.size(3), rows, columns),
          data_type_of(x, kOp, "features"), !x.is_contiguous()};
}

std::size_t bytes_of(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

Tensor empty(const Tensor& like, const Integers& shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

}  // namespace
}  // namespace reid_ops::similarity_graph
