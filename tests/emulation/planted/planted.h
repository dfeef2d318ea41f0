// Kernels with one known mistake each, and their corrected twins: the emulation must tell them apart.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <vector>

#include "common/launch.h"

namespace planted {

// Runs the kernel with its mistake, or the corrected one. A wrong result that no check of the
// emulation reports (it shows as NaN, or as a dependence on the schedule) is cudaErrorUnknown.
using Run = cudaError_t (*)(bool corrected);

struct Entry {
  const char* name;
  Run run;
};
std::vector<Entry>& entries();

struct Registration {
  Registration(const char* name, Run run) { entries().push_back({name, run}); }
};

inline cudaError_t all_equal(cudaError_t error, const std::vector<float>& values, float expected) {
  if (error != cudaSuccess) return error;
  for (const float value : values) {
    if (!(value == expected)) return cudaErrorUnknown;
  }
  return cudaSuccess;
}

}  // namespace planted

// PLANTED(name) { ...uses `corrected`... }
#define PLANTED(name)                                                        \
  static cudaError_t planted_##name(bool corrected);                         \
  static const planted::Registration register_##name(#name, planted_##name); \
  static cudaError_t planted_##name([[maybe_unused]] bool corrected)
