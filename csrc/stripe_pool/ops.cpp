// stripe_pool: checks, allocation and dispatch. The op's only torch-aware file.
#include "common/huge_pages.h"
#include "common/torch_glue.h"
#include "stripe_pool/kernels.h"

namespace reid_ops::stripe_pool {
namespace {

constexpr const char* kOp = "stripe_pool";

Problem problem_of(std::int64_t batch, std::int64_t channels, std::int64_t height, std::int64_t width,
                   std::int64_t stripes, bool channels_last, DataType type) {
  STD_TORCH_CHECK(stripes >= 1 && stripes <= kMaxStripes, kOp, ": stripes must be in [1, 64], got ", stripes);
  STD_TORCH_CHECK(batch >= 0 && channels >= 1 && height >= 1 && width >= 1, kOp,
                  ": x must have C, H, W >= 1, got (", channels, ", ", height, ", ", width, ")");
  STD_TORCH_CHECK(height % stripes == 0, kOp, ": the height of x must be a multiple of stripes (", stripes,
                  "), got ", height);
  STD_TORCH_CHECK(height <= kMaxPositions / width, kOp, ": x must have less than 2**31 positions, got ",
                  height, "x", width);
  return {batch, channels, height, width, stripes, channels_last, type};
}

bool is_channels_last(const Tensor& tensor) {
  const std::int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
  const std::int64_t strides[4] = {height * width * channels, 1, width * channels, channels};
  for (int k = 0; k < 4; ++k) {
    if (tensor.size(k) > 1 && tensor.stride(k) != strides[k]) return false;
  }
  return true;
}

template <typename Run>
std::tuple<Tensor, Tensor> forward(const Tensor& x_in, std::int64_t stripes, bool with_argmax,
                                   const Run& run) {
  STD_TORCH_CHECK(x_in.dim() == 4, kOp, ": x must have shape (N, C, H, W), got ", shape_of(x_in));
  const bool channels_last = !x_in.is_contiguous() && is_channels_last(x_in);
  const Tensor x = channels_last ? x_in : as_contiguous(x_in);
  Forward call = {};
  call.problem = problem_of(x.size(0), x.size(1), x.size(2), x.size(3), stripes, channels_last,
                            data_type_of(x, kOp, "x"));
  const std::int64_t windows = call.problem.windows();
  Tensor output = allocate(x, {x.size(0), windows, 2, x.size(1)}, x.scalar_type(), kOp);
  Tensor argmax = allocate(
      x,
      with_argmax ? std::vector<std::int64_t>{x.size(0), windows, x.size(1)} : std::vector<std::int64_t>{0},
      ScalarType::Int, kOp);
  call.x = x.const_data_ptr();
  call.output = output.mutable_data_ptr();
  call.argmax = with_argmax ? argmax.mutable_data_ptr<std::int32_t>() : nullptr;
  if (output.numel() > 0) run(call, x);
  return {output, argmax};
}

// A map of N x C x H x W whose memory is [N, C, H, W] or [N, H, W, C].
Tensor allocate_map(const Tensor& like, const Problem& problem) {
  if (!problem.channels_last) {
    return allocate(like, {problem.batch, problem.channels, problem.height, problem.width},
                    like.scalar_type(), kOp);
  }
  const Tensor pixels = allocate(like, {problem.batch, problem.height, problem.width, problem.channels},
                                 like.scalar_type(), kOp);
  return torch::stable::transpose(torch::stable::transpose(pixels, 2, 3), 1, 2);
}

template <typename Run>
Tensor backward(const Tensor& grad_in, const Tensor& argmax, std::int64_t stripes, std::int64_t height,
                std::int64_t width, bool channels_last, const Run& run) {
  STD_TORCH_CHECK(grad_in.dim() == 4 && grad_in.size(2) == 2, kOp,
                  ": grad_output must have shape (N, windows, 2, C), got ", shape_of(grad_in));
  Backward call = {};
  call.problem = problem_of(grad_in.size(0), grad_in.size(3), height, width, stripes, channels_last,
                            data_type_of(grad_in, kOp, "grad_output"));
  const Problem& problem = call.problem;
  STD_TORCH_CHECK(grad_in.size(1) == problem.windows(), kOp, ": grad_output must have ", problem.windows(),
                  " windows for ", stripes, " stripes, got shape ", shape_of(grad_in));
  STD_TORCH_CHECK(argmax.scalar_type() == ScalarType::Int && argmax.is_contiguous() && argmax.dim() == 3 &&
                      argmax.size(0) == problem.batch && argmax.size(1) == problem.windows() &&
                      argmax.size(2) == problem.channels,
                  kOp, ": argmax must be the int32 tensor that the forward returns when with_argmax is true");
  STD_TORCH_CHECK(
      argmax.is_cuda() == grad_in.is_cuda() && argmax.get_device_index() == grad_in.get_device_index(), kOp,
      ": argmax must be on the device of grad_output");
  const Tensor grad = as_contiguous(grad_in);
  Tensor result = allocate_map(grad, problem);
  call.grad_output = grad.const_data_ptr();
  call.argmax = argmax.const_data_ptr<std::int32_t>();
  call.grad_x = result.mutable_data_ptr();
  if (result.numel() > 0) run(call, result);
  return result;
}

template <typename Device>
struct Implementation {
  static std::tuple<Tensor, Tensor> stripe_pool(const Tensor& x, std::int64_t stripes, bool with_argmax) {
    return forward(x, stripes, with_argmax, Device::template run<Forward>);
  }
  static Tensor stripe_pool_backward(const Tensor& grad_output, const Tensor& argmax, std::int64_t stripes,
                                     std::int64_t height, std::int64_t width, bool channels_last) {
    return backward(grad_output, argmax, stripes, height, width, channels_last,
                    Device::template run<Backward>);
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {
  static void prepare(const Forward&, const Tensor&) {}
  static void prepare(const Backward& call, const Tensor& result) {
    advise_huge_pages(call.grad_x, result.numel() * result.element_size());
  }
  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    prepare(call, tensor);
    run_on_cpu(call);
  }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    run_on_cuda(call, tensor, kOp);
  }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
  library.impl("stripe_pool", REID_OPS_BOX(&Ops::stripe_pool));
  library.impl("stripe_pool_backward", REID_OPS_BOX(&Ops::stripe_pool_backward));
}

}  // namespace
}  // namespace reid_ops::stripe_pool

REID_OPS_IMPLEMENT(stripe_pool)
