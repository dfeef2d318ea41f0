// similarity_graph: allocation and dispatch. With ops_arguments.h and ops_graph.h the op's only
// torch-aware file.
#include "common/huge_pages.h"
#include "similarity_graph/ops_arguments.h"
#include "similarity_graph/ops_graph.h"

namespace reid_ops::similarity_graph {
namespace {

// The operators on features; Device is Cpu or Cuda below.
template <typename Device>
struct Implementation : GraphOperators<Device> {
  using Base = GraphOperators<Device>;
  using Base::affine_of;
  using Base::nodes_of;
  using Base::run;

  static Tensor like_features(const Tensor& x) {
    Tensor result = torch::stable::empty_like(x);
    if (!x.is_cuda())
      advise_huge_pages(result.mutable_data_ptr(), result.numel() * bytes_of(x.scalar_type()));
    return result;
  }

  // -------------------------------- passes over the features

  static std::tuple<Tensor, Tensor> similarity_graph_squeeze(const Tensor& features, Integers rows,
                                                             Integers columns) {
    const Tensor x = dense(features);
    Squeeze call = {};
    call.features = features_of(x, rows, columns);
    const Geometry& geometry = call.features.geometry;
    const ScalarType type = precise_type(x);
    const Tensor partial =
        empty(x, {geometry.batch, call.features.chunks(), geometry.height, geometry.width}, type);
    const Tensor region_sums = empty(x, {geometry.batch, geometry.regions(), geometry.channels}, type);
    Tensor squeezed = empty(x, {geometry.batch, geometry.height, geometry.width}, type);
    Tensor means = empty(x, {geometry.batch, geometry.maps(), geometry.channels}, type);
    call.x = x.const_data_ptr();
    call.partial = partial.mutable_data_ptr();
    call.region_sums = region_sums.mutable_data_ptr();
    call.squeezed = squeezed.mutable_data_ptr();
    call.means = means.mutable_data_ptr();
    run(call, x, geometry.batch == 0);
    return {squeezed, means};
  }

  static Excite excite_of(const Tensor& x, const Tensor& centred, const Tensor& scale, const Tensor& shift,
                          const Integers& rows, const Integers& columns, double factor,
                          double negative_slope) {
    Excite call = {};
    call.features = features_of(x, rows, columns);
    const Geometry& geometry = call.features.geometry;
    const Integers coefficients = {geometry.batch, geometry.maps(), geometry.channels};
    const ScalarType type = precise_type(x);
    call.factor = factor;
    call.negative_slope = negative_slope;
    call.x = x.const_data_ptr();
    call.centred = checked(centred, "centred", x,
                           {geometry.batch, geometry.levels, geometry.height, geometry.width}, type);
    call.scale = checked(scale, "scale", x, coefficients, type);
    call.shift = checked(shift, "shift", x, coefficients, type);
    return call;
  }

  static Tensor similarity_graph_excite(const Tensor& features, const Tensor& centred, const Tensor& scale,
                                        const Tensor& shift, Integers rows, Integers columns, double residual,
                                        double factor, double negative_slope) {
    const Tensor x = dense(features);
    Excite call = excite_of(x, centred, scale, shift, rows, columns, factor, negative_slope);
    call.residual = residual;
    Tensor y = like_features(x);
    call.y = y.mutable_data_ptr();
    run(call, x, x.numel() == 0);
    return y;
  }

  static std::tuple<Tensor, Tensor, Tensor> similarity_graph_sums(const Tensor& grad, const Tensor& centred,
                                                                  const Tensor& scale, const Tensor& shift,
                                                                  Integers rows, Integers columns,
                                                                  double factor, double negative_slope) {
    const Tensor grad_y = dense(grad);
    Sums call = {};
    call.excite = excite_of(grad_y, centred, scale, shift, rows, columns, factor, negative_slope);
    const Geometry& geometry = call.excite.features.geometry;
    const ScalarType type = precise_type(grad_y);
    const std::int64_t batch = geometry.batch, levels = geometry.levels;
    const Integers by_region = {batch, geometry.regions(), levels, geometry.channels};
    const Integers by_map = {batch, geometry.maps(), geometry.channels};
    const Tensor partial =
        empty(grad_y, {batch, call.excite.features.chunks(), levels, geometry.height, geometry.width}, type);
    const Tensor region_total = empty(grad_y, by_region, type),
                 region_moment = empty(grad_y, by_region, type);
    Tensor sums = empty(grad_y, {batch, levels, geometry.height, geometry.width}, type);
    Tensor total = empty(grad_y, by_map, type), moment = empty(grad_y, by_map, type);
    call.partial = partial.mutable_data_ptr();
    call.region_total = region_total.mutable_data_ptr();
    call.region_moment = region_moment.mutable_data_ptr();
    call.sums = sums.mutable_data_ptr();
    call.total = total.mutable_data_ptr();
    call.moment = moment.mutable_data_ptr();
    run(call, grad_y, batch == 0);
    return {sums, total, moment};
  }

  static Tensor similarity_graph_input(const Tensor& grad, const OptionalTensor& grad_squeezed,
                                       const OptionalTensor& grad_means, Integers rows, Integers columns,
                                       double residual) {
    const Tensor grad_y = dense(grad);
    Input call = {};
    call.features = features_of(grad_y, rows, columns);
    const Geometry& geometry = call.features.geometry;
    const ScalarType type = precise_type(grad_y);
    call.residual = residual;
    call.grad_y = grad_y.const_data_ptr();
    if (grad_squeezed.has_value()) {
      call.grad_squeezed = checked(*grad_squeezed, "grad_squeezed", grad_y,
                                   {geometry.batch, geometry.levels, geometry.height, geometry.width}, type);
    }
    if (grad_means.has_value()) {
      call.grad_means = checked(*grad_means, "grad_means", grad_y,
                                {geometry.batch, geometry.maps(), geometry.channels}, type);
    }
    Tensor grad_x = like_features(grad_y);
    call.grad_x = grad_x.mutable_data_ptr();
    run(call, grad_y, grad_y.numel() == 0);
    return grad_x;
  }

  // -------------------------------- evaluation: all of the forward pass, statistics given

  static Tensor similarity_graph_evaluate(const Tensor& features, const OptionalTensor& theta,
                                          const OptionalTensor& delta, const Tensor& weight,
                                          const Tensor& bias, const Tensor& batch_mean, const Tensor& inverse,
                                          Integers rows, Integers columns, Integers scales,
                                          std::int64_t pooling, std::int64_t radius_squared,
                                          std::int64_t channel_radius_squared, bool include_self,
                                          std::int64_t edges, std::int64_t channel_edges, double residual,
                                          double factor, double negative_slope) {
    const Tensor x = dense(features);
    const ScalarType type = precise_type(x);
    Squeeze squeeze = {};
    squeeze.features = features_of(x, rows, columns);
    const Geometry& geometry = squeeze.features.geometry;
    const std::int64_t images = geometry.batch, maps = geometry.maps(), channels = geometry.channels;
    const std::int64_t levels = geometry.levels, height = geometry.height, width = geometry.width;
    const Integers by_map = {images, maps, channels}, planes = {images, levels, height, width};
    Tensor y = like_features(x);
    if (x.numel() == 0) return y;

    EvaluateAtOnce all = {};
    all.excite.features = squeeze.features;
    all.excite.residual = residual;
    all.excite.factor = factor;
    all.excite.negative_slope = negative_slope;
    all.excite.x = x.const_data_ptr();
    all.excite.y = y.mutable_data_ptr();
    all.spatial = neighborhood_of(radius_squared, include_self, edges);
    all.channel = neighborhood_of(channel_radius_squared, include_self, channel_edges);
    check_pooling(pooling, scales);
    all.pooling = static_cast<Pooling>(pooling);
    all.scales = static_cast<int>(scales.size());
    for (int k = 0; k < all.scales; ++k) all.scale[k] = static_cast<int>(scales[k]);
    const Integers table = {maps, channels};
    if (theta.has_value()) all.theta = checked(*theta, "theta", x, {levels, all.scales, height, width}, type);
    if (delta.has_value()) all.delta = checked(*delta, "delta", x, table, type);
    all.weight = checked(weight, "weight", x, table, type);
    all.bias = checked(bias, "bias", x, table, type);
    all.batch_mean =
        static_cast<const double*>(checked(batch_mean, "batch_mean", x, table, ScalarType::Double));
    all.inverse = static_cast<const double*>(checked(inverse, "inverse", x, table, ScalarType::Double));
    all.blocks = wished_cluster();
    if (Device::run_at_once(all, x)) return y;

    const Tensor partial = empty(x, {images, squeeze.features.chunks(), height, width}, type);
    const Tensor region_sums = empty(x, {images, geometry.regions(), channels}, type);
    const Tensor squeezed = empty(x, {images, height, width}, type), means = empty(x, by_map, type);
    squeeze.x = x.const_data_ptr();
    squeeze.partial = partial.mutable_data_ptr();
    squeeze.region_sums = region_sums.mutable_data_ptr();
    squeeze.squeezed = squeezed.mutable_data_ptr();
    squeeze.means = means.mutable_data_ptr();

    // Without a graph its vector is all ones: a less its mean is 0, the mean 1.
    Tensor centred = theta.has_value() ? empty(x, planes, type) : torch::stable::new_zeros(x, planes, type);
    Tensor mean = empty(x, {images, maps}, ScalarType::Double);
    const Tensor spread = empty(x, {images, maps}, ScalarType::Double);
    const std::int64_t scaled = theta.has_value() ? static_cast<std::int64_t>(scales.size()) : 0;
    const Tensor pooled = empty(x, {images, levels, scaled, height, width}, type);
    const Tensor aggregate = empty(x, {images, levels, scaled, height, width}, type);
    Nodes nodes = {};
    if (theta.has_value()) {
      nodes = nodes_of(squeezed, *theta, rows, columns, scales, pooling, radius_squared, include_self, edges);
      nodes.squeezed = squeezed.const_data_ptr();
      nodes.centred = centred.mutable_data_ptr();
      nodes.mean = mean.mutable_data_ptr<double>();
      nodes.spread = spread.mutable_data_ptr<double>();
      nodes.pooled = pooled.mutable_data_ptr();
      nodes.aggregate = aggregate.mutable_data_ptr();
    } else {
      torch::stable::fill_(mean, 1.0);
    }

    Tensor channel = empty(x, by_map, type);
    Graph graph = {};
    if (delta.has_value()) {
      graph.batch = images * maps;
      graph.height = 1;
      graph.width = static_cast<int>(channels);
      graph.neighborhood = neighborhood_of(channel_radius_squared, include_self, channel_edges);
      graph.is_double = is_double(x);
      graph.values = means.const_data_ptr();
      graph.theta_rows = maps;
      graph.theta = checked(*delta, "delta", x, {maps, channels}, type);
      graph.output = channel.mutable_data_ptr();
    } else {
      torch::stable::fill_(channel, 1.0);
    }

    Affine affine = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    affine.bias = checked(bias, "bias", x, {maps, channels}, type);
    const Tensor scale = empty(x, by_map, type), shift = empty(x, by_map, type);
    affine.scale = scale.mutable_data_ptr();
    affine.shift = shift.mutable_data_ptr();
    Excite excite = excite_of(x, centred, scale, shift, rows, columns, factor, negative_slope);
    excite.residual = residual;
    excite.y = y.mutable_data_ptr();
    Device::run_by_image(x, images, &squeeze, theta.has_value() ? &nodes : nullptr,
                         delta.has_value() ? &graph : nullptr, &affine, &excite);
    return y;
  }
};

#if !defined(REID_OPS_EMULATION)
struct Cpu {
  static constexpr bool needs_workspace = false;

  static bool run_at_once(const EvaluateAtOnce&, const Tensor&) { return false; }

  // Image after image, so that its features are still in the cache when they are read again.
  template <typename... Calls>
  static void run_by_image(const Tensor&, std::int64_t images, const Calls*... calls) {
    const auto run_images = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t image = begin; image < end; ++image) (run_image(calls, image, images), ...);
    };
    if (images < torch::stable::get_num_threads()) {  // too few to share out: share out the work on each
      (run_if_any(calls), ...);
    } else {
      run_in_parallel(images, run_images);
    }
  }

  template <typename Call>
  static void run_if_any(const Call* call) {
    if (call != nullptr) run_steps(*call);
  }

  template <typename Call>
  static void run_image(const Call* call, std::int64_t image, std::int64_t images) {
    if (call == nullptr) return;
    const int steps = cpu_steps(*call);
    for (int step = 0; step < steps; ++step) {
      const std::int64_t items = cpu_items(*call, step) / images;
      cpu_run(*call, step, image * items, (image + 1) * items);
    }
  }

  template <typename Call>
  static void run(const Call& call, const Tensor&) {
    run_steps(call);
  }

  // Steps are separate parallel regions, at the end of which threads wait for each other. Where there are
  // images enough, a thread takes an image through all steps instead. (The last of several has an item an
  // image.)
  template <typename Call>
  static void run_steps(const Call& call) {
    const int steps = cpu_steps(call);
    const std::int64_t images = cpu_items(call, steps - 1), threads = torch::stable::get_num_threads();
    if (steps > 1 && images >= 4 * threads) {
      return run_in_parallel(images, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t image = begin; image < end; ++image) run_image(&call, image, images);
      });
    }
    for (int step = 0; step < steps; ++step) {
      run_in_parallel(cpu_items(call, step),
                      [&](std::int64_t begin, std::int64_t end) { cpu_run(call, step, begin, end); });
    }
  }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  static constexpr bool needs_workspace = true;

  static bool run_at_once(EvaluateAtOnce& call, const Tensor& tensor) {
    bool taken = false;
    call.taken = &taken;
    run(call, tensor);
    STD_TORCH_CHECK(taken || call.blocks <= 0, kOp, ": REID_OPS_HSGM_CLUSTER=", call.blocks,
                    ": this device cannot hold an image in a cluster of so many blocks");
    return taken;
  }

  template <typename... Calls>
  static void run_by_image(const Tensor& tensor, std::int64_t, const Calls*... calls) {
    ((calls == nullptr ? void() : run(*calls, tensor)), ...);
  }

  template <typename Call>
  static void run(const Call& call, const Tensor& tensor) {
    run_on_cuda(call, tensor, kOp);
  }
};
#endif

template <typename Device>
void register_implementation(torch::stable::detail::StableLibrary& library) {
  using Ops = Implementation<Device>;
#define REID_OPS_REGISTER(name) library.impl(#name, REID_OPS_BOX(&Ops::name));
  REID_OPS_REGISTER(similarity_graph)
  REID_OPS_REGISTER(similarity_graph_backward)
  REID_OPS_REGISTER(similarity_graph_nodes)
  REID_OPS_REGISTER(similarity_graph_nodes_backward)
  REID_OPS_REGISTER(similarity_graph_statistics)
  REID_OPS_REGISTER(similarity_graph_affine)
  REID_OPS_REGISTER(similarity_graph_affine_sums)
  REID_OPS_REGISTER(similarity_graph_affine_backward)
  REID_OPS_REGISTER(similarity_graph_squeeze)
  REID_OPS_REGISTER(similarity_graph_excite)
  REID_OPS_REGISTER(similarity_graph_sums)
  REID_OPS_REGISTER(similarity_graph_input)
  REID_OPS_REGISTER(similarity_graph_evaluate)
#undef REID_OPS_REGISTER
}

}  // namespace
}  // namespace reid_ops::similarity_graph

REID_OPS_IMPLEMENT(similarity_graph)
