// What every op's torch-aware file (ops.cpp) needs from torch's ABI-stable API.
//
// The checks here guard the kernels against calls that bypass the Python functions; the Python side
// raises friendlier ValueError/TypeError first. STD_TORCH_CHECK raises RuntimeError.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "common/data_type.h"

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
#include <cuda_runtime.h>
#endif

// The library the ops register in: the package's own, or the emulated CUDA kernels' (CPU tensors,
// see tests/emulation/).
#if defined(REID_OPS_EMULATION)
#define REID_OPS_LIBRARY reid_ops_emulated
#else
#define REID_OPS_LIBRARY reid_ops
#endif

namespace reid_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_of(const Tensor& tensor) {
  std::string text = "(";
  for (std::int64_t k = 0; k < tensor.dim(); ++k) text += (k ? ", " : "") + std::to_string(tensor.size(k));
  return text + ")";
}

inline DataType data_type_of(const Tensor& tensor, const char* op, const char* argument) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DataType::kFloat32;
    case ScalarType::Double:
      return DataType::kFloat64;
    case ScalarType::Half:
      return DataType::kFloat16;
    case ScalarType::BFloat16:
      return DataType::kBFloat16;
    default:
      STD_TORCH_CHECK(false, op, ": ", argument, " must be float32, float64, float16 or bfloat16");
  }
  return DataType::kFloat32;
}

inline void check_like(const Tensor& tensor, const Tensor& first, const char* op, const char* argument,
                       const char* first_argument) {
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), op, ": ", argument, " must have the dtype of ",
                  first_argument);
  STD_TORCH_CHECK(
      tensor.is_cuda() == first.is_cuda() && tensor.get_device_index() == first.get_device_index(), op, ": ",
      argument, " must be on the device of ", first_argument);
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// An uninitialised tensor; an allocation that fails says for what and how much. (The ABI-stable call
// of torch 2.11 forgets why it failed.)
inline Tensor allocate(const Tensor& like, const std::vector<std::int64_t>& sizes, ScalarType type,
                       const char* op) {
  try {
    return torch::stable::new_empty(like, sizes, type);
  } catch (const std::exception& error) {
    double elements = 1;
    std::string shape;
    for (const std::int64_t size : sizes) {
      elements *= static_cast<double>(size);
      shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    }
    STD_TORCH_CHECK(false, op, ": could not allocate memory for a tensor of shape (", shape, "), ", elements,
                    " elements: ", error.what());
  }
  return like;
}

// Runs call's work items over torch's thread pool.
template <typename Call>
void run_on_cpu(const Call& call) {
  const std::int64_t threads = torch::stable::get_num_threads();
  const std::int64_t items = cpu_items(call, threads);
  if (threads == 1) return cpu_run(call, items, 0, items);
  torch::stable::parallel_for(
      0, items, 1, [&](std::int64_t begin, std::int64_t end) { cpu_run(call, items, begin, end); });
}

#if defined(REID_OPS_EMULATION)
template <typename Call>
void run_on_cuda(const Call& call, const Tensor&, const char* op) {
  const cudaError_t error = cuda_launch(call, nullptr);
  STD_TORCH_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error), " ",
                  reid_ops_emulation::last_fault());
}
#elif defined(REID_OPS_WITH_CUDA)
// On the tensor's own device and torch's current stream there; no synchronisation.
template <typename Call>
void run_on_cuda(const Call& call, const Tensor& tensor, const char* op) {
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  const cudaError_t error = cuda_launch(call, static_cast<cudaStream_t>(stream));
  STD_TORCH_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error));
}
#endif

}  // namespace reid_ops

// Registers what register_implementation<Device> of csrc/<op>/ops.cpp names, for every device of this build.
#define REID_OPS_IMPLEMENT_FOR(key, op, Device)                           \
  STABLE_TORCH_LIBRARY_IMPL(REID_OPS_LIBRARY, key, library) {             \
    reid_ops::op::register_implementation<reid_ops::op::Device>(library); \
  }
#if defined(REID_OPS_EMULATION)
#define REID_OPS_IMPLEMENT(op) REID_OPS_IMPLEMENT_FOR(CPU, op, Cuda)
#elif defined(REID_OPS_WITH_CUDA)
#define REID_OPS_IMPLEMENT(op)         \
  REID_OPS_IMPLEMENT_FOR(CPU, op, Cpu) \
  REID_OPS_IMPLEMENT_FOR(CUDA, op, Cuda)
#else
#define REID_OPS_IMPLEMENT(op) REID_OPS_IMPLEMENT_FOR(CPU, op, Cpu)
#endif
