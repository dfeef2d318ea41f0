// The device that is emulated, and what launches and the host interface share.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace reid_ops_emulation {

// An sm_90. Few multiprocessors, so that grids sized by their number still have to loop.
constexpr std::size_t kSharedBytesDefault = 48 * 1024;
constexpr std::size_t kSharedBytesOptIn = 227 * 1024;
constexpr std::size_t kSharedBytesPerMultiprocessor = 228 * 1024;
constexpr std::size_t kSharedBytesReservedPerBlock = 1024;
constexpr int kMultiprocessors = 8;

// Keeps an error for cudaGetLastError of this OS thread and returns it.
cudaError_t remember(cudaError_t error);
cudaError_t last_error(bool take);

// The most dynamic shared memory a launch of `kernel` may ask for.
std::size_t dynamic_shared_limit(const void* kernel);

}  // namespace reid_ops_emulation
