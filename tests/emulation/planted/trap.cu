// A kernel that gives up by itself.
#include "planted.h"

namespace {

__global__ void give_up(bool corrected) {
  if (!corrected && blockIdx.x == 1 && threadIdx.x == 3) __trap();
}

}  // namespace

PLANTED(trap) { return reid_ops::launch(give_up, dim3(2), dim3(8), 0, nullptr, corrected); }
