// Two branches wait at barriers of different kinds.
#include "planted.h"

namespace {

__global__ void two_kinds(bool corrected) {
  if (corrected || threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads_or(1);
  }
}

}  // namespace

PLANTED(barrier_kinds) { return reid_ops::launch(two_kinds, dim3(1), dim3(64), 0, nullptr, corrected); }
