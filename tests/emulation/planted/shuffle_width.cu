// Segments of 24 lanes do not exist.
#include "planted.h"

namespace {

__global__ void shuffle(int width) { __shfl_sync(0xffffffffu, threadIdx.x, 0, width); }

}  // namespace

PLANTED(shuffle_width) {
  return reid_ops::launch(shuffle, dim3(1), dim3(32), 0, nullptr, corrected ? 16 : 24);
}
