// part_correlation on the CPU: every call of kernels.h with its types filled in.
// Compiled once per instruction set (see cpu.cpp); no include guard.

namespace reid_ops::part_correlation::REID_OPS_ISA {

// clang-format off: each needs those before it
#include "common/cpu_vector.h"
#include "part_correlation/cpu_tiles.h"
#include "part_correlation/cpu_planes.h"
#include "part_correlation/cpu_cut.h"
#include "part_correlation/cpu_pointwise.h"
#include "part_correlation/cpu_forward.h"
#include "part_correlation/cpu_gradients.h"
// clang-format on

// From the run-time type to the templates: float16 and bfloat16 compute in float.
inline std::int64_t items_of(const Forward& call, std::int64_t threads) {
  const bool wide = call.problem.type == DataType::kFloat64;
  const Cut cut = wide ? cut_forward<double>(call, threads) : cut_forward<float>(call, threads);
  return cut.groups * cut.bands.count;
}
inline std::int64_t items_of(const GradSignal& call, std::int64_t threads) {
  const bool wide = call.problem.type == DataType::kFloat64;
  const Cut cut = wide ? cut_grad_signal<double>(call, threads) : cut_grad_signal<float>(call, threads);
  return cut.groups * cut.bands.count;
}
inline int lanes_of(const Problem& problem) {
  return problem.type == DataType::kFloat64 ? kLanes<double> : kLanes<float>;
}
inline std::int64_t items_of(const GradParts& call, std::int64_t) {
  const Problem& problem = call.problem;
  return Group::count(problem.part_rows, problem.channels, call.order != nullptr, lanes_of(problem));
}
inline std::int64_t items_of(const Backward& call, std::int64_t) {
  const Problem& problem = call.problem;
  return Group::count(problem.pairs, problem.channels, false, lanes_of(problem));
}

#define REID_OPS_RUN_BY_TYPE(Call, function)                                                    \
  inline void run(const Call& call, std::int64_t items, std::int64_t begin, std::int64_t end) { \
    switch (call.problem.type) {                                                                \
      case DataType::kFloat32:                                                                  \
        return function<float, float>(call, items, begin, end);                                 \
      case DataType::kFloat64:                                                                  \
        return function<double, double>(call, items, begin, end);                               \
      case DataType::kFloat16:                                                                  \
        return function<Float16, float>(call, items, begin, end);                               \
      case DataType::kBFloat16:                                                                 \
        return function<BFloat16, float>(call, items, begin, end);                              \
    }                                                                                           \
  }
REID_OPS_RUN_BY_TYPE(Forward, run_forward)
REID_OPS_RUN_BY_TYPE(GradSignal, run_grad_signal)
REID_OPS_RUN_BY_TYPE(GradParts, run_grad_parts)
REID_OPS_RUN_BY_TYPE(Backward, run_backward)
#undef REID_OPS_RUN_BY_TYPE

}  // namespace reid_ops::part_correlation::REID_OPS_ISA
