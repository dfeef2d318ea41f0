// Blocks of a cluster read one another's shared memory: too early, too late, and with one of them gone.
#include "common/cluster.h"
#include "planted.h"

namespace {

// Adds up what the cluster's blocks have written, with both barriers that takes.
__global__ void add_up(float* sums, bool first_barrier, bool last_barrier, bool one_leaves) {
  REID_OPS_DYNAMIC_SHARED(float, own);
  if (one_leaves && reid_ops::cluster_rank() == 1) return;
  if (threadIdx.x == 0) own[0] = 1.0f;
  if (first_barrier) {
    reid_ops::cluster_sync();
  } else {
    __syncthreads();
  }
  float sum = 0;
  for (int rank = 0; rank < reid_ops::cluster_blocks(); ++rank) sum += reid_ops::shared_of(own, rank)[0];
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  if (last_barrier) reid_ops::cluster_sync();
}

cudaError_t run(bool first_barrier, bool last_barrier, bool one_leaves) {
  std::vector<float> sums(8);
  const cudaError_t error = reid_ops::launch_clusters(add_up, 2, 4, 64, sizeof(float), nullptr, sums.data(),
                                                      first_barrier, last_barrier, one_leaves);
  return planted::all_equal(error, sums, 4.0f);
}

}  // namespace

PLANTED(cluster_reads_too_early) { return run(corrected, true, false); }
PLANTED(cluster_block_ends_too_early) { return run(true, corrected, false); }
PLANTED(cluster_barrier_without_a_block) { return run(true, true, !corrected); }
