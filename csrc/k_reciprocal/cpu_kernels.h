// k_reciprocal on the CPU: the stages that stream over long rows.
// Compiled once per instruction set (see cpu.cpp); no include guard.

namespace reid_ops::k_reciprocal::REID_OPS_ISA {

// clang-format off: each needs those before it
#include "common/cpu_vector.h"
#include "k_reciprocal/cpu_lists.h"
#include "k_reciprocal/cpu_search.h"
#include "k_reciprocal/cpu_rows.h"
// clang-format on

inline void run(const Nearest& call, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? nearest<double>(call, begin, end) : nearest<float>(call, begin, end);
}
inline void run(const PairDistances& call, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? pair_distances<double>(call, begin, end)
                                  : pair_distances<float>(call, begin, end);
}
inline void run(const Blend& call, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? blend<double>(call, begin, end) : blend<float>(call, begin, end);
}

inline std::int64_t items_of(const Nearest& call) {
  return call.by_column ? (call.block.columns + kPiece - 1) / kPiece : call.block.rows;
}

}  // namespace reid_ops::k_reciprocal::REID_OPS_ISA
