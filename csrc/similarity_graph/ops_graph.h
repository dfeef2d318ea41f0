// similarity_graph: the operators on small tensors, graphs and the batch norm in closed form.
#pragma once

#include "similarity_graph/ops_arguments.h"

namespace reid_ops::similarity_graph {
namespace {

template <typename Device>
struct GraphOperators {
  template <typename Call>
  static void run(const Call& call, const Tensor& like, bool empty_call) {
    if (!empty_call) Device::run(call, like);
  }

  // Memory only CUDA kernels need: blocks hand results to each other through it.
  static Tensor workspace(const Tensor& like, const Integers& shape, ScalarType type) {
    return Device::needs_workspace ? empty(like, shape, type) : empty(like, {0}, type);
  }

  // -------------------------------- graphs

  static Graph graph_of(const Tensor& values, const OptionalTensor& theta, std::int64_t radius_squared,
                        bool include_self, std::int64_t edges) {
    check_precise(values, "values");
    STD_TORCH_CHECK(values.dim() == 3 && values.size(1) >= 1 && values.size(2) >= 1, kOp,
                    ": values must have shape (B, H, W) with H, W >= 1, got ", shape_of(values));
    STD_TORCH_CHECK(values.size(1) * values.size(2) < (std::int64_t{1} << 31), kOp,
                    ": values must have fewer than 2^31 nodes a graph");
    Graph call = {};
    call.batch = values.size(0);
    call.height = static_cast<int>(values.size(1));
    call.width = static_cast<int>(values.size(2));
    call.neighborhood = neighborhood_of(radius_squared, include_self, edges);
    call.is_double = is_double(values);
    call.values =
        checked(values, "values", values, {call.batch, call.height, call.width}, values.scalar_type());
    call.theta_rows = 1;
    if (theta.has_value()) {
      STD_TORCH_CHECK(
          theta->dim() == 3 && (theta->size(0) >= 1 ? call.batch % theta->size(0) == 0 : call.batch == 0),
          kOp, ": theta must have shape (T, H, W), T dividing B, got ", shape_of(*theta));
      call.theta_rows = theta->size(0);
      call.theta =
          checked(*theta, "theta", values, {call.theta_rows, call.height, call.width}, values.scalar_type());
    }
    return call;
  }

  static std::tuple<Tensor, Tensor> similarity_graph(const Tensor& values, const OptionalTensor& theta,
                                                     std::int64_t radius_squared, bool include_self,
                                                     std::int64_t edges, bool with_aggregate) {
    Graph call = graph_of(values, theta, radius_squared, include_self, edges);
    const Integers shape = {call.batch, call.height, call.width};
    Tensor output = empty(values, shape, values.scalar_type());
    Tensor aggregate = empty(values, with_aggregate ? shape : Integers{0}, values.scalar_type());
    call.output = output.mutable_data_ptr();
    call.aggregate = with_aggregate ? aggregate.mutable_data_ptr() : nullptr;
    run(call, values, call.batch == 0);
    return {output, aggregate};
  }

  static Tensor similarity_graph_backward(const Tensor& grad_output, const Tensor& values,
                                          const OptionalTensor& theta, std::int64_t radius_squared,
                                          bool include_self, std::int64_t edges) {
    GraphBackward call = {};
    call.graph = graph_of(values, theta, radius_squared, include_self, edges);
    const Integers shape = {call.graph.batch, call.graph.height, call.graph.width};
    call.grad_output = checked(grad_output, "grad_output", values, shape, values.scalar_type());
    const Tensor rows = workspace(values, {4, shape[0], shape[1], shape[2]}, values.scalar_type());
    Tensor result = empty(values, shape, values.scalar_type());
    call.rows = rows.mutable_data_ptr();
    call.grad_values = result.mutable_data_ptr();
    run(call, values, call.graph.batch == 0);
    return result;
  }

  static Nodes nodes_of(const Tensor& first, const Tensor& theta, const Integers& rows,
                        const Integers& columns, const Integers& scales, std::int64_t pooling,
                        std::int64_t radius_squared, bool include_self, std::int64_t edges) {
    check_precise(first, "squeezed");
    check_pooling(pooling, scales);
    Nodes call = {};
    call.geometry = geometry_of(first.size(0), 1, first.size(-2), first.size(-1), rows, columns);
    call.neighborhood = neighborhood_of(radius_squared, include_self, edges);
    call.pooling = static_cast<Pooling>(pooling);
    call.scales = static_cast<int>(scales.size());
    for (int k = 0; k < call.scales; ++k) call.scale[k] = static_cast<int>(scales[k]);
    call.is_double = is_double(first);
    call.theta = checked(theta, "theta", first,
                         {call.geometry.levels, call.scales, call.geometry.height, call.geometry.width},
                         first.scalar_type());
    return call;
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> similarity_graph_nodes(
      const Tensor& squeezed, const Tensor& theta, Integers rows, Integers columns, Integers scales,
      std::int64_t pooling, std::int64_t radius_squared, bool include_self, std::int64_t edges) {
    STD_TORCH_CHECK(squeezed.dim() == 3, kOp, ": squeezed must have shape (N, H, W), got ",
                    shape_of(squeezed));
    Nodes call =
        nodes_of(squeezed, theta, rows, columns, scales, pooling, radius_squared, include_self, edges);
    const Geometry& geometry = call.geometry;
    const ScalarType type = squeezed.scalar_type();
    call.squeezed =
        checked(squeezed, "squeezed", squeezed, {geometry.batch, geometry.height, geometry.width}, type);
    const Integers planes = {geometry.batch, geometry.levels, geometry.height, geometry.width};
    const Integers scaled = {geometry.batch, geometry.levels, call.scales, geometry.height, geometry.width};
    Tensor centred = empty(squeezed, planes, type);
    Tensor mean = empty(squeezed, {geometry.batch, geometry.maps()}, ScalarType::Double);
    Tensor spread = empty(squeezed, {geometry.batch, geometry.maps()}, ScalarType::Double);
    Tensor pooled = empty(squeezed, scaled, type), aggregate = empty(squeezed, scaled, type);
    call.centred = centred.mutable_data_ptr();
    call.mean = mean.mutable_data_ptr<double>();
    call.spread = spread.mutable_data_ptr<double>();
    call.pooled = pooled.mutable_data_ptr();
    call.aggregate = aggregate.mutable_data_ptr();
    run(call, squeezed, geometry.batch == 0);
    return {centred, mean, spread, pooled, aggregate};
  }

  static std::tuple<Tensor, Tensor> similarity_graph_nodes_backward(
      const Tensor& sums, const Tensor& centred, const Tensor& offset, const Tensor& slope,
      const Tensor& pooled, const Tensor& theta, Integers rows, Integers columns, Integers scales,
      std::int64_t pooling, std::int64_t radius_squared, bool include_self, std::int64_t edges) {
    STD_TORCH_CHECK(sums.dim() == 4, kOp, ": sums must have shape (N, L, H, W), got ", shape_of(sums));
    NodesBackward call = {};
    call.nodes = nodes_of(sums, theta, rows, columns, scales, pooling, radius_squared, include_self, edges);
    const Geometry& geometry = call.nodes.geometry;
    const ScalarType type = sums.scalar_type();
    const Integers planes = {geometry.batch, geometry.levels, geometry.height, geometry.width};
    const Integers scaled = {geometry.batch, geometry.levels, call.nodes.scales, geometry.height,
                             geometry.width};
    const Integers maps = {geometry.batch, geometry.maps()};
    call.sums = checked(sums, "sums", sums, planes, type);
    call.nodes.centred = const_cast<void*>(checked(centred, "centred", sums, planes, type));
    call.nodes.pooled = const_cast<void*>(checked(pooled, "pooled", sums, scaled, type));
    call.offset = checked(offset, "offset", sums, maps, type);
    call.slope = checked(slope, "slope", sums, maps, type);
    const Tensor row_memory =
        workspace(sums, {4, scaled[0], scaled[1], scaled[2], scaled[3], scaled[4]}, type);
    const Tensor pooled_memory = workspace(sums, scaled, type);
    Tensor grad_nodes = empty(sums, planes, type), grad_squeezed = empty(sums, planes, type);
    call.rows = row_memory.mutable_data_ptr();
    call.grad_pooled = pooled_memory.mutable_data_ptr();
    call.grad_nodes = grad_nodes.mutable_data_ptr();
    call.grad_squeezed = grad_squeezed.mutable_data_ptr();
    run(call, sums, geometry.batch == 0);
    return {grad_nodes, grad_squeezed};
  }

  // -------------------------------- batch norm

  static std::tuple<Tensor, Tensor> similarity_graph_statistics(const Tensor& channel, const Tensor& mean,
                                                                const Tensor& spread, std::int64_t height,
                                                                std::int64_t width, Integers rows,
                                                                Integers columns) {
    check_precise(channel, "channel");
    STD_TORCH_CHECK(channel.dim() == 3, kOp, ": channel must have shape (N, G, C), got ", shape_of(channel));
    Statistics call = {};
    call.geometry = geometry_of(channel.size(0), channel.size(2), height, width, rows, columns);
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(),
                       channels = call.geometry.channels;
    call.is_double = is_double(channel);
    call.channel = checked(channel, "channel", channel, {batch, maps, channels}, channel.scalar_type());
    call.mean = static_cast<const double*>(checked(mean, "mean", channel, {batch, maps}, ScalarType::Double));
    call.spread =
        static_cast<const double*>(checked(spread, "spread", channel, {batch, maps}, ScalarType::Double));
    Tensor batch_mean = empty(channel, {maps, channels}, ScalarType::Double);
    Tensor batch_variance = empty(channel, {maps, channels}, ScalarType::Double);
    call.batch_mean = batch_mean.mutable_data_ptr<double>();
    call.batch_variance = batch_variance.mutable_data_ptr<double>();
    run(call, channel, false);
    return {batch_mean, batch_variance};
  }

  static Affine affine_of(const Tensor& channel, const Tensor& mean, const Tensor& weight,
                          const Tensor& batch_mean, const Tensor& inverse, std::int64_t height,
                          std::int64_t width, const Integers& rows, const Integers& columns) {
    check_precise(channel, "channel");
    STD_TORCH_CHECK(channel.dim() == 3, kOp, ": channel must have shape (N, G, C), got ", shape_of(channel));
    Affine call = {};
    call.geometry = geometry_of(channel.size(0), channel.size(2), height, width, rows, columns);
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(),
                       channels = call.geometry.channels;
    call.is_double = is_double(channel);
    call.channel = checked(channel, "channel", channel, {batch, maps, channels}, channel.scalar_type());
    call.mean = static_cast<const double*>(checked(mean, "mean", channel, {batch, maps}, ScalarType::Double));
    call.weight = checked(weight, "weight", channel, {maps, channels}, channel.scalar_type());
    call.bias = call.weight;
    const Integers table = {maps, channels};
    call.batch_mean =
        static_cast<const double*>(checked(batch_mean, "batch_mean", channel, table, ScalarType::Double));
    call.inverse =
        static_cast<const double*>(checked(inverse, "inverse", channel, table, ScalarType::Double));
    return call;
  }

  static std::tuple<Tensor, Tensor> similarity_graph_affine(const Tensor& channel, const Tensor& mean,
                                                            const Tensor& weight, const Tensor& bias,
                                                            const Tensor& batch_mean, const Tensor& inverse,
                                                            std::int64_t height, std::int64_t width,
                                                            Integers rows, Integers columns) {
    Affine call = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(),
                       channels = call.geometry.channels;
    call.bias = checked(bias, "bias", channel, {maps, channels}, channel.scalar_type());
    Tensor scale = empty(channel, {batch, maps, channels}, channel.scalar_type());
    Tensor shift = empty(channel, {batch, maps, channels}, channel.scalar_type());
    call.scale = scale.mutable_data_ptr();
    call.shift = shift.mutable_data_ptr();
    run(call, channel, batch == 0);
    return {scale, shift};
  }

  static std::tuple<Tensor, Tensor> similarity_graph_affine_sums(
      const Tensor& total, const Tensor& moment, const Tensor& channel, const Tensor& mean,
      const Tensor& weight, const Tensor& batch_mean, const Tensor& inverse, std::int64_t height,
      std::int64_t width, Integers rows, Integers columns) {
    AffineSums call = {};
    call.affine = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    const Geometry& geometry = call.affine.geometry;
    const Integers shape = {geometry.batch, geometry.maps(), geometry.channels};
    call.total = checked(total, "total", channel, shape, channel.scalar_type());
    call.moment = checked(moment, "moment", channel, shape, channel.scalar_type());
    Tensor grad_weight = empty(channel, {shape[1], shape[2]}, ScalarType::Double);
    Tensor grad_bias = empty(channel, {shape[1], shape[2]}, ScalarType::Double);
    call.grad_weight = grad_weight.mutable_data_ptr<double>();
    call.grad_bias = grad_bias.mutable_data_ptr<double>();
    run(call, channel, false);
    return {grad_weight, grad_bias};
  }

  static std::tuple<Tensor, Tensor, Tensor> similarity_graph_affine_backward(
      const Tensor& total, const Tensor& moment, const Tensor& channel, const Tensor& mean,
      const Tensor& spread, const Tensor& weight, const Tensor& batch_mean, const Tensor& inverse,
      const Tensor& mean_total, const Tensor& mean_moment, std::int64_t height, std::int64_t width,
      Integers rows, Integers columns) {
    AffineBackward call = {};
    call.affine = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    const Geometry& geometry = call.affine.geometry;
    const Integers shape = {geometry.batch, geometry.maps(), geometry.channels};
    const Integers maps = {shape[0], shape[1]}, table = {shape[1], shape[2]};
    const ScalarType type = channel.scalar_type();
    call.total = checked(total, "total", channel, shape, type);
    call.moment = checked(moment, "moment", channel, shape, type);
    call.spread = static_cast<const double*>(checked(spread, "spread", channel, maps, ScalarType::Double));
    call.mean_total =
        static_cast<const double*>(checked(mean_total, "mean_total", channel, table, ScalarType::Double));
    call.mean_moment =
        static_cast<const double*>(checked(mean_moment, "mean_moment", channel, table, ScalarType::Double));
    Tensor grad_channel = empty(channel, shape, type);
    Tensor offset = empty(channel, maps, type), slope = empty(channel, maps, type);
    call.grad_channel = grad_channel.mutable_data_ptr();
    call.offset = offset.mutable_data_ptr();
    call.slope = slope.mutable_data_ptr();
    run(call, channel, geometry.batch == 0);
    return {grad_channel, offset, slope};
  }
};

}  // namespace
}  // namespace reid_ops::similarity_graph
