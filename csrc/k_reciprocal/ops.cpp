// k_reciprocal: allocation and dispatch. With ops_arguments.h and ops_search.h the op's only torch-aware
// file.
//
// Sizes of sparse results are known only after counting, so each such stage is called twice: without offsets
// it counts, with them it fills `entries` places. None reads device data on the host.
#include <algorithm>
#include <limits>

#include "k_reciprocal/ops_arguments.h"
#if !defined(REID_OPS_EMULATION)
#include "k_reciprocal/ops_search.h"
#endif

namespace reid_ops::k_reciprocal {
namespace {

template <typename Device>
struct Implementation {
  static void nearest(const Tensor& block, const OptionalTensor& row_terms,
                      const OptionalTensor& column_terms, std::int64_t measure, std::int64_t squarings,
                      bool by_column, std::int64_t first_candidate, std::int64_t self_candidate,
                      const Tensor& distances, const Tensor& indices, const Tensor& largest) {
    Nearest call = {};
    call.block = checked_block(block, row_terms, column_terms, measure, squarings);
    STD_TORCH_CHECK(call.block.measure != Measure::kNone, kOp, ": nearest needs a measure");
    call.type = checked_type(block, "block");
    call.by_column = by_column;
    call.first_candidate = first_candidate;
    call.self_candidate = self_candidate;
    const std::int64_t candidates = by_column ? call.block.rows : call.block.columns;
    STD_TORCH_CHECK(
        first_candidate >= 0 && first_candidate < std::numeric_limits<std::int32_t>::max() - candidates, kOp,
        ": first_candidate must be in [0, 2**31 - 1 - candidates), got ", first_candidate);
    STD_TORCH_CHECK(self_candidate >= -kNoCandidate && self_candidate < kNoCandidate, kOp,
                    ": self_candidate must be in [-2**62, 2**62), got ", self_candidate);
    check(distances, "distances", block.scalar_type(), {call.items(), -1}, block);
    call.neighbours = distances.size(1);
    STD_TORCH_CHECK(call.neighbours >= 1, kOp, ": distances must have a column at least");
    check(indices, "indices", ScalarType::Int, {call.items(), call.neighbours}, block);
    check(largest, "largest", block.scalar_type(), {call.items()}, block);
    call.distances = distances.mutable_data_ptr();
    call.indices = indices.mutable_data_ptr<std::int32_t>();
    call.largest = largest.mutable_data_ptr();
    if (block.numel() > 0) Device::run(call, block);
  }

  static Tensor reverse_ranks(const Tensor& neighbours) {
    ReverseRanks call = {};
    call.lists = checked_lists(neighbours);
    Tensor reverse = allocate(neighbours, {call.lists.items, call.lists.length}, ScalarType::Int, kOp);
    call.reverse = reverse.mutable_data_ptr<std::int32_t>();
    if (reverse.numel() > 0) Device::run(call, neighbours);
    return reverse;
  }

  // Counts without `offsets`, fills with them.
  static Tensor sets(const Tensor& neighbours, const Tensor& reverse, const OptionalTensor& offsets,
                     std::int64_t entries, std::int64_t list, std::int64_t half) {
    Sets call = {};
    call.lists = checked_lists(neighbours);
    check(reverse, "reverse", ScalarType::Int, {call.lists.items, call.lists.length}, neighbours);
    STD_TORCH_CHECK(list >= 1 && half >= 1, kOp, ": list and half must be at least 1");
    call.reverse = reverse.const_data_ptr<std::int32_t>();
    call.list = std::min(list, call.lists.length);
    call.half = std::min(half, call.lists.length);
    if (offsets.has_value()) {
      call.offsets = checked_offsets<Device>(*offsets, "offsets", call.lists.items, entries, neighbours);
    }
    Tensor result = allocate(neighbours, {offsets.has_value() ? entries : call.lists.items},
                             offsets.has_value() ? ScalarType::Int : ScalarType::Long, kOp);
    if (call.lists.items == 0) return result;
    Misfit misfit{false};
    call.misfit = &misfit;
    if (offsets.has_value()) {
      if (entries == 0) return result;
      call.columns = result.mutable_data_ptr<std::int32_t>();
    } else {
      call.sizes = result.mutable_data_ptr<std::int64_t>();
    }
    std::optional<Tensor> scratch;
    if constexpr (!Device::kOnHost) {
      const std::int64_t capacity = std::max<std::int64_t>(1, call.capacity());
      call.scratch_rows = std::clamp<std::int64_t>((std::int64_t{1} << 22) / capacity, 1, 8192);
      call.scratch_rows = std::min(call.scratch_rows, call.lists.items);
      scratch = allocate(neighbours, {call.scratch_rows, capacity}, ScalarType::Int, kOp);
      call.scratch = scratch->mutable_data_ptr<std::int32_t>();
    }
    Device::run(call, neighbours);
    check_fitting(misfit, "offsets");
    return result;
  }

  static Tensor pair_distances(const Tensor& features, const Tensor& offsets, const Tensor& columns) {
    PairDistances call = {};
    call.type = checked_type(features, "features");
    check(features, "features", features.scalar_type(), {-1, -1}, features);
    check(columns, "columns", ScalarType::Int, {-1}, features);
    call.features = features.const_data_ptr();
    call.items = features.size(0);
    call.dimension = features.size(1);
    call.offsets = checked_offsets<Device>(offsets, "offsets", call.items, columns.numel(), features);
    call.columns = columns.const_data_ptr<std::int32_t>();
    Tensor distances = allocate(features, {columns.numel()}, features.scalar_type(), kOp);
    call.distances = distances.mutable_data_ptr();
    if (distances.numel() > 0) Device::run(call, features);
    return distances;
  }

  static Tensor encode(const Tensor& distances, const Tensor& scale, const Tensor& offsets) {
    Encode call = {};
    call.type = checked_type(distances, "distances");
    check(distances, "distances", distances.scalar_type(), {-1}, distances);
    check(scale, "scale", distances.scalar_type(), {-1}, distances);
    call.items = scale.numel();
    call.distances = distances.const_data_ptr();
    call.scale = scale.const_data_ptr();
    call.offsets = checked_offsets<Device>(offsets, "offsets", call.items, distances.numel(), distances);
    Tensor weights = allocate(distances, {distances.numel()}, distances.scalar_type(), kOp);
    call.weights = weights.mutable_data_ptr();
    if (weights.numel() > 0) Device::run(call, distances);
    return weights;
  }

  // (sizes, nothing) without `new_offsets`, (columns, weights) with them.
  static std::tuple<Tensor, Tensor> expand(const Tensor& neighbours, const Tensor& offsets,
                                           const Tensor& columns, const OptionalTensor& weights,
                                           std::int64_t members, const OptionalTensor& new_offsets,
                                           std::int64_t entries) {
    Expand call = {};
    call.lists = checked_lists(neighbours);
    call.members = members;
    STD_TORCH_CHECK(members >= 1, kOp, ": members must be at least 1, got ", members);
    check_both(weights, new_offsets);
    const ScalarType type = weights.has_value() ? weights->scalar_type() : ScalarType::Float;
    if (weights.has_value()) call.type = checked_type(*weights, "weights");
    call.source =
        checked_rows<Device>(offsets, columns, weights, call.lists.items, call.lists.items, type, neighbours);
    if (!new_offsets.has_value()) {
      Tensor sizes = allocate(neighbours, {call.lists.items}, ScalarType::Long, kOp);
      call.sizes = sizes.mutable_data_ptr<std::int64_t>();
      if (sizes.numel() > 0) Device::run(call, neighbours);
      return {sizes, allocate(neighbours, {0}, type, kOp)};
    }
    call.offsets =
        checked_offsets<Device>(*new_offsets, "expanded_offsets", call.lists.items, entries, neighbours);
    Tensor new_columns = allocate(neighbours, {entries}, ScalarType::Int, kOp);
    Tensor new_weights = allocate(neighbours, {entries}, type, kOp);
    Misfit misfit{false};
    call.misfit = &misfit;
    call.columns = new_columns.mutable_data_ptr<std::int32_t>();
    call.weights = new_weights.mutable_data_ptr();
    if (entries > 0) Device::run(call, neighbours);
    check_fitting(misfit, "expanded_offsets");
    return {new_columns, new_weights};
  }

  // (sizes, nothing) without `list_offsets`, (rows less first_row, weights) with them.
  static std::tuple<Tensor, Tensor> invert(const Tensor& offsets, const Tensor& columns,
                                           const OptionalTensor& weights, std::int64_t first_row,
                                           const OptionalTensor& list_offsets, std::int64_t entries) {
    Invert call = {};
    call.items = rows_of(offsets);
    call.first_row = first_row;
    STD_TORCH_CHECK(first_row >= 0 && first_row <= call.items, kOp, ": first_row must be in [0, ", call.items,
                    "], got ", first_row);
    check_both(weights, list_offsets);
    const ScalarType type = weights.has_value() ? weights->scalar_type() : ScalarType::Float;
    if (weights.has_value()) call.type = checked_type(*weights, "weights");
    call.source = checked_rows<Device>(offsets, columns, weights, call.items, call.items, type, offsets);
    if (!list_offsets.has_value()) {
      Tensor sizes = allocate(offsets, {call.items}, ScalarType::Long, kOp);
      call.sizes = sizes.mutable_data_ptr<std::int64_t>();
      if (call.items > 0) Device::run(call, offsets);
      return {sizes, allocate(offsets, {0}, type, kOp)};
    }
    call.offsets = checked_offsets<Device>(*list_offsets, "list_offsets", call.items, entries, offsets);
    Tensor rows = allocate(offsets, {entries}, ScalarType::Int, kOp);
    Tensor list_weights = allocate(offsets, {entries}, type, kOp);
    Tensor cursor = allocate(offsets, {Device::kOnHost ? 0 : call.items}, ScalarType::Long, kOp);
    Misfit misfit{false};
    call.misfit = &misfit;
    call.rows = rows.mutable_data_ptr<std::int32_t>();
    call.weights = list_weights.mutable_data_ptr();
    call.sizes = cursor.mutable_data_ptr<std::int64_t>();
    if (entries > 0) Device::run(call, offsets);
    check_fitting(misfit, "list_offsets");
    return {rows, list_weights};
  }

  static void blend(const Tensor& block, const OptionalTensor& row_terms, const OptionalTensor& column_terms,
                    std::int64_t measure, std::int64_t squarings, const OptionalTensor& scale,
                    const Tensor& offsets, const Tensor& columns, const Tensor& weights,
                    std::int64_t first_row, const Tensor& list_offsets, const Tensor& list_rows,
                    const Tensor& list_weights, const OptionalTensor& row_sums,
                    const OptionalTensor& column_sums, double lambda) {
    Blend call = {};
    call.block = checked_block(block, row_terms, column_terms, measure, squarings);
    call.type = checked_type(block, "block");
    call.output = block.mutable_data_ptr();
    call.scale = checked_terms(scale, "scale", call.block.rows, block);
    const std::int64_t items = rows_of(offsets);
    const ScalarType type = block.scalar_type();
    call.rows = checked_rows<Device>(offsets, columns, weights, items, items, type, block);
    call.first_row = first_row;
    STD_TORCH_CHECK(first_row >= 0 && first_row <= items - call.block.rows, kOp, ": rows from ", first_row,
                    " on must lie in [0, ", items, "]");
    call.inverse =
        checked_rows<Device>(list_offsets, list_rows, list_weights, items, call.block.columns, type, block);
    STD_TORCH_CHECK(row_sums.has_value() == column_sums.has_value(), kOp,
                    ": row_sums and column_sums come together");
    call.row_sums = checked_terms(row_sums, "row_sums", call.block.rows, block);
    call.column_sums = checked_terms(column_sums, "column_sums", call.block.columns, block);
    call.lambda = lambda;
    if (block.numel() == 0) return;
    std::optional<Tensor> scratch;
    if constexpr (!Device::kOnHost) {
      scratch = allocate(block, {call.block.rows, call.block.columns}, block.scalar_type(), kOp);
      call.scratch = scratch->mutable_data_ptr();
    }
    Device::run(call, block);
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {
  static constexpr bool kOnHost = true;
  template <typename Call>
  static void run(const Call& call, const Tensor&) {
    run_on_cpu(call);
  }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  static constexpr bool kOnHost = false;
  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    run_on_cuda(call, tensor, kOp);
  }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
  library.impl("k_reciprocal_nearest", REID_OPS_BOX(&Ops::nearest));
  library.impl("k_reciprocal_reverse_ranks", REID_OPS_BOX(&Ops::reverse_ranks));
  library.impl("k_reciprocal_sets", REID_OPS_BOX(&Ops::sets));
  library.impl("k_reciprocal_pair_distances", REID_OPS_BOX(&Ops::pair_distances));
  library.impl("k_reciprocal_encode", REID_OPS_BOX(&Ops::encode));
  library.impl("k_reciprocal_expand", REID_OPS_BOX(&Ops::expand));
  library.impl("k_reciprocal_invert", REID_OPS_BOX(&Ops::invert));
  library.impl("k_reciprocal_blend", REID_OPS_BOX(&Ops::blend));
#if !defined(REID_OPS_EMULATION)
  if constexpr (Device::kOnHost) {
    library.impl("k_reciprocal_products", REID_OPS_BOX(&products));
    library.impl("k_reciprocal_search", REID_OPS_BOX(&search));
  }
#endif
}

}  // namespace
}  // namespace reid_ops::k_reciprocal

REID_OPS_IMPLEMENT(k_reciprocal)
