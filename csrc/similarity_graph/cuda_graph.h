// similarity_graph on CUDA: graphs (a thread a node) and all maps' spatial graphs (a block a map).
#pragma once

#include "similarity_graph/cuda_common.h"

namespace reid_ops::similarity_graph {
namespace {

#define REID_OPS_NODE __device__ __forceinline__
#define REID_OPS_NODE_LAMBDA

template <typename T>
using Element = T;
template <typename T>
constexpr T kLargest = std::numeric_limits<T>::max();

__device__ __forceinline__ float exponential(float value) { return expf(value); }
__device__ __forceinline__ double exponential(double value) { return exp(value); }

#include "similarity_graph/graph_core.h"

// Nodes on a grid whose rows lie `stride` apart in memory. f(offset of the neighbour).
struct NodeGrid {
  int rows, columns;
  std::int64_t stride;
  Neighborhood neighborhood;

  template <typename Function>
  __device__ __forceinline__ void visit(int row, int column, const Function& f) const {
    if (neighborhood.edges == Edges::kNone) return;
    const int reach = neighborhood.reach;
    for (int down = -reach; down <= reach; ++down) {
      if (row + down < 0 || row + down >= rows) continue;
      for (int across = -reach; across <= reach; ++across) {
        if (column + across < 0 || column + across >= columns) continue;
        if (down * down + across * across > neighborhood.radius_squared) continue;
        if (down == 0 && across == 0 && !neighborhood.include_self) continue;
        f((row + down) * stride + column + across);
      }
    }
  }

  template <typename T>
  __device__ __forceinline__ Row<T> row_at(const T* values, int row, int column) const {
    return row_of(values[row * stride + column], neighborhood.edges, [&](const auto& visitor) {
      visit(row, column, [&](std::int64_t offset) { visitor(values[offset], true); });
    });
  }
};

// The two halves of a graph's gradient; between them all nodes' rows must have been written.
// `rows` holds shift, inverse, mean and own derivative in four arrays `plane` apart, laid out like values.
template <typename T>
__device__ __forceinline__ void write_row(const NodeGrid& grid, const T* values, int row, int column, T* rows,
                                          std::int64_t plane) {
  const std::int64_t place = row * grid.stride + column;
  const Row<T> found = grid.row_at(values, row, column);
  const T own = own_derivative(values[place], found, grid.neighborhood.edges, [&](const auto& visitor) {
    grid.visit(row, column, [&](std::int64_t offset) { visitor(values[offset], true); });
  });
  rows[place] = found.shift;
  rows[plane + place] = found.inverse;
  rows[2 * plane + place] = found.mean;
  rows[3 * plane + place] = own;
}

// `grad_at(offset)`: the gradient of node u at an offset.
template <typename T, typename GradAt>
__device__ __forceinline__ T gather_gradient(const NodeGrid& grid, const T* values, int row, int column,
                                             const T* rows, std::int64_t plane, const GradAt& grad_at) {
  const std::int64_t place = row * grid.stride + column;
  const T node = values[place];
  T sum = grad_at(place) * (1 + rows[3 * plane + place]);
  grid.visit(row, column, [&](std::int64_t offset) {
    const Row<T> other = {rows[offset], rows[plane + offset], rows[2 * plane + offset]};
    sum += grad_at(offset) * derivative_by_neighbor(values[offset], other, node, grid.neighborhood.edges);
  });
  return sum;
}

// ------------------------------------------------------------------ Graph

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) graph_kernel(Graph call) {
  const std::int64_t size = static_cast<std::int64_t>(call.height) * call.width;
  const NodeGrid grid = {call.height, call.width, call.width, call.neighborhood};
  for (std::int64_t item = first_item(); item < call.batch * size; item += item_step()) {
    const std::int64_t b = item / size, place = item % size;
    const T* values = static_cast<const T*>(call.values) + b * size;
    const int row = static_cast<int>(place / call.width), column = static_cast<int>(place % call.width);
    T result = values[place] + grid.row_at(values, row, column).mean;
    if (call.aggregate != nullptr) static_cast<T*>(call.aggregate)[item] = result;
    if (call.theta != nullptr)
      result *= static_cast<const T*>(call.theta)[b % call.theta_rows * size + place];
    static_cast<T*>(call.output)[item] = result;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) graph_rows_kernel(GraphBackward call) {
  const Graph& graph = call.graph;
  const std::int64_t size = static_cast<std::int64_t>(graph.height) * graph.width;
  const NodeGrid grid = {graph.height, graph.width, graph.width, graph.neighborhood};
  for (std::int64_t item = first_item(); item < graph.batch * size; item += item_step()) {
    const std::int64_t b = item / size, place = item % size;
    write_row(grid, static_cast<const T*>(graph.values) + b * size, static_cast<int>(place / graph.width),
              static_cast<int>(place % graph.width), static_cast<T*>(call.rows) + b * size,
              graph.batch * size);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) graph_gather_kernel(GraphBackward call) {
  const Graph& graph = call.graph;
  const std::int64_t size = static_cast<std::int64_t>(graph.height) * graph.width;
  const NodeGrid grid = {graph.height, graph.width, graph.width, graph.neighborhood};
  for (std::int64_t item = first_item(); item < graph.batch * size; item += item_step()) {
    const std::int64_t b = item / size, place = item % size;
    const T* grad = static_cast<const T*>(call.grad_output) + b * size;
    const T* theta =
        graph.theta == nullptr ? nullptr : static_cast<const T*>(graph.theta) + b % graph.theta_rows * size;
    static_cast<T*>(call.grad_values)[item] = gather_gradient(
        grid, static_cast<const T*>(graph.values) + b * size, static_cast<int>(place / graph.width),
        static_cast<int>(place % graph.width), static_cast<const T*>(call.rows) + b * size,
        graph.batch * size,
        [&](std::int64_t offset) { return theta == nullptr ? grad[offset] : grad[offset] * theta[offset]; });
  }
}

// ------------------------------------------------------------------ Nodes

// What a block that owns one map of one image works on. Planes are [N, L, (K,) H, W].
struct MapPlace {
  std::int64_t item, image, corner;
  int level;
  Area area;

  __device__ __forceinline__ MapPlace(const Geometry& geometry, std::int64_t block) {
    const int maps = geometry.maps(), map = static_cast<int>(block % maps);
    item = block;
    image = block / maps;
    level = geometry.level_of(map);
    area = geometry.map_area(map);
    corner = static_cast<std::int64_t>(area.top) * geometry.width + area.left;
  }
  __device__ __forceinline__ std::int64_t plane(const Geometry& geometry) const {
    return (image * geometry.levels + level) * geometry.pixels() + corner;
  }
  __device__ __forceinline__ std::int64_t scaled_plane(const Nodes& call, int k) const {
    const Geometry& geometry = call.geometry;
    return ((image * geometry.levels + level) * call.scales + k) * geometry.pixels() + corner;
  }
  __device__ __forceinline__ std::int64_t theta_plane(const Nodes& call, int k) const {
    return (static_cast<std::int64_t>(level) * call.scales + k) * call.geometry.pixels() + corner;
  }
};

// f(row, column, offset from the map's corner) for the map's pixels, shared out to the block's threads.
template <typename Function>
__device__ __forceinline__ void for_each_pixel(const MapPlace& place, int width, const Function& f) {
  const int columns = place.area.columns();
  for (int index = static_cast<int>(threadIdx.x); index < place.area.size(); index += kThreads) {
    const int row = index / columns, column = index % columns;
    f(row, column, static_cast<std::int64_t>(row) * width + column);
  }
}

// AP_k at one pixel of a map whose rows lie `width` apart.
template <typename T>
__device__ __forceinline__ T pooled_at(const T* squeezed, int width, const Taps& down, const Taps& across) {
  T value = 0;
#pragma unroll
  for (int tap = 0; tap < 2; ++tap) {
#pragma unroll
    for (int other = 0; other < 2; ++other) {
      if (tap >= down.count || other >= across.count) continue;
      const Window &rows = down.window[tap], &columns = across.window[other];
      T sum = 0;
      for (int i = rows.begin; i < rows.end; ++i) {
        for (int j = columns.begin; j < columns.end; ++j)
          sum += squeezed[static_cast<std::int64_t>(i) * width + j];
      }
      value += sum / static_cast<T>(rows.divisor * columns.divisor) *
               (down.template weight<T>(tap) * across.template weight<T>(other));
    }
  }
  return value;
}

// All maps, scales and both reductions in one launch. Threads hand each other the pooled nodes through
// global memory, which a barrier makes visible within the block.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) nodes_kernel(Nodes call) {
  const Geometry& geometry = call.geometry;
  const int width = geometry.width;
  const std::int64_t blocks = geometry.batch * geometry.maps();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const MapPlace place(geometry, block);
    const int rows = place.area.rows(), columns = place.area.columns();
    const NodeGrid grid = {rows, columns, width, call.neighborhood};
    const T* squeezed = static_cast<const T*>(call.squeezed) + place.image * geometry.pixels() + place.corner;
    for (int k = 0; k < call.scales; ++k) {
      T* pooled = static_cast<T*>(call.pooled) + place.scaled_plane(call, k);
      for_each_pixel(place, width, [&](int row, int column, std::int64_t offset) {
        pooled[offset] = pooled_at(squeezed, width, pooling_taps(row, rows, call.scale[k], call.pooling),
                                   pooling_taps(column, columns, call.scale[k], call.pooling));
      });
    }
    __syncthreads();
    T* centred = static_cast<T*>(call.centred) + place.plane(geometry);
    double mean = 0, spread = 0;
    for_each_pixel(place, width, [&](int row, int column, std::int64_t offset) {
      T sum = 0;
      for (int k = 0; k < call.scales; ++k) {
        const T* pooled = static_cast<const T*>(call.pooled) + place.scaled_plane(call, k);
        const T result = pooled[offset] + grid.row_at(pooled, row, column).mean;
        static_cast<T*>(call.aggregate)[place.scaled_plane(call, k) + offset] = result;
        sum += result * static_cast<const T*>(call.theta)[place.theta_plane(call, k) + offset];
      }
      centred[offset] = sum;
      mean += sum;
    });
    mean = block_sum(mean) / place.area.size();
    for_each_pixel(place, width, [&](int, int, std::int64_t offset) {
      const double value = centred[offset] - mean;
      centred[offset] = static_cast<T>(value);
      spread += value * value;
    });
    spread = block_sum(spread);
    if (threadIdx.x == 0) call.mean[place.item] = mean, call.spread[place.item] = spread;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) nodes_backward_kernel(NodesBackward call) {
  const Nodes& nodes = call.nodes;
  const Geometry& geometry = nodes.geometry;
  const int width = geometry.width;
  const std::int64_t blocks = geometry.batch * geometry.maps();
  const std::int64_t row_plane = geometry.batch * geometry.levels * nodes.scales * geometry.pixels();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const MapPlace place(geometry, block);
    const int rows = place.area.rows(), columns = place.area.columns();
    const NodeGrid grid = {rows, columns, width, nodes.neighborhood};
    const T* sums = static_cast<const T*>(call.sums) + place.plane(geometry);
    const T* centred = static_cast<const T*>(nodes.centred) + place.plane(geometry);
    T* grad_nodes = static_cast<T*>(call.grad_nodes) + place.plane(geometry);
    const T shift = static_cast<const T*>(call.offset)[place.item];
    const T slope = static_cast<const T*>(call.slope)[place.item];
    for_each_pixel(place, width, [&](int row, int column, std::int64_t offset) {
      grad_nodes[offset] = sums[offset] - shift - slope * centred[offset];
      for (int k = 0; k < nodes.scales; ++k) {
        const std::int64_t plane = place.scaled_plane(nodes, k);
        write_row(grid, static_cast<const T*>(nodes.pooled) + plane, row, column,
                  static_cast<T*>(call.rows) + plane, row_plane);
      }
    });
    __syncthreads();
    for_each_pixel(place, width, [&](int row, int column, std::int64_t offset) {
      for (int k = 0; k < nodes.scales; ++k) {
        const std::int64_t plane = place.scaled_plane(nodes, k);
        const T* theta = static_cast<const T*>(nodes.theta) + place.theta_plane(nodes, k);
        static_cast<T*>(call.grad_pooled)[plane + offset] =
            gather_gradient(grid, static_cast<const T*>(nodes.pooled) + plane, row, column,
                            static_cast<const T*>(call.rows) + plane, row_plane,
                            [&](std::int64_t other) { return grad_nodes[other] * theta[other]; });
      }
    });
    __syncthreads();
    T* target = static_cast<T*>(call.grad_squeezed) + place.plane(geometry);
    for_each_pixel(place, width, [&](int row, int column, std::int64_t offset) {
      T sum = 0;
      for (int k = 0; k < nodes.scales; ++k) {
        const T* grad = static_cast<const T*>(call.grad_pooled) + place.scaled_plane(nodes, k);
        const Window down = positions_pooling(row, rows, nodes.scale[k], nodes.pooling);
        const Window across = positions_pooling(column, columns, nodes.scale[k], nodes.pooling);
        for (int i = down.begin; i < down.end; ++i) {
          const T share = pooling_taps(i, rows, nodes.scale[k], nodes.pooling).template share_of<T>(row);
          if (share == T(0)) continue;
          for (int j = across.begin; j < across.end; ++j) {
            const T other =
                pooling_taps(j, columns, nodes.scale[k], nodes.pooling).template share_of<T>(column);
            if (other == T(0)) continue;  // also where the gradient is not finite
            sum += grad[static_cast<std::int64_t>(i) * width + j] * (share * other);
          }
        }
      }
      target[offset] = sum;
    });
  }
}

}  // namespace
}  // namespace reid_ops::similarity_graph
