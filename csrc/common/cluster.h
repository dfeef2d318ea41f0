// Thread-block clusters (sm_90 and later): blocks that run at the same time and read one another's
// shared memory. tests/emulation/ has twins of the device functions.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "common/launch.h"

#if !defined(REID_OPS_EMULATION)
#include <cooperative_groups.h>
#endif

namespace reid_ops {

constexpr int kPortableClusterBlocks = 8;  // larger ones must be allowed kernel by kernel
constexpr int kMostClusterBlocks = 16;

// ------------------------------------------------------------------ device

// A kernel that uses these is only ever launched where `cluster_fits`, so never below sm_90.
#if defined(REID_OPS_EMULATION)
inline int cluster_rank() { return static_cast<int>(reid_ops_emulation::cluster_rank()); }
inline int cluster_blocks() { return static_cast<int>(reid_ops_emulation::cluster_blocks()); }
inline void cluster_sync() {
  reid_ops_emulation::block_barrier(reid_ops_emulation::Barrier::kSyncCluster, 0);
}
template <typename T>
T* shared_of(T* address, int rank) {
  return static_cast<T*>(reid_ops_emulation::shared_of(address, static_cast<unsigned int>(rank)));
}
#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// This block's number in its cluster, and how many there are.
__device__ __forceinline__ int cluster_rank() {
  return static_cast<int>(cooperative_groups::this_cluster().block_rank());
}
__device__ __forceinline__ int cluster_blocks() {
  return static_cast<int>(cooperative_groups::this_cluster().num_blocks());
}
// A barrier for all threads of all blocks; what was written before it is seen after it.
__device__ __forceinline__ void cluster_sync() { cooperative_groups::this_cluster().sync(); }
// The same place in another block's shared memory. That block must not have ended.
template <typename T>
__device__ __forceinline__ T* shared_of(T* address, int rank) {
  return cooperative_groups::this_cluster().map_shared_rank(address, rank);
}
#else
__device__ __forceinline__ int cluster_rank() { return 0; }
__device__ __forceinline__ int cluster_blocks() { return 1; }
__device__ __forceinline__ void cluster_sync() { __trap(); }
template <typename T>
__device__ __forceinline__ T* shared_of(T* address, int) {
  return address;
}
#endif

// ------------------------------------------------------------------ host

struct ClusterLaunch {
  cudaLaunchConfig_t config;
  cudaLaunchAttribute attribute;

  ClusterLaunch(unsigned int clusters, int blocks, int threads, std::size_t shared_bytes, cudaStream_t stream)
      : config(), attribute() {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned int>(blocks);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(clusters * static_cast<unsigned int>(blocks));
    config.blockDim = dim3(static_cast<unsigned int>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;
};

// Whether the current device can run clusters of so many blocks of `kernel`, which is allowed what it takes.
template <typename... Parameters>
bool cluster_fits(void (*kernel)(Parameters...), int blocks, int threads, std::size_t shared_bytes) {
  const auto fits = [&] {
    int device = 0, major = 0, most_shared = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return false;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess)
      return false;
    if (cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
      return false;
    if (major < 9 || shared_bytes > static_cast<std::size_t>(most_shared)) return false;
    const void* const address = reinterpret_cast<const void*>(kernel);
    cudaFuncAttributes attributes;
    if (cudaFuncGetAttributes(&attributes, address) != cudaSuccess) return false;
    if (attributes.ptxVersion < 90) return false;  // built for older devices: the functions above are stubs
    if (allow_all_shared_memory(address) != cudaSuccess) return false;
    if (blocks > kPortableClusterBlocks &&
        cudaFuncSetAttribute(address, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) != cudaSuccess)
      return false;
    const ClusterLaunch launch(1, blocks, threads, shared_bytes, nullptr);
    int active = 0;
    return cudaOccupancyMaxActiveClusters(&active, kernel, &launch.config) == cudaSuccess && active > 0;
  };
  const bool result = fits();
  if (!result) cudaGetLastError();  // a question that failed is an answer, not an error
  return result;
}

// Launches `clusters` clusters of `blocks` blocks; `cluster_fits` must have said yes.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), unsigned int clusters, int blocks, int threads,
                            std::size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  if (clusters == 0) return cudaSuccess;
  const ClusterLaunch launch(clusters, blocks, threads, shared_bytes, stream);
  const cudaError_t error = cudaLaunchKernelEx(&launch.config, kernel, std::forward<Arguments>(arguments)...);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

}  // namespace reid_ops
