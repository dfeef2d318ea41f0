// similarity_graph: checks, allocation and dispatch. The op's only torch-aware file.
#include <vector>

#include "common/huge_pages.h"
#include "common/torch_glue.h"
#include "similarity_graph/kernels.h"

namespace reid_ops::similarity_graph {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Integers = std::vector<std::int64_t>;
constexpr const char* kOp = "similarity_graph";
constexpr std::int64_t kLargestSide = 1 << 15;  // height and width of features, length of a chain's row aside

// ------------------------------------------------------------------ arguments

bool is_double(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

// A contiguous tensor of the computing type (float32 or float64) and of the given shape.
const void* checked(const Tensor& tensor, const char* name, const Tensor& like, const Integers& shape,
                    ScalarType type) {
  bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t k = 0; fits && k < shape.size(); ++k) fits = tensor.size(static_cast<std::int64_t>(k)) == shape[k];
  std::string wanted;
  for (const std::int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  STD_TORCH_CHECK(fits, kOp, ": ", name, " must have shape (", wanted, "), got ", shape_of(tensor));
  STD_TORCH_CHECK(tensor.scalar_type() == type, kOp, ": ", name, " must be ",
                  type == ScalarType::Double ? "float64" : "float32", " here");
  STD_TORCH_CHECK(tensor.is_contiguous(), kOp, ": ", name, " must be contiguous");
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), kOp,
                  ": ", name, " must be on the device of the other arguments");
  return tensor.const_data_ptr();
}

ScalarType precise_type(const Tensor& tensor) { return is_double(tensor) ? ScalarType::Double : ScalarType::Float; }

void check_precise(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(is_double(tensor) || tensor.scalar_type() == ScalarType::Float, kOp, ": ", name,
                  " must be float32 or float64");
}

Neighborhood neighborhood_of(std::int64_t radius_squared, bool include_self, std::int64_t edges) {
  STD_TORCH_CHECK(radius_squared >= 0 && radius_squared <= kLargestSide, kOp,
                  ": radius_squared must be in [0, 32768], got ", radius_squared);
  STD_TORCH_CHECK(edges >= 0 && edges <= 4, kOp, ": edges must be in [0, 4], got ", edges);
  Neighborhood result = {static_cast<int>(radius_squared), 0, include_self, static_cast<Edges>(edges)};
  while ((result.reach + 1) * (result.reach + 1) <= radius_squared) ++result.reach;
  return result;
}

Geometry geometry_of(std::int64_t batch, std::int64_t channels, std::int64_t height, std::int64_t width,
                     const Integers& rows, const Integers& columns) {
  const std::int64_t levels = static_cast<std::int64_t>(rows.size());
  STD_TORCH_CHECK(channels >= 1 && height >= 1 && width >= 1 && height <= kLargestSide && width <= kLargestSide, kOp,
                  ": features must have C, H, W >= 1 and H, W <= 32768, got (", channels, ", ", height, ", ", width, ")");
  STD_TORCH_CHECK(levels >= 1 && levels <= kMaxLevels && columns.size() == rows.size(), kOp,
                  ": there must be 1 to 6 levels, got ", levels);
  Geometry geometry = {};
  geometry.batch = batch;
  geometry.channels = channels;
  geometry.height = static_cast<int>(height);
  geometry.width = static_cast<int>(width);
  geometry.levels = static_cast<int>(levels);
  for (std::int64_t l = 0; l < levels; ++l) {
    STD_TORCH_CHECK(rows[l] >= 1 && rows[l] <= kMaxParts && rows[l] <= height && columns[l] >= 1 &&
                        columns[l] <= kMaxParts && columns[l] <= width,
                    kOp, ": a level must have 1 to 32 rows and columns of maps and none empty, got ", rows[l], "x",
                    columns[l], " maps on ", height, "x", width);
    geometry.parts_down[l] = static_cast<int>(rows[l]);
    geometry.parts_across[l] = static_cast<int>(columns[l]);
  }
  geometry.region_rows = collect_cuts(geometry.height, geometry.parts_down, geometry.levels, geometry.row_cuts);
  geometry.region_columns =
      collect_cuts(geometry.width, geometry.parts_across, geometry.levels, geometry.column_cuts);
  STD_TORCH_CHECK(geometry.region_rows > 0 && geometry.region_columns > 0, kOp,
                  ": all levels together may cut the features at 64 rows and 64 columns at most");
  return geometry;
}

bool is_channels_last(const Tensor& tensor) {
  const std::int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
  const std::int64_t strides[4] = {height * width * channels, 1, width * channels, channels};
  for (int k = 0; k < 4; ++k) {
    if (tensor.size(k) > 1 && tensor.stride(k) != strides[k]) return false;
  }
  return true;
}

// Features the kernels can read: as they are when dense in either layout, else a contiguous copy.
Tensor dense(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4, kOp, ": features must have shape (N, C, H, W), got ", shape_of(tensor));
  return tensor.is_contiguous() || is_channels_last(tensor) ? tensor : torch::stable::contiguous(tensor);
}

Features features_of(const Tensor& x, const Integers& rows, const Integers& columns) {
  return {geometry_of(x.size(0), x.size(1), x.size(2), x.size(3), rows, columns), data_type_of(x, kOp, "features"),
          !x.is_contiguous()};
}

std::size_t bytes_of(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

Tensor empty(const Tensor& like, const Integers& shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

// ------------------------------------------------------------------ operators, for one device

template <typename Device>
struct Implementation {
  template <typename Call>
  static void run(const Call& call, const Tensor& like, bool empty_call) {
    if (!empty_call) Device::run(call, like);
  }

  // Memory only CUDA kernels need: blocks hand results to each other through it.
  static Tensor workspace(const Tensor& like, const Integers& shape, ScalarType type) {
    return Device::needs_workspace ? empty(like, shape, type) : empty(like, {0}, type);
  }

  static Tensor like_features(const Tensor& x) {
    Tensor result = torch::stable::empty_like(x);
    if (!x.is_cuda()) prefer_huge_pages(result.mutable_data_ptr(), result.numel() * bytes_of(x.scalar_type()));
    return result;
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
    call.values = checked(values, "values", values, {call.batch, call.height, call.width}, values.scalar_type());
    call.theta_rows = 1;
    if (theta.has_value()) {
      STD_TORCH_CHECK(theta->dim() == 3 && (theta->size(0) >= 1 ? call.batch % theta->size(0) == 0 : call.batch == 0), kOp,
                      ": theta must have shape (T, H, W), T dividing B, got ", shape_of(*theta));
      call.theta_rows = theta->size(0);
      call.theta = checked(*theta, "theta", values, {call.theta_rows, call.height, call.width}, values.scalar_type());
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

  static Nodes nodes_of(const Tensor& first, const Tensor& theta, const Integers& rows, const Integers& columns,
                        const Integers& scales, std::int64_t pooling, std::int64_t radius_squared, bool include_self,
                        std::int64_t edges) {
    check_precise(first, "squeezed");
    STD_TORCH_CHECK(!scales.empty() && scales.size() <= kMaxScales, kOp, ": there must be 1 to 8 scales, got ",
                    scales.size());
    STD_TORCH_CHECK(pooling >= 0 && pooling <= 3, kOp, ": pooling must be in [0, 3], got ", pooling);
    Nodes call = {};
    call.geometry = geometry_of(first.size(0), 1, first.size(-2), first.size(-1), rows, columns);
    call.neighborhood = neighborhood_of(radius_squared, include_self, edges);
    call.pooling = static_cast<Pooling>(pooling);
    call.scales = static_cast<int>(scales.size());
    for (int k = 0; k < call.scales; ++k) {
      STD_TORCH_CHECK(scales[k] >= 1 && scales[k] <= kLargestSide, kOp, ": scales must be >= 1, got ", scales[k]);
      call.scale[k] = static_cast<int>(scales[k]);
    }
    call.is_double = is_double(first);
    call.theta = checked(theta, "theta", first,
                         {call.geometry.levels, call.scales, call.geometry.height, call.geometry.width},
                         first.scalar_type());
    return call;
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> similarity_graph_nodes(
      const Tensor& squeezed, const Tensor& theta, Integers rows, Integers columns, Integers scales,
      std::int64_t pooling, std::int64_t radius_squared, bool include_self, std::int64_t edges) {
    STD_TORCH_CHECK(squeezed.dim() == 3, kOp, ": squeezed must have shape (N, H, W), got ", shape_of(squeezed));
    Nodes call = nodes_of(squeezed, theta, rows, columns, scales, pooling, radius_squared, include_self, edges);
    const Geometry& geometry = call.geometry;
    const ScalarType type = squeezed.scalar_type();
    call.squeezed = checked(squeezed, "squeezed", squeezed, {geometry.batch, geometry.height, geometry.width}, type);
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
      const Tensor& sums, const Tensor& centred, const Tensor& offset, const Tensor& slope, const Tensor& pooled,
      const Tensor& theta, Integers rows, Integers columns, Integers scales, std::int64_t pooling,
      std::int64_t radius_squared, bool include_self, std::int64_t edges) {
    STD_TORCH_CHECK(sums.dim() == 4, kOp, ": sums must have shape (N, L, H, W), got ", shape_of(sums));
    NodesBackward call = {};
    call.nodes = nodes_of(sums, theta, rows, columns, scales, pooling, radius_squared, include_self, edges);
    const Geometry& geometry = call.nodes.geometry;
    const ScalarType type = sums.scalar_type();
    const Integers planes = {geometry.batch, geometry.levels, geometry.height, geometry.width};
    const Integers scaled = {geometry.batch, geometry.levels, call.nodes.scales, geometry.height, geometry.width};
    const Integers maps = {geometry.batch, geometry.maps()};
    call.sums = checked(sums, "sums", sums, planes, type);
    call.nodes.centred = const_cast<void*>(checked(centred, "centred", sums, planes, type));
    call.nodes.pooled = const_cast<void*>(checked(pooled, "pooled", sums, scaled, type));
    call.offset = checked(offset, "offset", sums, maps, type);
    call.slope = checked(slope, "slope", sums, maps, type);
    const Tensor row_memory = workspace(sums, {4, scaled[0], scaled[1], scaled[2], scaled[3], scaled[4]}, type);
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
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(), channels = call.geometry.channels;
    call.is_double = is_double(channel);
    call.channel = checked(channel, "channel", channel, {batch, maps, channels}, channel.scalar_type());
    call.mean = static_cast<const double*>(checked(mean, "mean", channel, {batch, maps}, ScalarType::Double));
    call.spread = static_cast<const double*>(checked(spread, "spread", channel, {batch, maps}, ScalarType::Double));
    Tensor batch_mean = empty(channel, {maps, channels}, ScalarType::Double);
    Tensor batch_variance = empty(channel, {maps, channels}, ScalarType::Double);
    call.batch_mean = batch_mean.mutable_data_ptr<double>();
    call.batch_variance = batch_variance.mutable_data_ptr<double>();
    run(call, channel, false);
    return {batch_mean, batch_variance};
  }

  static Affine affine_of(const Tensor& channel, const Tensor& mean, const Tensor& weight, const Tensor& batch_mean,
                          const Tensor& inverse, std::int64_t height, std::int64_t width, const Integers& rows,
                          const Integers& columns) {
    check_precise(channel, "channel");
    STD_TORCH_CHECK(channel.dim() == 3, kOp, ": channel must have shape (N, G, C), got ", shape_of(channel));
    Affine call = {};
    call.geometry = geometry_of(channel.size(0), channel.size(2), height, width, rows, columns);
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(), channels = call.geometry.channels;
    call.is_double = is_double(channel);
    call.channel = checked(channel, "channel", channel, {batch, maps, channels}, channel.scalar_type());
    call.mean = static_cast<const double*>(checked(mean, "mean", channel, {batch, maps}, ScalarType::Double));
    call.weight = checked(weight, "weight", channel, {maps, channels}, channel.scalar_type());
    call.bias = call.weight;
    const Integers table = {maps, channels};
    call.batch_mean = static_cast<const double*>(checked(batch_mean, "batch_mean", channel, table, ScalarType::Double));
    call.inverse = static_cast<const double*>(checked(inverse, "inverse", channel, table, ScalarType::Double));
    return call;
  }

  static std::tuple<Tensor, Tensor> similarity_graph_affine(const Tensor& channel, const Tensor& mean,
                                                            const Tensor& weight, const Tensor& bias,
                                                            const Tensor& batch_mean, const Tensor& inverse,
                                                            std::int64_t height, std::int64_t width, Integers rows,
                                                            Integers columns) {
    Affine call = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    const std::int64_t batch = call.geometry.batch, maps = call.geometry.maps(), channels = call.geometry.channels;
    call.bias = checked(bias, "bias", channel, {maps, channels}, channel.scalar_type());
    Tensor scale = empty(channel, {batch, maps, channels}, channel.scalar_type());
    Tensor shift = empty(channel, {batch, maps, channels}, channel.scalar_type());
    call.scale = scale.mutable_data_ptr();
    call.shift = shift.mutable_data_ptr();
    run(call, channel, batch == 0);
    return {scale, shift};
  }

  static std::tuple<Tensor, Tensor> similarity_graph_affine_sums(
      const Tensor& total, const Tensor& moment, const Tensor& channel, const Tensor& mean, const Tensor& weight,
      const Tensor& batch_mean, const Tensor& inverse, std::int64_t height, std::int64_t width, Integers rows,
      Integers columns) {
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
      const Tensor& total, const Tensor& moment, const Tensor& channel, const Tensor& mean, const Tensor& spread,
      const Tensor& weight, const Tensor& batch_mean, const Tensor& inverse, const Tensor& mean_total,
      const Tensor& mean_moment, std::int64_t height, std::int64_t width, Integers rows, Integers columns) {
    AffineBackward call = {};
    call.affine = affine_of(channel, mean, weight, batch_mean, inverse, height, width, rows, columns);
    const Geometry& geometry = call.affine.geometry;
    const Integers shape = {geometry.batch, geometry.maps(), geometry.channels};
    const Integers maps = {shape[0], shape[1]}, table = {shape[1], shape[2]};
    const ScalarType type = channel.scalar_type();
    call.total = checked(total, "total", channel, shape, type);
    call.moment = checked(moment, "moment", channel, shape, type);
    call.spread = static_cast<const double*>(checked(spread, "spread", channel, maps, ScalarType::Double));
    call.mean_total = static_cast<const double*>(checked(mean_total, "mean_total", channel, table, ScalarType::Double));
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

  // -------------------------------- passes over the features

  static std::tuple<Tensor, Tensor> similarity_graph_squeeze(const Tensor& features, Integers rows, Integers columns) {
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
                          const Integers& rows, const Integers& columns, double factor, double negative_slope) {
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
                                                                  Integers rows, Integers columns, double factor,
                                                                  double negative_slope) {
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
    const Tensor region_total = empty(grad_y, by_region, type), region_moment = empty(grad_y, by_region, type);
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
                                          const OptionalTensor& delta, const Tensor& weight, const Tensor& bias,
                                          const Tensor& batch_mean, const Tensor& inverse, Integers rows,
                                          Integers columns, Integers scales, std::int64_t pooling,
                                          std::int64_t radius_squared, std::int64_t channel_radius_squared,
                                          bool include_self, std::int64_t edges, double residual, double factor,
                                          double negative_slope) {
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
      graph.neighborhood = neighborhood_of(channel_radius_squared, include_self, edges);
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

  // Image after image, so that its features are still in the cache when they are read again.
  template <typename... Calls>
  static void run_by_image(const Tensor&, std::int64_t images, const Calls*... calls) {
    const auto run_images = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t image = begin; image < end; ++image) (run_image(calls, image, images), ...);
    };
    if (torch::stable::get_num_threads() == 1) {
      run_images(0, images);
    } else {
      torch::stable::parallel_for(0, images, 1, run_images);
    }
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
    const int steps = cpu_steps(call);
    for (int step = 0; step < steps; ++step) {
      const std::int64_t items = cpu_items(call, step);
      if (torch::stable::get_num_threads() == 1) {
        cpu_run(call, step, 0, items);
      } else {
        torch::stable::parallel_for(
            0, items, 1, [&](std::int64_t begin, std::int64_t end) { cpu_run(call, step, begin, end); });
      }
    }
  }
};
#endif

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION)
struct Cuda {
  static constexpr bool needs_workspace = true;

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
#define REID_OPS_REGISTER(name) library.impl(#name, TORCH_BOX(&Ops::name));
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

#if defined(REID_OPS_EMULATION)
STABLE_TORCH_LIBRARY_IMPL(reid_ops_emulated, CPU, library) {
  reid_ops::similarity_graph::register_implementation<reid_ops::similarity_graph::Cuda>(library);
}
#else
STABLE_TORCH_LIBRARY_IMPL(reid_ops, CPU, library) {
  reid_ops::similarity_graph::register_implementation<reid_ops::similarity_graph::Cpu>(library);
}
#if defined(REID_OPS_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(reid_ops, CUDA, library) {
  reid_ops::similarity_graph::register_implementation<reid_ops::similarity_graph::Cuda>(library);
}
#endif
#endif
