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

// Sizes and pairs, checked. Strides come later: what they are of may still be made contiguous.
Problem make_problem(const Tensor& signal, const Tensor& parts, const OptionalTensor& pairs,
                     std::int64_t pool) {
  STD_TORCH_CHECK(signal.size(1) >= 1 && signal.size(2) >= 1 && signal.size(3) >= 1, kOp,
                  ": signal must have at least one channel, row and column");
  STD_TORCH_CHECK(parts.size(1) >= 1, kOp, ": parts must hold at least one part an image");
  STD_TORCH_CHECK(
      parts.size(3) >= 1 && parts.size(3) <= kMaxKernel && parts.size(4) >= 1 && parts.size(4) <= kMaxKernel,
      kOp, ": parts must be 1x1 to 64x64 filters, got ", parts.size(3), "x", parts.size(4));
  STD_TORCH_CHECK(pool >= 1 && pool <= kMaxPool, kOp, ": pool must be in [1, 32], got ", pool);
  Problem problem = {};
  problem.signal_rows = signal.size(0);
  problem.part_rows = parts.size(0);
  problem.parts = parts.size(1);
  problem.channels = signal.size(1);
  problem.height = signal.size(2);
  problem.width = signal.size(3);
  problem.kernel_height = parts.size(3);
  problem.kernel_width = parts.size(4);
  problem.pool = pool;
  problem.pair_index = checked_index(pairs, signal, "pairs", 2);
  problem.type = data_type_of(signal, kOp, "signal");
  if (problem.pair_index == nullptr) {
    STD_TORCH_CHECK(problem.signal_rows == problem.part_rows, kOp,
                    ": without pairs, signal and parts must have as many rows, got ", problem.signal_rows,
                    " and ", problem.part_rows);
    problem.pairs = problem.signal_rows;
  } else {
    STD_TORCH_CHECK(pairs->size(1) == 2, kOp, ": pairs must have shape (B, 2), got ", shape_of(*pairs));
    problem.pairs = pairs->size(0);
    // On the host the rows can be looked at; on a device (an emulated one too) that would mean waiting
    // for it, so there the kernels look themselves.
#if !defined(REID_OPS_EMULATION)
    const std::int64_t rows[2] = {problem.signal_rows, problem.part_rows};
    for (std::int64_t b = 0; b < problem.pairs && !signal.is_cuda(); ++b) {
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

void set_strides(Problem& problem, const Tensor& signal, const Tensor& parts) {
  for (int k = 0; k < 4; ++k) problem.signal_stride[k] = signal.stride(k);
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
                                  const char* name, [[maybe_unused]] int side) {
  STD_TORCH_CHECK(order.has_value() == (problem.pair_index != nullptr), kOp, ": ", name,
                  " comes with pairs and only with them");
  STD_TORCH_CHECK(!order.has_value() || order->numel() == problem.pairs, kOp, ": ", name,
                  " must have one element a pair");
  const std::int64_t* index = checked_index(order, like, name, 1);
#if !defined(REID_OPS_EMULATION)
  std::int64_t previous = 0;
  for (std::int64_t k = 0; index != nullptr && !like.is_cuda() && k < problem.pairs; ++k) {
    STD_TORCH_CHECK(index[k] >= 0 && index[k] < problem.pairs, kOp, ": ", name, "[", k, "] must be in [0, ",
                    problem.pairs, "), got ", index[k]);
    const std::int64_t row = problem.pair_index[2 * index[k] + side];
    STD_TORCH_CHECK(row >= previous, kOp, ": ", name, " must sort the pairs by row, but pair ", index[k],
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

// `Device::prepare` makes an input fit the kernels (contiguous for CUDA, as it is for the CPU);
// `Device::run` carries a call out.
template <typename Device>
std::tuple<Tensor, Tensor> forward(const Tensor& signal_in, const Tensor& parts_in,
                                   const OptionalTensor& pairs, std::int64_t pool, bool with_argmax) {
  check_inputs(signal_in, parts_in);
  Forward call = {};
  call.problem = make_problem(signal_in, parts_in, pairs, pool);
  Problem& problem = call.problem;
  const Tensor signal = Device::prepare(signal_in), parts = Device::prepare(parts_in);
  set_strides(problem, signal, parts);

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
  if (output.numel() > 0) Device::run(call, signal);
  return {output, argmax};
}

std::vector<std::int64_t> sizes_of(const Tensor& tensor) {
  std::vector<std::int64_t> sizes(tensor.dim());
  for (std::int64_t k = 0; k < tensor.dim(); ++k) sizes[k] = tensor.size(k);
  return sizes;
}

// One gradient that is wanted, with its memory; an empty tensor for one that is not.
Tensor gradient_like(const Tensor& operand, bool wanted) {
  return allocate(operand, wanted ? sizes_of(operand) : std::vector<std::int64_t>{0}, operand.scalar_type(),
                  kOp);
}

// The gradients that `mask` wants: of the signal, of the parts. Each needs the other operand's values; of
// its own operand the sizes alone.
template <typename Device>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_output_in, const OptionalTensor& argmax,
                                    const Tensor& signal_in, const Tensor& parts_in,
                                    const OptionalTensor& pairs, const OptionalTensor& signal_order,
                                    const OptionalTensor& part_order, std::int64_t pool, bool of_signal,
                                    bool of_parts) {
  check_inputs(signal_in, parts_in);
  check_like(grad_output_in, signal_in, kOp, "grad_output", "signal");
  Backward call = {};
  call.problem = make_problem(signal_in, parts_in, pairs, pool);
  Problem& problem = call.problem;
  check_grad_output(grad_output_in, problem);
  const Tensor grad_output = as_contiguous(grad_output_in);
  const Tensor signal = of_parts ? Device::prepare(signal_in) : signal_in;
  const Tensor parts = of_signal ? Device::prepare(parts_in) : parts_in;
  set_strides(problem, signal, parts);
  call.grad_output = grad_output.const_data_ptr();
  call.argmax = checked_argmax(argmax, grad_output, pool);
  call.signal = signal.const_data_ptr();
  call.parts = parts.const_data_ptr();
  GradSignal signal_call = call.signal_alone();
  GradParts parts_call = call.parts_alone();
  if (of_signal) signal_call.order = checked_order(signal_order, problem, signal, "signal_order", 0);
  if (of_parts) parts_call.order = checked_order(part_order, problem, signal, "part_order", 1);

  Tensor to_signal = gradient_like(signal, of_signal), to_parts = gradient_like(parts, of_parts);
  call.grad_signal = signal_call.grad_signal = to_signal.mutable_data_ptr();
  call.grad_parts = parts_call.grad_parts = to_parts.mutable_data_ptr();
  if (of_signal && of_parts && grad_output.numel() > 0 && Device::fits(call)) {
    Device::run(call, signal);
  } else {
    if (to_signal.numel() > 0) Device::run(signal_call, signal);
    if (to_parts.numel() > 0) Device::run(parts_call, signal);
  }
  return {to_signal, to_parts};
}

// The boxed functions of a device.
template <typename Device>
struct Implementation {
  static std::tuple<Tensor, Tensor> part_correlation(const Tensor& signal, const Tensor& parts,
                                                     const OptionalTensor& pairs, std::int64_t pool,
                                                     bool with_argmax) {
    return forward<Device>(signal, parts, pairs, pool, with_argmax);
  }
  static std::tuple<Tensor, Tensor> part_correlation_backward(
      const Tensor& grad_output, const OptionalTensor& argmax, const Tensor& signal, const Tensor& parts,
      const OptionalTensor& pairs, const OptionalTensor& signal_order, const OptionalTensor& part_order,
      std::int64_t pool, const std::vector<bool>& mask) {
    STD_TORCH_CHECK(mask.size() == 2, kOp, ": mask must have two elements, got ", mask.size());
    return backward<Device>(grad_output, argmax, signal, parts, pairs, signal_order, part_order, pool,
                            mask[0], mask[1]);
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {  // takes any strides
  static Tensor prepare(const Tensor& tensor) { return tensor; }
  template <typename Call>
  static void run(const Call& call, const Tensor&) {
    run_on_cpu(call);
  }
  static bool fits(const Backward& call) { return cpu_fits(call); }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {  // wants contiguous inputs
  static Tensor prepare(const Tensor& tensor) { return as_contiguous(tensor); }
  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    run_on_cuda(call, tensor, kOp);
  }
  static bool fits(const Backward&) { return false; }
  static void run(const Backward&, const Tensor&) {}  // never: it does not fit
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
  library.impl("part_correlation", REID_OPS_BOX(&Ops::part_correlation));
  library.impl("part_correlation_backward", REID_OPS_BOX(&Ops::part_correlation_backward));
}

}  // namespace
}  // namespace reid_ops::part_correlation

REID_OPS_IMPLEMENT(part_correlation)
