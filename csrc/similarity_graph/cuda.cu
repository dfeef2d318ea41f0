// similarity_graph on CUDA: the launches. Kernels are in cuda_graph.h, cuda_affine.h, cuda_features.h,
// cuda_sums.h and cuda_cluster.h.
#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "similarity_graph/cuda_affine.h"
#include "similarity_graph/cuda_cluster.h"
#include "similarity_graph/cuda_common.h"
#include "similarity_graph/cuda_features.h"
#include "similarity_graph/cuda_graph.h"
#include "similarity_graph/cuda_sums.h"

namespace reid_ops::similarity_graph {
namespace {

template <typename... Parameters, typename Call>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, cudaStream_t stream, const Call& call) {
  return launch(kernel, grid, dim3(kThreads), 0, stream, call);
}

template <typename S, typename T>
cudaError_t launch_squeeze(const Squeeze& call, cudaStream_t stream) {
  const cudaError_t error =
      start(call.features.channels_last ? squeeze_last_kernel<S, T> : squeeze_planes_kernel<S, T>,
            grid_of(blocks_of(call.features)), stream, call);
  if (error != cudaSuccess) return error;
  const Geometry& geometry = call.features.geometry;
  return start(squeeze_finish_kernel<T>,
               grid_of_items(geometry.batch * (geometry.pixels() + geometry.maps() * geometry.channels)),
               stream, call);
}

template <typename S, typename T, int kLevels>
cudaError_t launch_excite_levels(const Excite& call, cudaStream_t stream) {
  return start(
      call.features.channels_last ? excite_last_kernel<S, T, kLevels> : excite_planes_kernel<S, T, kLevels>,
      grid_of(blocks_of(call.features)), stream, call);
}

template <typename S, typename T>
cudaError_t launch_excite(const Excite& call, cudaStream_t stream) {
  // The paper's three levels are unrolled.
  return call.features.geometry.levels == 3 ? launch_excite_levels<S, T, 3>(call, stream)
                                            : launch_excite_levels<S, T, 0>(call, stream);
}

template <typename S, typename T, int kLevels>
cudaError_t launch_sums_levels(const Sums& call, cudaStream_t stream) {
  return start(call.excite.features.channels_last ? sums_last_kernel<S, T, kLevels>
                                                  : sums_planes_kernel<S, T, kLevels>,
               grid_of(blocks_of(call.excite.features)), stream, call);
}

template <typename S, typename T>
cudaError_t launch_sums(const Sums& call, cudaStream_t stream) {
  const Geometry& geometry = call.excite.features.geometry;
  const cudaError_t error = geometry.levels == 3 ? launch_sums_levels<S, T, 3>(call, stream)
                                                 : launch_sums_levels<S, T, 0>(call, stream);
  if (error != cudaSuccess) return error;
  const std::int64_t items = geometry.levels * geometry.pixels() + geometry.maps() * geometry.channels;
  return start(sums_finish_kernel<T>, grid_of_items(geometry.batch * items), stream, call);
}

template <typename S, typename T>
cudaError_t launch_input(const Input& call, cudaStream_t stream) {
  return start(call.features.channels_last ? input_last_kernel<S, T> : input_planes_kernel<S, T>,
               grid_of(blocks_of(call.features)), stream, call);
}

template <typename T>
cudaError_t launch_graph(const GraphBackward& call, cudaStream_t stream) {
  const dim3 grid = grid_of_items(call.graph.batch * call.graph.height * call.graph.width);
  const cudaError_t error = start(graph_rows_kernel<T>, grid, stream, call);
  return error != cudaSuccess ? error : start(graph_gather_kernel<T>, grid, stream, call);
}

// ------------------------------------------------------------------ evaluation in one kernel

int channels_of_block(const Geometry& geometry, int blocks) {
  return static_cast<int>((geometry.channels + blocks - 1) / blocks);
}

// Asked once per device, kernel and size: `cluster_fits` takes longer than a small launch.
template <typename... Parameters>
bool remembered_fit(void (*kernel)(Parameters...), int blocks, std::size_t bytes) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int, std::size_t>, bool> known;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  const std::lock_guard<std::mutex> lock(mutex);
  const auto key = std::make_tuple(device, reinterpret_cast<const void*>(kernel), blocks, bytes);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known[key] = cluster_fits(kernel, blocks, kClusterThreads, bytes);
}

// The fewest blocks of which a multiprocessor holds two, so that one's loads hide behind the other's
// stores; else the fewest that fit. 0: none do. It does not depend on the number of images.
template <typename S, typename T, typename Kernel>
int cluster_of(Kernel kernel, const EvaluateAtOnce& call) {
  constexpr std::size_t kHalf = 113 * 1024;  // of 228 KB, 1 KB a block being the system's
  const Geometry& geometry = call.excite.features.geometry;
  const int wish = call.blocks;
  if (wish == 0) return 0;
  alignas(16) unsigned char base[16];
  for (const std::size_t most : {kHalf, 2 * kHalf}) {
    for (int blocks = wish > 0 ? wish : 1; blocks <= kMostClusterBlocks; blocks *= 2) {
      const std::size_t bytes =
          ClusterMemory<S, T>(base, geometry, call.scales, channels_of_block(geometry, blocks)).bytes;
      const bool portable = blocks <= kPortableClusterBlocks || most > kHalf || wish > 0;
      if (bytes <= most && portable && remembered_fit(kernel, blocks, bytes)) return blocks;
      if (wish > 0) break;
    }
  }
  return 0;
}

template <typename S, typename T, bool kLast, int kLevels>
cudaError_t launch_at_once(const EvaluateAtOnce& call, cudaStream_t stream) {
  const auto kernel = evaluate_cluster_kernel<S, T, kLast, kLevels>;
  const Geometry& geometry = call.excite.features.geometry;
  const int blocks = cluster_of<S, T>(kernel, call);
  *call.taken = blocks > 0 && geometry.batch * blocks <= 0x7fffffff;
  if (!*call.taken) return cudaSuccess;
  alignas(16) unsigned char base[16];
  const int share = channels_of_block(geometry, blocks);
  return launch_clusters(kernel, static_cast<unsigned int>(geometry.batch), blocks, kClusterThreads,
                         ClusterMemory<S, T>(base, geometry, call.scales, share).bytes, stream, call, share);
}

template <typename S, typename T>
cudaError_t launch_at_once(const EvaluateAtOnce& call, cudaStream_t stream) {
  const Features& features = call.excite.features;
  if (features.channels_last) {
    return features.geometry.levels == 3 ? launch_at_once<S, T, true, 3>(call, stream)
                                         : launch_at_once<S, T, true, 0>(call, stream);
  }
  return features.geometry.levels == 3 ? launch_at_once<S, T, false, 3>(call, stream)
                                       : launch_at_once<S, T, false, 0>(call, stream);
}

std::int64_t table_of(const Geometry& geometry) { return geometry.maps() * geometry.channels; }
dim3 grid_of_maps(const Geometry& geometry) { return grid_of(geometry.batch * geometry.maps()); }

}  // namespace

#define REID_OPS_LAUNCH(Call, kernel, is_double, grid)                            \
  cudaError_t cuda_launch(const Call& call, cudaStream_t stream) {                \
    return start(is_double ? kernel<double> : kernel<float>, grid, stream, call); \
  }
REID_OPS_LAUNCH(Graph, graph_kernel, call.is_double, grid_of_items(call.batch* call.height* call.width))
REID_OPS_LAUNCH(Nodes, nodes_kernel, call.is_double, grid_of_maps(call.geometry))
REID_OPS_LAUNCH(NodesBackward, nodes_backward_kernel, call.nodes.is_double, grid_of_maps(call.nodes.geometry))
REID_OPS_LAUNCH(Statistics, statistics_kernel, call.is_double, grid_of_items(table_of(call.geometry)))
REID_OPS_LAUNCH(Affine, affine_kernel, call.is_double,
                grid_of_items(call.geometry.batch* table_of(call.geometry)))
REID_OPS_LAUNCH(AffineSums, affine_sums_kernel, call.affine.is_double,
                grid_of_items(table_of(call.affine.geometry)))
REID_OPS_LAUNCH(AffineBackward, affine_backward_kernel, call.affine.is_double,
                grid_of_maps(call.affine.geometry))
#undef REID_OPS_LAUNCH

cudaError_t cuda_launch(const GraphBackward& call, cudaStream_t stream) {
  return call.graph.is_double ? launch_graph<double>(call, stream) : launch_graph<float>(call, stream);
}

#define REID_OPS_LAUNCH(Call, function, features)                  \
  cudaError_t cuda_launch(const Call& call, cudaStream_t stream) { \
    switch (features.type) {                                       \
      case DataType::kFloat32:                                     \
        return function<float, float>(call, stream);               \
      case DataType::kFloat64:                                     \
        return function<double, double>(call, stream);             \
      case DataType::kFloat16:                                     \
        return function<__half, float>(call, stream);              \
      default:                                                     \
        return function<__nv_bfloat16, float>(call, stream);       \
    }                                                              \
  }
REID_OPS_LAUNCH(Squeeze, launch_squeeze, call.features)
REID_OPS_LAUNCH(Excite, launch_excite, call.features)
REID_OPS_LAUNCH(Sums, launch_sums, call.excite.features)
REID_OPS_LAUNCH(Input, launch_input, call.features)
REID_OPS_LAUNCH(EvaluateAtOnce, launch_at_once, call.excite.features)
#undef REID_OPS_LAUNCH

}  // namespace reid_ops::similarity_graph
