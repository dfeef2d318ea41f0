// What every op's torch-aware file (ops.cpp) needs from torch's ABI-stable API.
//
// The checks here guard the kernels against calls that bypass the Python functions; the Python side
// raises friendlier ValueError/TypeError first. STD_TORCH_CHECK raises RuntimeError, and so does whatever
// else is thrown below an operator: which Python type another exception becomes differs between versions
// of torch. So operators are registered by REID_OPS_BOX, and work is shared out by run_in_parallel.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
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

// An operator's boxed function from which std::runtime_error alone is thrown.
template <auto kBoxed>
void guarded(StableIValue* stack, std::uint64_t arguments, std::uint64_t outputs) {
  try {
    return kBoxed(stack, arguments, outputs);
  } catch (const std::exception& error) {  // derived types too: std::overflow_error is OverflowError
    throw std::runtime_error(error.what());
  } catch (...) {
    throw std::runtime_error("an unknown C++ exception");
  }
}
#define REID_OPS_BOX(function) &reid_ops::guarded<TORCH_BOX(function)>

// The next share of [0, items): large ones first, single items at the end.
class Shares {
 public:
  Shares(std::int64_t items, std::int64_t threads) : items_(items), parts_(4 * threads) {}

  bool take(std::int64_t& begin, std::int64_t& end) {
    begin = next_.load(std::memory_order_relaxed);
    do {
      if (begin >= items_) return false;
      end = begin + std::max<std::int64_t>(1, (items_ - begin) / parts_);
    } while (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return true;
  }
  void drop_rest() { next_.store(items_, std::memory_order_relaxed); }

 private:
  const std::int64_t items_, parts_;
  std::atomic<std::int64_t> next_{0};
};

// body(begin, end) for shares of [0, items), in one parallel region of torch's thread pool. Threads take
// shares as they come, so that one that has to wait for its processor does not hold the others up.
// What body throws, the first of it, is thrown again here: not through torch's pool.
template <typename Body>
void run_in_parallel(std::int64_t items, const Body& body) {
  if (items <= 0) return;
  const std::int64_t threads = std::min<std::int64_t>(torch::stable::get_num_threads(), items);
  if (threads == 1) return body(std::int64_t{0}, items);
  Shares shares(items, threads);
  std::atomic<bool> failed{false};
  std::string problem;
  const auto work = [&](std::int64_t, std::int64_t) {
    try {
      for (std::int64_t begin, end; shares.take(begin, end);) body(begin, end);
    } catch (const std::exception& error) {
      shares.drop_rest();
      if (!failed.exchange(true)) problem = error.what();
    }
  };
  torch::stable::parallel_for(0, threads, 1, work);
  if (failed) throw std::runtime_error(problem);
}

// Runs call's work items over torch's thread pool.
template <typename Call>
void run_on_cpu(const Call& call) {
  const std::int64_t items = cpu_items(call, torch::stable::get_num_threads());
  run_in_parallel(items, [&](std::int64_t begin, std::int64_t end) { cpu_run(call, items, begin, end); });
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
