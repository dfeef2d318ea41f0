// The lower half warp reads from the upper half, which does not take part.
#include "planted.h"

namespace {

__global__ void read(bool corrected) {
  if (threadIdx.x < 16) __shfl_xor_sync(0x0000ffffu, threadIdx.x, corrected ? 8 : 16);
}

}  // namespace

PLANTED(shuffle_reads_outside_mask) {
  return reid_ops::launch(read, dim3(1), dim3(32), 0, nullptr, corrected);
}
