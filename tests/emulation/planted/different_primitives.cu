// The lanes of one mask wait at different primitives.
#include "planted.h"

namespace {

__global__ void diverge(bool corrected) {
  if (corrected || threadIdx.x < 16) {
    __ballot_sync(0xffffffffu, 1);
  } else {
    __syncwarp();
  }
}

}  // namespace

PLANTED(different_primitives) { return reid_ops::launch(diverge, dim3(1), dim3(32), 0, nullptr, corrected); }
