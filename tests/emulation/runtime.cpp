// The host side of the emulated CUDA runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "device.h"

namespace reid_ops_emulation {
namespace {

struct KernelLimits {
  std::mutex mutex;
  std::unordered_map<const void*, std::size_t> dynamic_shared_bytes;
  std::unordered_set<const void*> large_clusters;
};

// The device that is asked for: REID_OPS_EMULATION_DEVICE=multiprocessors,shared bytes a block,capability
// such as 90.
struct DeviceFacts {
  int multiprocessors = kMultiprocessors, shared_optin = static_cast<int>(kSharedBytesOptIn), capability = 90;
};
DeviceFacts device_facts() {
  DeviceFacts facts;
  const char* const wish = std::getenv("REID_OPS_EMULATION_DEVICE");
  if (wish == nullptr) return facts;
  DeviceFacts asked;
  const int read =
      std::sscanf(wish, "%d,%d,%d", &asked.multiprocessors, &asked.shared_optin, &asked.capability);
  if (read == 3 && asked.multiprocessors > 0 && asked.shared_optin >= static_cast<int>(kSharedBytesDefault) &&
      asked.shared_optin <= static_cast<int>(kSharedBytesOptIn)) {
    return asked;
  }
  std::fprintf(
      stderr,
      "reid_ops emulation: REID_OPS_EMULATION_DEVICE must be multiprocessors,shared bytes,capability, "
      "got '%s'\n",
      wish);
  std::abort();
}

KernelLimits& kernel_limits() {
  static KernelLimits limits;
  return limits;
}

}  // namespace

std::size_t dynamic_shared_limit(const void* kernel) {
  KernelLimits& limits = kernel_limits();
  const std::lock_guard<std::mutex> lock(limits.mutex);
  const auto found = limits.dynamic_shared_bytes.find(kernel);
  return found == limits.dynamic_shared_bytes.end() ? kSharedBytesDefault : found->second;
}

unsigned int cluster_limit(const void* kernel) {
  KernelLimits& limits = kernel_limits();
  const std::lock_guard<std::mutex> lock(limits.mutex);
  return limits.large_clusters.count(kernel) != 0 ? kMostClusterBlocks : kPortableClusterBlocks;
}

unsigned int cluster_size(const cudaLaunchConfig_t& config) {
  for (unsigned int index = 0; index < config.numAttrs; ++index) {
    const cudaLaunchAttribute& attribute = config.attrs[index];
    if (attribute.id == cudaLaunchAttributeClusterDimension) return attribute.val.clusterDim.x;
  }
  return 1;
}

cudaError_t check_cluster(const cudaLaunchConfig_t& config, const void* kernel) {
  for (unsigned int index = 0; index < config.numAttrs; ++index) {
    const cudaLaunchAttribute& attribute = config.attrs[index];
    const auto& cluster = attribute.val.clusterDim;
    if (attribute.id != cudaLaunchAttributeClusterDimension) continue;
    if (cluster.y != 1 || cluster.z != 1) return cudaErrorNotSupported;  // here, not on the device
    if (cluster.x == 0 || cluster.x > cluster_limit(kernel)) return cudaErrorInvalidClusterSize;
    if (config.gridDim.x % cluster.x != 0) return cudaErrorInvalidConfiguration;
  }
  return cudaSuccess;
}

cudaError_t resident_clusters(int* clusters, const void* kernel, const cudaLaunchConfig_t& config) {
  const cudaError_t refused = check_cluster(config, kernel);
  if (refused != cudaSuccess) return remember(refused);
  if (config.dynamicSmemBytes > dynamic_shared_limit(kernel)) return remember(cudaErrorInvalidValue);
  const dim3 block = config.blockDim;
  int blocks = 0;
  const cudaError_t error =
      resident_blocks(&blocks, static_cast<int>(block.x * block.y * block.z), config.dynamicSmemBytes);
  *clusters = blocks * device_facts().multiprocessors / static_cast<int>(cluster_size(config));
  return error;
}

cudaError_t resident_blocks(int* blocks, int block_threads, std::size_t dynamic_shared_bytes) {
  if (blocks == nullptr || block_threads < 1 || block_threads > 1024) return remember(cudaErrorInvalidValue);
  const std::size_t by_shared =
      kSharedBytesPerMultiprocessor / (dynamic_shared_bytes + kSharedBytesReservedPerBlock);
  const std::size_t warps = static_cast<std::size_t>(block_threads + 31) / 32;
  *blocks = static_cast<int>(std::min({std::size_t{32}, 64 / warps, by_shared}));
  return cudaSuccess;
}

}  // namespace reid_ops_emulation

using reid_ops_emulation::remember;

cudaError_t cudaGetLastError() { return reid_ops_emulation::last_error(true); }
cudaError_t cudaPeekAtLastError() { return reid_ops_emulation::last_error(false); }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (kernel == nullptr) return remember(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
    auto& limits = reid_ops_emulation::kernel_limits();
    const std::lock_guard<std::mutex> lock(limits.mutex);
    if (value != 0) {
      limits.large_clusters.insert(kernel);
    } else {
      limits.large_clusters.erase(kernel);
    }
    return cudaSuccess;
  }
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      value > reid_ops_emulation::device_facts().shared_optin) {
    return remember(cudaErrorInvalidValue);
  }
  auto& limits = reid_ops_emulation::kernel_limits();
  const std::lock_guard<std::mutex> lock(limits.mutex);
  limits.dynamic_shared_bytes[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  if (attributes == nullptr || kernel == nullptr) return remember(cudaErrorInvalidValue);
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->ptxVersion = attributes->binaryVersion = 90;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(reid_ops_emulation::dynamic_shared_limit(kernel));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxBlockDimZ:
      *value = 64;
      return cudaSuccess;
    case cudaDevAttrMaxGridDimX:
      *value = 0x7fffffff;
      return cudaSuccess;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *value = 65535;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(reid_ops_emulation::kSharedBytesDefault);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = reid_ops_emulation::device_facts().shared_optin;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(reid_ops_emulation::kSharedBytesPerMultiprocessor);
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = reid_ops_emulation::device_facts().multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = reid_ops_emulation::device_facts().capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = reid_ops_emulation::device_facts().capability % 10;
      return cudaSuccess;
  }
  return remember(cudaErrorInvalidValue);
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  return posix_memalign(address, 256, bytes) == 0 ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* address) {
  std::free(address);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (bytes != 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* address, int value, std::size_t bytes) {
  if (bytes != 0) std::memset(address, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* address, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(address, value, bytes);
}

#define REID_OPS_EMULATION_ERRORS(visit)                                                                     \
  visit(cudaSuccess, "no error") visit(cudaErrorInvalidValue, "invalid argument")                            \
      visit(cudaErrorMemoryAllocation, "out of memory")                                                      \
          visit(cudaErrorInitializationError, "initialization error")                                        \
              visit(cudaErrorInvalidConfiguration, "invalid configuration argument") visit(                  \
                  cudaErrorInvalidDeviceFunction, "invalid device function")                                 \
                  visit(cudaErrorNoDevice, "no CUDA-capable device is detected") visit(                      \
                      cudaErrorInvalidDevice, "invalid device ordinal")                                      \
                      visit(cudaErrorInvalidResourceHandle, "invalid resource handle") visit(                \
                          cudaErrorNotReady, "device not ready")                                             \
                          visit(cudaErrorIllegalAddress, "an illegal memory access was encountered") visit(  \
                              cudaErrorLaunchOutOfResources, "too many resources requested for launch")      \
                              visit(cudaErrorLaunchTimeout, "the launch timed out and was terminated")       \
                                  visit(cudaErrorAssert, "device-side assert triggered")                     \
                                      visit(cudaErrorMisalignedAddress, "misaligned address")                \
                                          visit(cudaErrorLaunchFailure, "unspecified launch failure")        \
                                              visit(cudaErrorNotSupported, "operation not supported")        \
                                                  visit(cudaErrorInvalidClusterSize, "invalid cluster size") \
                                                      visit(cudaErrorUnknown, "unknown error")

const char* cudaGetErrorName(cudaError_t error) {
#define REID_OPS_EMULATION_NAME(name, text) \
  case name:                                \
    return #name;
  switch (error) { REID_OPS_EMULATION_ERRORS(REID_OPS_EMULATION_NAME) }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
#define REID_OPS_EMULATION_TEXT(name, text) \
  case name:                                \
    return text;
  switch (error) { REID_OPS_EMULATION_ERRORS(REID_OPS_EMULATION_TEXT) }
  return "unrecognized error code";
}
