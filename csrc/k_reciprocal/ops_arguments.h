// k_reciprocal: the operators' arguments, checked and turned into what the kernels take.
#pragma once

#include <limits>
#include <vector>

#include "common/torch_glue.h"
#include "k_reciprocal/kernels.h"

namespace reid_ops::k_reciprocal {
namespace {

using OptionalTensor = std::optional<Tensor>;
constexpr const char* kOp = "k_reciprocal";
constexpr std::int64_t kNoCandidate = std::int64_t{1} << 62;

DataType checked_type(const Tensor& tensor, const char* name) {
  const DataType type = data_type_of(tensor, kOp, name);
  STD_TORCH_CHECK(type == DataType::kFloat32 || type == DataType::kFloat64, kOp, ": ", name,
                  " must be float32 or float64");
  return type;
}

// A contiguous tensor of a type and shape (-1: any size), on the device of `like`.
void check(const Tensor& tensor, const char* name, ScalarType type, const std::vector<std::int64_t>& shape,
           const Tensor& like) {
  bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t k = 0; fits && k < shape.size(); ++k) {
    fits = shape[k] < 0 || tensor.size(static_cast<std::int64_t>(k)) == shape[k];
  }
  STD_TORCH_CHECK(fits, kOp, ": ", name, " has the wrong shape ", shape_of(tensor));
  STD_TORCH_CHECK(tensor.scalar_type() == type, kOp, ": ", name, " has the wrong dtype");
  STD_TORCH_CHECK(tensor.is_contiguous(), kOp, ": ", name, " must be contiguous");
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(),
                  kOp, ": ", name, " must be on the device of the other tensors");
}

const void* checked_terms(const OptionalTensor& tensor, const char* name, std::int64_t size,
                          const Tensor& like) {
  if (!tensor.has_value()) return nullptr;
  check(*tensor, name, like.scalar_type(), {size}, like);
  return tensor->const_data_ptr();
}

Lists checked_lists(const Tensor& neighbours) {
  check(neighbours, "neighbours", ScalarType::Int, {-1, -1}, neighbours);
  STD_TORCH_CHECK(neighbours.size(0) < std::numeric_limits<std::int32_t>::max(), kOp,
                  ": at most 2**31 - 2 items");
  return {neighbours.const_data_ptr<std::int32_t>(), neighbours.size(0), neighbours.size(1)};
}

// How many rows these offsets are of.
std::int64_t rows_of(const Tensor& offsets) {
  check(offsets, "offsets", ScalarType::Long, {-1}, offsets);
  STD_TORCH_CHECK(offsets.numel() >= 1, kOp, ": offsets must have an element at least");
  STD_TORCH_CHECK(offsets.numel() < std::numeric_limits<std::int32_t>::max(), kOp,
                  ": at most 2**31 - 2 items");
  return offsets.numel() - 1;
}

// Offsets of `items` rows with `entries` entries in all. What they say can be looked at on the host only;
// on a device (an emulated one too) that would mean waiting for it.
template <typename Device>
const std::int64_t* checked_offsets(const Tensor& offsets, const char* name, std::int64_t items,
                                    std::int64_t entries, const Tensor& like) {
  check(offsets, name, ScalarType::Long, {items + 1}, like);
  STD_TORCH_CHECK(entries >= 0, kOp, ": entries must not be negative, got ", entries);
  const std::int64_t* data = offsets.const_data_ptr<std::int64_t>();
  if constexpr (Device::kOnHost) {
    bool ascending = data[0] == 0 && data[items] == entries;
    for (std::int64_t k = 0; k < items; ++k) ascending &= data[k] <= data[k + 1];
    STD_TORCH_CHECK(ascending, kOp, ": ", name, " must ascend from 0 to the number of entries, ", entries);
  }
  return data;
}

template <typename Device>
SparseRows checked_rows(const Tensor& offsets, const Tensor& columns, const OptionalTensor& weights,
                        std::int64_t items, std::int64_t numbers, ScalarType type, const Tensor& like) {
  check(columns, "columns", ScalarType::Int, {-1}, like);
  SparseRows rows = {checked_offsets<Device>(offsets, "offsets", items, columns.numel(), like),
                     columns.const_data_ptr<std::int32_t>(), nullptr};
  if constexpr (Device::kOnHost) {
    bool inside = true;
    for (std::int64_t e = 0; e < columns.numel(); ++e) {
      inside &= rows.columns[e] >= 0 && rows.columns[e] < numbers;
    }
    STD_TORCH_CHECK(inside, kOp, ": columns must be in [0, ", numbers, ")");
  }
  if (weights.has_value()) {
    check(*weights, "weights", type, {columns.numel()}, like);
    rows.weights = weights->const_data_ptr();
  }
  return rows;
}

Block checked_block(const Tensor& block, const OptionalTensor& row_terms, const OptionalTensor& column_terms,
                    std::int64_t measure, std::int64_t squarings) {
  checked_type(block, "block");
  STD_TORCH_CHECK(block.dim() == 2 && (block.size(1) <= 1 || block.stride(1) == 1), kOp,
                  ": block must be a matrix with adjacent columns, got shape ", shape_of(block));
  STD_TORCH_CHECK(measure >= 0 && measure <= 3, kOp, ": measure must be in [0, 3], got ", measure);
  STD_TORCH_CHECK(squarings >= 0 && squarings <= 2, kOp, ": squarings must be in [0, 2], got ", squarings);
  Block result = {};
  result.values = block.const_data_ptr();
  result.rows = block.size(0);
  result.columns = block.size(1);
  result.stride = block.stride(0);
  result.row_terms = checked_terms(row_terms, "row_terms", result.rows, block);
  result.column_terms = checked_terms(column_terms, "column_terms", result.columns, block);
  result.measure = static_cast<Measure>(measure);
  result.squarings = squarings;
  STD_TORCH_CHECK(result.measure < Measure::kEuclidean || (row_terms.has_value() && column_terms.has_value()),
                  kOp, ": a measure of products needs row_terms and column_terms");
  return result;
}

// What a filling stage on the CPU found of its offsets.
void check_fitting(const Misfit& misfit, const char* name) {
  STD_TORCH_CHECK(!misfit.load(), kOp, ": ", name, " must be those of the sizes that counting gives");
}

// Of a call that is given offsets: they and the entries come together.
void check_both(const OptionalTensor& weights, const OptionalTensor& offsets) {
  STD_TORCH_CHECK(
      weights.has_value() == offsets.has_value(), kOp,
      ": weights and the result's offsets come together, to fill, or are both left out, to count");
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
