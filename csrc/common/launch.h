// Kernel launches in plain C++ syntax, and the one spelling of dynamic shared memory.
//
// Every kernel of this project starts through `launch`, which calls the runtime's own
// cudaLaunchKernelEx. No `<<<>>>`: the same file then compiles as C++ against the emulation in
// tests/emulation/, where a block's threads run as fibers on the CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace reid_ops {

// A kernel may use this much dynamic shared memory without asking (CUDA programming guide,
// "Technical Specifications per Compute Capability"); above it, the attribute must be raised.
constexpr std::size_t kSharedBytesWithoutOptIn = 48 * 1024;

// Launches `kernel` on `stream` and returns the launch's own error, if any.
// An empty grid is not an error here: there is nothing to do.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > kSharedBytesWithoutOptIn) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  // A failed launch also sets the thread's last error, which would surface in somebody else's
  // check later: take it off here, where it belongs.
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

}  // namespace reid_ops

// Inside a kernel: `REID_OPS_DYNAMIC_SHARED(float, tile);` declares `float* tile`, 16-byte aligned.
#if defined(REID_OPS_EMULATION)
#define REID_OPS_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(::reid_ops_emulation::dynamic_shared_memory())
#else
#define REID_OPS_DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char reid_ops_shared_[]; \
  type* const name = reinterpret_cast<type*>(reid_ops_shared_)
#endif
