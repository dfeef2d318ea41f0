// similarity_graph on the CPU: cuts calls into items and picks the kernels compiled for this processor.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/cpu_scratch.h"
#include "common/float16.h"
#include "common/instruction_set.h"
#include "similarity_graph/kernels.h"

namespace reid_ops::similarity_graph {
template <typename T>
constexpr T kLargest = std::numeric_limits<T>::max();
}

#define REID_OPS_KERNEL_FILE "similarity_graph/cpu_kernels.h"
#include "common/for_each_instruction_set.h"

namespace reid_ops::similarity_graph {

int cpu_steps(const Graph&) { return 1; }
int cpu_steps(const GraphBackward&) { return 1; }
int cpu_steps(const Nodes&) { return 1; }
int cpu_steps(const NodesBackward&) { return 1; }
int cpu_steps(const Statistics&) { return 1; }
int cpu_steps(const Affine&) { return 1; }
int cpu_steps(const AffineSums&) { return 1; }
int cpu_steps(const AffineBackward&) { return 1; }
int cpu_steps(const Squeeze&) { return 2; }
int cpu_steps(const Excite&) { return 1; }
int cpu_steps(const Sums&) { return 2; }
int cpu_steps(const Input&) { return 1; }

namespace {

std::int64_t maps_of_images(const Geometry& geometry) { return geometry.batch * geometry.maps(); }
std::int64_t chunks_of_maps(const Geometry& geometry) {
  return geometry.maps() * ((geometry.channels + kChannelChunk - 1) / kChannelChunk);
}
std::int64_t chunks_of_images(const Features& features) {
  return features.geometry.batch * features.chunks();
}

}  // namespace

std::int64_t cpu_items(const Graph& call, int) { return call.batch; }
std::int64_t cpu_items(const GraphBackward& call, int) { return call.graph.batch; }
std::int64_t cpu_items(const Nodes& call, int) { return maps_of_images(call.geometry); }
std::int64_t cpu_items(const NodesBackward& call, int) { return maps_of_images(call.nodes.geometry); }
std::int64_t cpu_items(const Statistics& call, int) { return chunks_of_maps(call.geometry); }
std::int64_t cpu_items(const Affine& call, int) { return maps_of_images(call.geometry); }
std::int64_t cpu_items(const AffineSums& call, int) { return chunks_of_maps(call.affine.geometry); }
std::int64_t cpu_items(const AffineBackward& call, int) { return maps_of_images(call.affine.geometry); }
std::int64_t cpu_items(const Squeeze& call, int step) {
  return step == 0 ? chunks_of_images(call.features) : call.features.geometry.batch;
}
std::int64_t cpu_items(const Excite& call, int) { return chunks_of_images(call.features); }
std::int64_t cpu_items(const Sums& call, int step) {
  return step == 0 ? chunks_of_images(call.excite.features) : call.excite.features.geometry.batch;
}
std::int64_t cpu_items(const Input& call, int) { return chunks_of_images(call.features); }

#define REID_OPS_DEFINE(Call)                                                      \
  void cpu_run(const Call& call, int step, std::int64_t begin, std::int64_t end) { \
    REID_OPS_CHOOSE(run, call, step, begin, end);                                  \
  }
REID_OPS_SIMILARITY_GRAPH_CALLS(REID_OPS_DEFINE)

}  // namespace reid_ops::similarity_graph
