// The same mistake met the other way round: the early threads wait, a later one leaves.
#include "planted.h"

namespace {

__global__ void wait_in_branch(bool corrected) {
  if (corrected || threadIdx.x < 40) __syncthreads();
}

}  // namespace

PLANTED(barrier_before_exit) {
  return reid_ops::launch(wait_in_branch, dim3(2), dim3(64), 0, nullptr, corrected);
}
