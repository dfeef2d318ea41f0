// similarity_graph on the CPU: every call of kernels.h with its types filled in.
// Compiled once per instruction set (see cpu.cpp); no include guard.

namespace reid_ops::similarity_graph::REID_OPS_ISA {

// clang-format off: each needs those before it
#include "common/cpu_vector.h"
#include "similarity_graph/cpu_exponential.h"
#include "similarity_graph/cpu_partial.h"
#include "similarity_graph/graph_core.h"
#include "similarity_graph/cpu_graph.h"
#include "similarity_graph/cpu_affine.h"
#include "similarity_graph/cpu_walk.h"
#include "similarity_graph/cpu_features.h"
#include "similarity_graph/cpu_sums.h"
// clang-format on

#undef REID_OPS_NODE
#undef REID_OPS_NODE_LAMBDA

#define REID_OPS_BY_PRECISION(Call, function, is_double)                  \
  void run(const Call& call, int, std::int64_t begin, std::int64_t end) { \
    if (is_double) return function<double>(call, begin, end);             \
    function<float>(call, begin, end);                                    \
  }
REID_OPS_BY_PRECISION(Graph, run_graph, call.is_double)
REID_OPS_BY_PRECISION(GraphBackward, run_graph, call.graph.is_double)
REID_OPS_BY_PRECISION(Nodes, run_nodes, call.is_double)
REID_OPS_BY_PRECISION(NodesBackward, run_nodes, call.nodes.is_double)
REID_OPS_BY_PRECISION(Statistics, run_statistics, call.is_double)
REID_OPS_BY_PRECISION(Affine, run_affine, call.is_double)
REID_OPS_BY_PRECISION(AffineSums, run_affine, call.affine.is_double)
REID_OPS_BY_PRECISION(AffineBackward, run_affine, call.affine.is_double)
#undef REID_OPS_BY_PRECISION

#define REID_OPS_BY_TYPE(Call, features)                                       \
  void run(const Call& call, int step, std::int64_t begin, std::int64_t end) { \
    switch (features.type) {                                                   \
      case DataType::kFloat32:                                                 \
        return run_features<float, float>(call, step, begin, end);             \
      case DataType::kFloat64:                                                 \
        return run_features<double, double>(call, step, begin, end);           \
      case DataType::kFloat16:                                                 \
        return run_features<Float16, float>(call, step, begin, end);           \
      case DataType::kBFloat16:                                                \
        return run_features<BFloat16, float>(call, step, begin, end);          \
    }                                                                          \
  }
REID_OPS_BY_TYPE(Squeeze, call.features)
REID_OPS_BY_TYPE(Excite, call.features)
REID_OPS_BY_TYPE(Sums, call.excite.features)
REID_OPS_BY_TYPE(Input, call.features)
#undef REID_OPS_BY_TYPE

}  // namespace reid_ops::similarity_graph::REID_OPS_ISA
