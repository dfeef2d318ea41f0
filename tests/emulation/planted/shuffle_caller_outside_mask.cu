// Every lane calls with a mask of the lower half warp.
#include "planted.h"

namespace {

__global__ void call(bool corrected) {
  const unsigned int half = corrected && threadIdx.x >= 16 ? 0xffff0000u : 0x0000ffffu;
  __any_sync(half, 1);
}

}  // namespace

PLANTED(shuffle_caller_outside_mask) {
  return reid_ops::launch(call, dim3(1), dim3(32), 0, nullptr, corrected);
}
