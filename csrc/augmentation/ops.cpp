// augmentation: checks, allocation and dispatch. The op's only torch-aware file.
#include "augmentation/kernels.h"
#include "common/huge_pages.h"
#include "polygon_erasing/torch_rule.h"

namespace reid_ops::augmentation {
namespace {

using polygon_erasing::kMaxSide;
constexpr const char* kOp = "augment";

// No numbers: that kind of erasing is off.
Erasing checked_erasing(const std::vector<std::int64_t>& rule, const std::vector<double>& values,
                        std::int64_t channels, bool is_rectangle) {
  Erasing erasing = {};
  erasing.active = !rule.empty();
  if (!erasing.active) return erasing;
  erasing.rule = polygon_erasing::checked_rule(rule, kOp);
  STD_TORCH_CHECK((erasing.rule.shape == polygon_erasing::Shape::kRectangle) == is_rectangle, kOp, ": ",
                  is_rectangle ? "rectangle" : "polygon", " has the other's shape");
  // Constants are shares of 255 that become floats; drawn fills are bytes.
  erasing.values = polygon_erasing::checked_values(
      values, erasing.rule.fill, channels, erasing.rule.fill != polygon_erasing::Fill::kConstant, kOp);
  return erasing;
}

ElementType checked_type(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return ElementType::kFloat32;
    case ScalarType::Half:
      return ElementType::kFloat16;
    case ScalarType::BFloat16:
      return ElementType::kBFloat16;
    default:
      STD_TORCH_CHECK(false, kOp, ": dtype must be float32, float16 or bfloat16");
  }
  return ElementType::kFloat32;
}

template <typename Device>
Tensor augment(const Tensor& images, const std::optional<Tensor>& sizes,
               const std::optional<Tensor>& seed_tensor, std::int64_t seed, std::int64_t first_index,
               std::int64_t height, std::int64_t width, std::int64_t pad, std::int64_t flip,
               const std::vector<double>& mean, const std::vector<double>& std,
               const std::vector<std::int64_t>& rectangle, const std::vector<double>& rectangle_values,
               const std::vector<std::int64_t>& polygon, const std::vector<double>& polygon_values,
               ScalarType dtype) {
  STD_TORCH_CHECK(images.dim() == 4 && images.scalar_type() == ScalarType::Byte, kOp,
                  ": images must be uint8 with shape (N, C, H, W), got shape ", shape_of(images));
  Augment call = {};
  call.count = images.size(0);
  call.channels = images.size(1);
  call.image_height = images.size(2);
  call.image_width = images.size(3);
  polygon_erasing::check_image_sizes(call.channels, call.image_height, call.image_width, kOp);
  polygon_erasing::check_image_sizes(call.channels, height, width, kOp);
  STD_TORCH_CHECK(call.channels <= kMaxChannels, kOp, ": images may have up to ", kMaxChannels,
                  " channels, got ", call.channels);
  for (int k = 0; k < 4; ++k) call.stride[k] = images.stride(k);
  if (sizes.has_value()) {
    STD_TORCH_CHECK(sizes->scalar_type() == ScalarType::Long && sizes->dim() == 2 &&
                        sizes->size(0) == call.count && sizes->size(1) == 2 && sizes->is_contiguous() &&
                        sizes->is_cuda() == images.is_cuda() &&
                        sizes->get_device_index() == images.get_device_index(),
                    kOp, ": sizes must be a contiguous int64 tensor of shape (N, 2) on the images' device");
    if (call.count > 0) call.sizes = sizes->const_data_ptr<std::int64_t>();
  }
  STD_TORCH_CHECK(pad >= 0 && pad <= kMaxSide, kOp, ": pad must be in [0, ", kMaxSide, "], got ", pad);
  STD_TORCH_CHECK(flip >= 0 && flip <= std::int64_t{1} << 32, kOp, ": the threshold of flip is out of range");
  STD_TORCH_CHECK(static_cast<std::int64_t>(mean.size()) == call.channels && mean.size() == std.size(), kOp,
                  ": mean and std must have a value for each of the ", call.channels, " channels");
  call.height = height, call.width = width, call.pad = pad, call.flip = flip;
  for (std::int64_t k = 0; k < call.channels; ++k) {
    call.mean[k] = static_cast<float>(mean[k]), call.std[k] = static_cast<float>(std[k]);
  }
  call.type = checked_type(dtype);
  call.seed = polygon_erasing::checked_seed(seed, seed_tensor, first_index, images, kOp);
  call.erasings[0] = checked_erasing(rectangle, rectangle_values, call.channels, true);
  call.erasings[1] = checked_erasing(polygon, polygon_values, call.channels, false);

  Tensor output = torch::stable::new_empty(images, {call.count, call.channels, height, width}, dtype);
  call.images = images.const_data_ptr<std::uint8_t>();
  call.output = output.mutable_data_ptr();
  if (call.count > 0) {
    Device::prepare(output);
    Device::run(call, images);
  }
  return output;
}

#if !defined(REID_OPS_EMULATION)
struct Cpu {
  static void prepare(const Tensor& output) {
    advise_huge_pages(output.mutable_data_ptr(),
                      static_cast<std::size_t>(output.numel() * output.element_size()));
  }
  static void run(const Augment& call, const Tensor&) { run_on_cpu(call); }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  static void prepare(const Tensor&) {}
  static void run(const Augment& call, const Tensor& tensor) { run_on_cuda(call, tensor, kOp); }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  library.impl("augment", REID_OPS_BOX(&augment<Device>));
}

}  // namespace
}  // namespace reid_ops::augmentation

REID_OPS_IMPLEMENT(augmentation)
