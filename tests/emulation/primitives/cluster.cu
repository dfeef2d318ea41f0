// Clusters: who is who, barriers, and other blocks' shared memory, static and dynamic.
#include <cuda_runtime.h>

#include "common/cluster.h"

namespace {

// Every block publishes a number; every thread adds up those of its cluster, twice over. Rows of `out`:
// cluster's blocks, rank, sum of the dynamic ones, sum of the static ones.
__global__ void exchange(int rounds, float* out) {
  REID_OPS_DYNAMIC_SHARED(float, dynamic);
  __shared__ float fixed[4];
  const int thread = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  const int blocks = reid_ops::cluster_blocks();
  float first = 0, second = 0;
  for (int round = 0; round < rounds; ++round) {
    if (thread == 0) dynamic[1] = static_cast<float>(block + round), fixed[2] = 2 * dynamic[1];
    reid_ops::cluster_sync();
    for (int rank = 0; rank < blocks; ++rank) {
      first += reid_ops::shared_of(dynamic, rank)[1];
      second += *reid_ops::shared_of(&fixed[2], rank);
    }
    reid_ops::cluster_sync();
  }
  float* const row = out + 4 * (block * static_cast<int>(blockDim.x) + thread);
  row[0] = static_cast<float>(blocks);
  row[1] = static_cast<float>(reid_ops::cluster_rank());
  row[2] = first;
  row[3] = second;
}

__global__ void nothing() {}

}  // namespace

extern "C" {

int run_exchange(int clusters, int blocks, int threads, int rounds, float* out) {
  if (!reid_ops::cluster_fits(exchange, blocks, threads, 64)) return cudaErrorInvalidClusterSize;
  return reid_ops::launch_clusters(exchange, static_cast<unsigned int>(clusters), blocks, threads, 64,
                                   nullptr, rounds, out);
}

// An ordinary launch: every block is a cluster of its own.
int run_exchange_alone(int blocks, int threads, float* out) {
  return reid_ops::launch(exchange, dim3(static_cast<unsigned int>(blocks)),
                          dim3(static_cast<unsigned int>(threads)), 64, nullptr, 3, out);
}

// Without asking first, as the runtime is given it.
int run_raw_cluster(unsigned int grid, unsigned int x, unsigned int y) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = x;
  attribute.val.clusterDim.y = y;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid);
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, nothing);
}

int run_cluster_fits(int blocks, unsigned long long shared_bytes) {
  return reid_ops::cluster_fits(nothing, blocks, 512, shared_bytes);
}

}  // extern "C"
