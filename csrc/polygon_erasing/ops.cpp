// polygon_erasing: checks, allocation and dispatch. The op's only torch-aware file.
#include "common/huge_pages.h"
#include "polygon_erasing/kernels.h"
#include "polygon_erasing/torch_rule.h"

namespace reid_ops::polygon_erasing {
namespace {

constexpr const char* kOp = "polygon_erase";

// Erases in place; returns (mask, attempts). `run` carries the call out.
template <typename Run>
std::tuple<Tensor, Tensor> erase(const Tensor& images, const std::optional<Tensor>& seed_tensor,
                                 std::int64_t seed, std::int64_t first_index,
                                 const std::vector<std::int64_t>& rule, const std::vector<double>& values,
                                 bool with_mask, const Run& run) {
  STD_TORCH_CHECK(images.dim() == 4, kOp, ": images must have shape (N, C, H, W), got ", shape_of(images));
  check_image_sizes(images.size(1), images.size(2), images.size(3), kOp);
  Erase call = {};
  call.images.count = images.size(0);
  call.images.channels = images.size(1);
  call.images.height = images.size(2);
  call.images.width = images.size(3);
  call.images.type = element_type_of(images, kOp, "images");
  for (int k = 0; k < 4; ++k) {
    STD_TORCH_CHECK(images.size(0) == 0 || images.size(k) == 1 || images.stride(k) != 0, kOp,
                    ": images must not overlap itself");
    call.images.stride[k] = images.stride(k);
  }
  call.rule = checked_rule(rule, kOp);
  call.seed = checked_seed(seed, seed_tensor, first_index, images, kOp);
  call.values =
      checked_values(values, call.rule.fill, images.size(1), call.images.type == ElementType::kUInt8, kOp);

  Tensor mask = with_mask ? torch::stable::new_zeros(images, {images.size(0), images.size(2), images.size(3)},
                                                     ScalarType::Bool)
                          : torch::stable::new_empty(images, {0}, ScalarType::Bool);
  Tensor attempts = torch::stable::new_empty(images, {images.size(0)}, ScalarType::Int);
  if (images.size(0) > 0) {
    call.images.data = images.mutable_data_ptr();
    call.mask = with_mask ? mask.mutable_data_ptr<bool>() : nullptr;
    call.attempts = attempts.mutable_data_ptr<std::int32_t>();
    run(call, images);
  }
  return {mask, attempts};
}

// One set of boxed functions per device: `Device` is all that differs.
template <typename Device>
struct Implementation {
  static std::tuple<Tensor, Tensor> polygon_erase_(Tensor images, const std::optional<Tensor>& seed_tensor,
                                                   std::int64_t seed, std::int64_t first_index,
                                                   const std::vector<std::int64_t>& rule,
                                                   const std::vector<double>& values, bool with_mask) {
    return erase(images, seed_tensor, seed, first_index, rule, values, with_mask, Device::run);
  }

  static std::tuple<Tensor, Tensor, Tensor> polygon_erase(const Tensor& images,
                                                          const std::optional<Tensor>& seed_tensor,
                                                          std::int64_t seed, std::int64_t first_index,
                                                          const std::vector<std::int64_t>& rule,
                                                          const std::vector<double>& values, bool with_mask) {
    // A dense copy in the images' own layout, then in place: 7 % of the pixels are written twice.
    Tensor output = Device::clone(images);
    auto [mask, attempts] =
        erase(output, seed_tensor, seed, first_index, rule, values, with_mask, Device::run);
    return {output, mask, attempts};
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {
  static Tensor clone(const Tensor& images) {
    Tensor output = torch::stable::empty_like(images);
    advise_huge_pages(output.mutable_data_ptr(),
                      static_cast<std::size_t>(output.numel() * output.element_size()));
    torch::stable::copy_(output, images);
    return output;
  }
  static void run(const Erase& call, const Tensor&) { run_on_cpu(call); }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  static Tensor clone(const Tensor& images) { return torch::stable::clone(images); }
  static void run(const Erase& call, const Tensor& tensor) { run_on_cuda(call, tensor, kOp); }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
  library.impl("polygon_erase", REID_OPS_BOX(&Ops::polygon_erase));
  library.impl("polygon_erase_", REID_OPS_BOX(&Ops::polygon_erase_));
}

}  // namespace
}  // namespace reid_ops::polygon_erasing

REID_OPS_IMPLEMENT(polygon_erasing)
