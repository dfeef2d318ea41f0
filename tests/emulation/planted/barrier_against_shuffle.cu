// Lane 7 waits at the block's barrier, the rest of its warp in a shuffle that names it.
#include "planted.h"

namespace {

__global__ void cross(bool corrected) {
  if (!corrected && threadIdx.x == 7) __syncthreads();
  __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  if (corrected || threadIdx.x != 7) __syncthreads();
}

}  // namespace

PLANTED(barrier_against_shuffle) { return reid_ops::launch(cross, dim3(1), dim3(64), 0, nullptr, corrected); }
