// k_reciprocal: the operators that only the CPU has. Elsewhere the same comes from torch's products and
// `nearest`, block by block; here one parallel region does both, and `products` rounds as it does.
#pragma once

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "k_reciprocal/ops_arguments.h"
#include "k_reciprocal/search.h"

namespace reid_ops::k_reciprocal {
namespace {

// Blocks as large as the second-level cache likes, of which there are enough for the threads to share.
std::int64_t block_side(std::int64_t rows, std::int64_t columns) {
  const std::int64_t threads = torch::stable::get_num_threads();
  std::int64_t side = 256;
  while (side > 64 && (rows / side) * (columns / side) < 16 * threads) side /= 2;
  return side;
}

// Rows in groups, and with `lengths` their squared lengths.
Tensor packed(const Tensor& rows, DataType type, Tensor* lengths) {
  const ScalarType scalar = rows.scalar_type();
  const std::int64_t count = packed_rows(rows.size(0), type), dimension = rows.size(1);
  Tensor result = allocate(rows, {count, dimension}, scalar, kOp);
  if (lengths != nullptr) *lengths = allocate(rows, {count}, scalar, kOp);
  void* sums = lengths == nullptr ? nullptr : lengths->mutable_data_ptr();
  run_on_cpu(Pack{rows.const_data_ptr(), rows.size(0), dimension, type, result.mutable_data_ptr(), sums});
  return result;
}

void products(const Tensor& rows, const Tensor& columns, const Tensor& output) {
  const DataType type = checked_type(rows, "rows");
  check(rows, "rows", rows.scalar_type(), {-1, -1}, rows);
  check(columns, "columns", rows.scalar_type(), {-1, rows.size(1)}, rows);
  check(output, "output", rows.scalar_type(), {rows.size(0), columns.size(0)}, rows);
  if (output.numel() == 0) return;
  const Tensor left = packed(rows, type, nullptr), right = packed(columns, type, nullptr);
  run_on_cpu(Products{left.const_data_ptr(), right.const_data_ptr(), rows.size(0), columns.size(0),
                      rows.size(1), type, block_side(rows.size(0), columns.size(0)),
                      output.mutable_data_ptr()});
}

void search(const Tensor& features, const OptionalTensor& products, const Tensor& distances,
            const Tensor& indices, const Tensor& largest) {
  const DataType type = checked_type(features, "features");
  const ScalarType scalar = features.scalar_type();
  check(features, "features", scalar, {-1, -1}, features);
  const std::int64_t items = features.size(0), dimension = features.size(1);
  STD_TORCH_CHECK(items < std::numeric_limits<std::int32_t>::max(), kOp, ": at most 2**31 - 2 items");
  check(distances, "distances", scalar, {items, -1}, features);
  const std::int64_t neighbours = distances.size(1);
  STD_TORCH_CHECK(neighbours >= 1, kOp, ": distances must have a column at least");
  check(indices, "indices", ScalarType::Int, {items, neighbours}, features);
  check(largest, "largest", scalar, {items}, features);
  std::int64_t queries = 0;
  if (products.has_value()) {
    STD_TORCH_CHECK(products->dim() == 2 && products->size(0) <= items, kOp,
                    ": products must have shape (Q, N - Q), got ", shape_of(*products));
    queries = products->size(0);
    check(*products, "products", scalar, {queries, items - queries}, features);
  }
  if (items == 0) return;
  Tensor lengths = features;
  const Tensor groups = packed(features, type, &lengths);
  Search call = {};
  call.packed = groups.const_data_ptr();
  call.lengths = lengths.const_data_ptr();
  call.items = items;
  call.dimension = dimension;
  call.type = type;
  call.block = block_side(items, items);
  std::vector<std::mutex> locks(static_cast<std::size_t>(call.blocks()));
  call.locks = locks.data();
  call.products = products.has_value() ? products->mutable_data_ptr() : nullptr;
  call.queries = queries;
  call.neighbours = neighbours;
  call.distances = distances.mutable_data_ptr();
  call.indices = indices.mutable_data_ptr<std::int32_t>();
  call.largest = largest.mutable_data_ptr();
  run_on_cpu(call);
}

}  // namespace
}  // namespace reid_ops::k_reciprocal
