// part_correlation: checks, allocation and dispatch. The op's only torch-aware file.
#include "common/torch_glue.h"
#include "part_correlation/kernels.h"

namespace reid_ops::part_correlation {
namespace {

using OptionalTensor = std::optional<Tensor>;
constexpr const char* kOp = "part_correlation";

void check_device(const Tensor& tensor, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(),
                  kOp, ": ", name, " must be on the features' device");
}

const std::int64_t* checked_index(const OptionalTensor& index, const Tensor& like, const char* name,
                                  std::int64_t dimensions) {
  if (!index.has_value()) return nullptr;
  STD_TORCH_CHECK(index->scalar_type() == ScalarType::Long, kOp, ": ", name, " must be int64");
  STD_TORCH_CHECK(index->dim() == dimensions && index->is_contiguous(), kOp, ": ", name,
                  " must be contiguous with ", dimensions, " dimensions, got shape ", shape_of(*index));
  check_device(*index, like, name);
  // Torch gives an empty tensor no memory; nullptr here would mean "none given".
  static const std::int64_t nothing = 0;
  return index->numel() == 0 ? &nothing : index->const_data_ptr<std::int64_t>();
}

// What signal and parts say together; either may be given by its sizes only (the gradients).
struct Sizes {
  std::int64_t signal_rows, channels, height, width;
  std::int64_t part_rows, parts, kernel_height, kernel_width;
};

Problem make_problem(const Sizes& sizes, const OptionalTensor& pairs, const Tensor& like, std::int64_t pool) {
  STD_TORCH_CHECK(sizes.channels >= 1 && sizes.height >= 1 && sizes.width >= 1, kOp,
                  ": signal must have at least one channel, row and column");
  STD_TORCH_CHECK(sizes.parts >= 1, kOp, ": parts must hold at least one part an image");
  STD_TORCH_CHECK(sizes.kernel_height >= 1 && sizes.kernel_height <= kMaxKernel && sizes.kernel_width >= 1 &&
                      sizes.kernel_width <= kMaxKernel,
                  kOp, ": parts must be 1x1 to 64x64 filters, got ", sizes.kernel_height, "x",
                  sizes.kernel_width);
  STD_TORCH_CHECK(pool >= 1 && pool <= kMaxPool, kOp, ": pool must be in [1, 32], got ", pool);
  Problem problem = {};
  problem.signal_rows = sizes.signal_rows;
  problem.part_rows = sizes.part_rows;
  problem.parts = sizes.parts;
  problem.channels = sizes.channels;
  problem.height = sizes.height;
  problem.width = sizes.width;
  problem.kernel_height = sizes.kernel_height;
  problem.kernel_width = sizes.kernel_width;
  problem.pool = pool;
  problem.pair_index = checked_index(pairs, like, "pairs", 2);
  problem.type = data_type_of(like, kOp, "signal");
  if (problem.pair_index == nullptr) {
    STD_TORCH_CHECK(sizes.signal_rows == sizes.part_rows, kOp,
                    ": without pairs, signal and parts must have as many rows, got ", sizes.signal_rows,
                    " and ", sizes.part_rows);
    problem.pairs = sizes.signal_rows;
  } else {
    STD_TORCH_CHECK(pairs->size(1) == 2, kOp, ": pairs must have shape (B, 2), got ", shape_of(*pairs));
    problem.pairs = pairs->size(0);
    // On the host the rows can be looked at; on a device (an emulated one too) that would mean waiting
    // for it, so there the kernels look themselves.
#if !defined(REID_OPS_EMULATION)
    const std::int64_t rows[2] = {sizes.signal_rows, sizes.part_rows};
    for (std::int64_t b = 0; b < problem.pairs && !like.is_cuda(); ++b) {
      for (int side = 0; side < 2; ++side) {
        const std::int64_t row = problem.pair_index[2 * b + side];
        STD_TORCH_CHECK(row >= 0 && row < rows[side], kOp, ": pairs[", b, ", ", side, "] must be in [0, ",
                        rows[side], "), got ", row);
      }
    }
#endif
  }
  return problem;
}

void set_signal(Problem& problem, const Tensor& signal) {
  for (int k = 0; k < 4; ++k) problem.signal_stride[k] = signal.stride(k);
}

void set_parts(Problem& problem, const Tensor& parts) {
  for (int k = 0; k < 5; ++k) problem.parts_stride[k] = parts.stride(k);
}

const std::int16_t* checked_argmax(const OptionalTensor& argmax, const Tensor& grad_output,
                                   std::int64_t pool) {
  if (pool == 1) return nullptr;
  STD_TORCH_CHECK(argmax.has_value() && argmax->scalar_type() == ScalarType::Short &&
                      argmax->is_contiguous() && argmax->numel() == grad_output.numel(),
                  kOp, ": argmax must be the int16 tensor that the forward returns when with_argmax is true");
  check_device(*argmax, grad_output, "argmax");
  return argmax->const_data_ptr<std::int16_t>();
}

// The pairs by row (`side` 0: signal, 1: parts), as the gradients' bisection needs them. On the host they
// are looked at; on a device the kernels skip what is out of range.
const std::int64_t* checked_order(const OptionalTensor& order, const Problem& problem, const Tensor& like,
                                  [[maybe_unused]] int side) {
  STD_TORCH_CHECK(order.has_value() == (problem.pair_index != nullptr), kOp,
                  ": order comes with pairs and only with them");
  STD_TORCH_CHECK(!order.has_value() || order->numel() == problem.pairs, kOp,
                  ": order must have one element a pair");
  const std::int64_t* index = checked_index(order, like, "order", 1);
#if !defined(REID_OPS_EMULATION)
  std::int64_t previous = 0;
  for (std::int64_t k = 0; index != nullptr && !like.is_cuda() && k < problem.pairs; ++k) {
    STD_TORCH_CHECK(index[k] >= 0 && index[k] < problem.pairs, kOp, ": order[", k, "] must be in [0, ",
                    problem.pairs, "), got ", index[k]);
    const std::int64_t row = problem.pair_index[2 * index[k] + side];
    STD_TORCH_CHECK(row >= previous, kOp, ": order must sort the pairs by row, but pair ", index[k],
                    " comes too late");
    previous = row;
  }
#endif
  return index;
}

void check_grad_output(const Tensor& grad_output, const Problem& problem) {
  const bool fits = grad_output.dim() == 4 && grad_output.size(0) == problem.pairs &&
                    grad_output.size(1) == problem.parts * problem.channels &&
                    grad_output.size(2) == problem.pooled_height() &&
                    grad_output.size(3) == problem.pooled_width();
  STD_TORCH_CHECK(fits, kOp, ": grad_output must have shape (", problem.pairs, ", ",
                  problem.parts * problem.channels, ", ", problem.pooled_height(), ", ",
                  problem.pooled_width(), "), got ", shape_of(grad_output));
}

void check_inputs(const Tensor& signal, const Tensor& parts) {
  STD_TORCH_CHECK(signal.dim() == 4, kOp, ": signal must have shape (N, C, H, W), got ", shape_of(signal));
  STD_TORCH_CHECK(parts.dim() == 5, kOp, ": parts must have shape (M, P, C, kh, kw), got ", shape_of(parts));
  STD_TORCH_CHECK(signal.size(1) == parts.size(2), kOp, ": signal has ", signal.size(1),
                  " channels, parts have ", parts.size(2));
  check_like(parts, signal, kOp, "parts", "signal");
}

// `prepare` makes an input fit the kernels (contiguous for CUDA, as it is for the CPU); `run`
// carries a call out.
template <typename Prepare, typename Run>
std::tuple<Tensor, Tensor> forward(const Tensor& signal_in, const Tensor& parts_in,
                                   const OptionalTensor& pairs, std::int64_t pool, bool with_argmax,
                                   const Prepare& prepare, const Run& run) {
  check_inputs(signal_in, parts_in);
  const Tensor signal = prepare(signal_in), parts = prepare(parts_in);
  Forward call = {};
  call.problem = make_problem({signal.size(0), signal.size(1), signal.size(2), signal.size(3), parts.size(0),
                               parts.size(1), parts.size(3), parts.size(4)},
                              pairs, signal, pool);
  Problem& problem = call.problem;
  set_signal(problem, signal);
  set_parts(problem, parts);

  const std::vector<std::int64_t> shape = {problem.pairs, problem.parts * problem.channels,
                                           problem.pooled_height(), problem.pooled_width()};
  const bool keep_argmax = with_argmax && pool > 1;
  Tensor output = allocate(signal, shape, signal.scalar_type(), kOp);
  Tensor argmax =
      allocate(signal, keep_argmax ? shape : std::vector<std::int64_t>{0}, ScalarType::Short, kOp);
  call.signal = signal.const_data_ptr();
  call.parts = parts.const_data_ptr();
  call.output = output.mutable_data_ptr();
  call.argmax = keep_argmax ? argmax.mutable_data_ptr<std::int16_t>() : nullptr;
  if (output.numel() > 0) run(call, signal);
  return {output, argmax};
}

template <typename Prepare, typename Run>
Tensor grad_signal(const Tensor& grad_output_in, const OptionalTensor& argmax, const Tensor& parts_in,
                   const OptionalTensor& pairs, const OptionalTensor& order, std::int64_t signal_rows,
                   std::int64_t height, std::int64_t width, std::int64_t pool, const Prepare& prepare,
                   const Run& run) {
  STD_TORCH_CHECK(parts_in.dim() == 5, kOp, ": parts must have shape (M, P, C, kh, kw), got ",
                  shape_of(parts_in));
  check_like(grad_output_in, parts_in, kOp, "grad_output", "parts");
  const Tensor grad_output = as_contiguous(grad_output_in), parts = prepare(parts_in);
  GradSignal call = {};
  call.problem = make_problem(
      {signal_rows, parts.size(2), height, width, parts.size(0), parts.size(1), parts.size(3), parts.size(4)},
      pairs, parts, pool);
  check_grad_output(grad_output, call.problem);
  set_parts(call.problem, parts);

  Tensor result = allocate(parts, {signal_rows, parts.size(2), height, width}, parts.scalar_type(), kOp);
  call.grad_output = grad_output.const_data_ptr();
  call.argmax = checked_argmax(argmax, grad_output, pool);
  call.parts = parts.const_data_ptr();
  call.order = checked_order(order, call.problem, parts, 0);
  call.grad_signal = result.mutable_data_ptr();
  if (result.numel() > 0) run(call, parts);
  return result;
}

template <typename Prepare, typename Run>
Tensor grad_parts(const Tensor& grad_output_in, const OptionalTensor& argmax, const Tensor& signal_in,
                  const OptionalTensor& pairs, const OptionalTensor& order, std::int64_t part_rows,
                  std::int64_t kernel_height, std::int64_t kernel_width, std::int64_t pool,
                  const Prepare& prepare, const Run& run) {
  STD_TORCH_CHECK(signal_in.dim() == 4, kOp, ": signal must have shape (N, C, H, W), got ",
                  shape_of(signal_in));
  STD_TORCH_CHECK(grad_output_in.dim() == 4 && grad_output_in.size(1) % signal_in.size(1) == 0, kOp,
                  ": grad_output must have shape (B, P*C, H', W'), got ", shape_of(grad_output_in));
  check_like(grad_output_in, signal_in, kOp, "grad_output", "signal");
  const Tensor grad_output = as_contiguous(grad_output_in), signal = prepare(signal_in);
  const std::int64_t parts = grad_output.size(1) / signal.size(1);
  GradParts call = {};
  call.problem = make_problem({signal.size(0), signal.size(1), signal.size(2), signal.size(3), part_rows,
                               parts, kernel_height, kernel_width},
                              pairs, signal, pool);
  check_grad_output(grad_output, call.problem);
  set_signal(call.problem, signal);

  Tensor result = allocate(signal, {part_rows, parts, signal.size(1), kernel_height, kernel_width},
                           signal.scalar_type(), kOp);
  call.grad_output = grad_output.const_data_ptr();
  call.argmax = checked_argmax(argmax, grad_output, pool);
  call.signal = signal.const_data_ptr();
  call.order = checked_order(order, call.problem, signal, 1);
  call.grad_parts = result.mutable_data_ptr();
  if (result.numel() > 0) run(call, signal);
  return result;
}

template <typename Prepare, typename Run>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_output_in, const OptionalTensor& argmax,
                                    const Tensor& signal_in, const Tensor& parts_in, std::int64_t pool,
                                    const Prepare& prepare, const Run& run) {
  check_inputs(signal_in, parts_in);
  check_like(grad_output_in, signal_in, kOp, "grad_output", "signal");
  const Tensor grad_output = as_contiguous(grad_output_in), signal = prepare(signal_in),
               parts = prepare(parts_in);
  Backward call = {};
  call.problem = make_problem({signal.size(0), signal.size(1), signal.size(2), signal.size(3), parts.size(0),
                               parts.size(1), parts.size(3), parts.size(4)},
                              std::nullopt, signal, pool);
  check_grad_output(grad_output, call.problem);
  set_signal(call.problem, signal);
  set_parts(call.problem, parts);

  const auto shape = [](const Tensor& like) {
    std::vector<std::int64_t> sizes(like.dim());
    for (std::int64_t k = 0; k < like.dim(); ++k) sizes[k] = like.size(k);
    return sizes;
  };
  Tensor to_signal = allocate(signal, shape(signal), signal.scalar_type(), kOp);
  Tensor to_parts = allocate(parts, shape(parts), parts.scalar_type(), kOp);
  call.grad_output = grad_output.const_data_ptr();
  call.argmax = checked_argmax(argmax, grad_output, pool);
  call.signal = signal.const_data_ptr();
  call.parts = parts.const_data_ptr();
  call.grad_signal = to_signal.mutable_data_ptr();
  call.grad_parts = to_parts.mutable_data_ptr();
  if (grad_output.numel() > 0) run(call, signal);
  return {to_signal, to_parts};
}

// One set of boxed functions per device: `Device::prepare` and `Device::run` are all that differs.
template <typename Device>
struct Implementation {
  static std::tuple<Tensor, Tensor> part_correlation(const Tensor& signal, const Tensor& parts,
                                                     const OptionalTensor& pairs, std::int64_t pool,
                                                     bool with_argmax) {
    return forward(signal, parts, pairs, pool, with_argmax, Device::prepare, Device::template run<Forward>);
  }
  static Tensor part_correlation_grad_signal(const Tensor& grad_output, const OptionalTensor& argmax,
                                             const Tensor& parts, const OptionalTensor& pairs,
                                             const OptionalTensor& order, std::int64_t signal_rows,
                                             std::int64_t height, std::int64_t width, std::int64_t pool) {
    return grad_signal(grad_output, argmax, parts, pairs, order, signal_rows, height, width, pool,
                       Device::prepare, Device::template run<GradSignal>);
  }
  static Tensor part_correlation_grad_parts(const Tensor& grad_output, const OptionalTensor& argmax,
                                            const Tensor& signal, const OptionalTensor& pairs,
                                            const OptionalTensor& order, std::int64_t part_rows,
                                            std::int64_t kernel_height, std::int64_t kernel_width,
                                            std::int64_t pool) {
    return grad_parts(grad_output, argmax, signal, pairs, order, part_rows, kernel_height, kernel_width, pool,
                      Device::prepare, Device::template run<GradParts>);
  }
  static std::tuple<Tensor, Tensor> part_correlation_backward(const Tensor& grad_output,
                                                              const OptionalTensor& argmax,
                                                              const Tensor& signal, const Tensor& parts,
                                                              std::int64_t pool) {
    return backward(grad_output, argmax, signal, parts, pool, Device::prepare, Device::run_both);
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {  // takes any strides
  static Tensor prepare(const Tensor& tensor) { return tensor; }
  template <typename Call>
  static void run(const Call& call, const Tensor&) {
    run_on_cpu(call);
  }
  static void run_both(const Backward& call, const Tensor& tensor) {
    if (cpu_fits(call)) return run(call, tensor);
    run(call.signal_alone(), tensor);
    run(call.parts_alone(), tensor);
  }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {  // wants contiguous inputs
  static Tensor prepare(const Tensor& tensor) { return as_contiguous(tensor); }
  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    run_on_cuda(call, tensor, kOp);
  }
  static void run_both(const Backward& call, const Tensor& tensor) {
    run(call.signal_alone(), tensor);
    run(call.parts_alone(), tensor);
  }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
  library.impl("part_correlation", REID_OPS_BOX(&Ops::part_correlation));
  library.impl("part_correlation_grad_signal", REID_OPS_BOX(&Ops::part_correlation_grad_signal));
  library.impl("part_correlation_grad_parts", REID_OPS_BOX(&Ops::part_correlation_grad_parts));
  library.impl("part_correlation_backward", REID_OPS_BOX(&Ops::part_correlation_backward));
}

}  // namespace
}  // namespace reid_ops::part_correlation

REID_OPS_IMPLEMENT(part_correlation)
