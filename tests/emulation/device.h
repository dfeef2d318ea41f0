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
constexpr unsigned int kPortableClusterBlocks = 8, kMostClusterBlocks = 16;

// Keeps an error for cudaGetLastError of this OS thread and returns it.
cudaError_t remember(cudaError_t error);
cudaError_t last_error(bool take);

// The most dynamic shared memory a launch of `kernel` may ask for, and the most blocks of a cluster.
std::size_t dynamic_shared_limit(const void* kernel);
unsigned int cluster_limit(const void* kernel);

// The blocks of the launch's clusters, 1 without.
unsigned int cluster_size(const cudaLaunchConfig_t& config);
cudaError_t check_cluster(const cudaLaunchConfig_t& config, const void* kernel);

}  // namespace reid_ops_emulation
