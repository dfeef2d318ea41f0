// similarity_graph on the CPU: neighbour graphs, a vector of nodes at a time.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// A rows x columns array in scratch memory whose rows may be read and written `reach` columns
// before their first and a whole vector after their last.
template <typename T>
struct Padded {
  T* origin;
  std::int64_t stride;

  static std::int64_t stride_of(int columns, int reach) { return columns + 2 * reach + kLanes<T>; }
  static std::size_t bytes(int rows, int columns, int reach) {
    return CpuScratch::bytes_of<T>(rows * stride_of(columns, reach));
  }
  static Padded take(CpuScratch& scratch, int rows, int columns, int reach) {
    const std::int64_t stride = stride_of(columns, reach);
    T* memory = scratch.take<T>(rows * stride);
    std::fill(memory, memory + rows * stride, T(0));  // lanes nobody uses must not trap or be slow
    return {memory + reach, stride};
  }
  T* row(int index) const { return origin + index * stride; }
};

// Nodes on a grid. `visit` calls f(offset in scratch, which lanes have such a neighbour).
template <typename T>
struct Grid {
  int rows, columns;
  Neighborhood neighborhood;
  std::int64_t stride;

  typedef Vector<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>> Mask;

  template <typename Function>
  REID_OPS_INLINE void visit(int row, int first, const Function& function) const {
    if (neighborhood.edges == Edges::kNone) return;
    Mask column = {};
    for (int lane = 0; lane < kLanes<T>; ++lane) column[lane] = first + lane;
    const int reach = neighborhood.reach;
    for (int down = -reach; down <= reach; ++down) {
      if (row + down < 0 || row + down >= rows) continue;
      for (int across = -reach; across <= reach; ++across) {
        if (down * down + across * across > neighborhood.radius_squared) continue;
        if (down == 0 && across == 0 && !neighborhood.include_self) continue;
        const Mask other = column + across;
        function((row + down) * stride + first + across, (other >= 0) & (other < columns));
      }
    }
  }

  template <typename Function>
  REID_OPS_INLINE void for_each_vector(const Function& function) const {
    for (int row = 0; row < rows; ++row) {
      for (int first = 0; first < columns; first += kLanes<T>) {
        function(row, first, std::min<int>(kLanes<T>, columns - first));
      }
    }
  }

  REID_OPS_INLINE Row<Vector<T>> row_at(const Padded<T>& values, int row, int first) const {
    const auto each = [&](const auto& visitor) REID_OPS_NODE_LAMBDA {
      visit(row, first, [&](std::int64_t offset, Mask exists) REID_OPS_NODE_LAMBDA {
        visitor(load_widened<T, T>(values.origin + offset), exists);
      });
    };
    return row_of(load_widened<T, T>(values.row(row) + first), neighborhood.edges, each);
  }
};

// The gradient of all nodes' m_i + v_i: `grad` in, `result` out, both like `values`.
template <typename T>
struct GraphGradient {
  Padded<T> shift, inverse, mean, own;

  static std::size_t bytes(int rows, int columns, int reach) {
    return 4 * Padded<T>::bytes(rows, columns, reach);
  }
  static GraphGradient take(CpuScratch& scratch, int rows, int columns, int reach) {
    const auto one = [&] { return Padded<T>::take(scratch, rows, columns, reach); };
    GraphGradient result;
    result.shift = one(), result.inverse = one(), result.mean = one(), result.own = one();
    return result;
  }

  void run(const Grid<T>& grid, const Padded<T>& values, const Padded<T>& grad,
           const Padded<T>& result) const {
    const Edges edges = grid.neighborhood.edges;
    grid.for_each_vector([&](int r, int first, int) {
      const Row<Vector<T>> row = grid.row_at(values, r, first);
      const auto each = [&](const auto& visitor) REID_OPS_NODE_LAMBDA {
        grid.visit(r, first, [&](std::int64_t offset, typename Grid<T>::Mask exists) REID_OPS_NODE_LAMBDA {
          visitor(load_widened<T, T>(values.origin + offset), exists);
        });
      };
      const Vector<T> node = load_widened<T, T>(values.row(r) + first);
      store_narrowed<T, T>(own.row(r) + first, own_derivative(node, row, edges, each));
      store_narrowed<T, T>(shift.row(r) + first, row.shift);
      store_narrowed<T, T>(inverse.row(r) + first, row.inverse);
      store_narrowed<T, T>(mean.row(r) + first, row.mean);
    });
    grid.for_each_vector([&](int r, int first, int) {
      const Vector<T> node = load_widened<T, T>(values.row(r) + first);
      const Vector<T> one = constant<Vector<T>>(1);
      Vector<T> sum =
          load_widened<T, T>(grad.row(r) + first) * (one + load_widened<T, T>(own.row(r) + first));
      grid.visit(r, first, [&](std::int64_t offset, typename Grid<T>::Mask exists) REID_OPS_NODE_LAMBDA {
        const Row<Vector<T>> row = {load_widened<T, T>(shift.origin + offset),
                                    load_widened<T, T>(inverse.origin + offset),
                                    load_widened<T, T>(mean.origin + offset)};
        const Vector<T> other = load_widened<T, T>(values.origin + offset);
        const Vector<T> term =
            load_widened<T, T>(grad.origin + offset) * derivative_by_neighbor(other, row, node, edges);
        sum = exists ? sum + term : sum;
      });
      store_narrowed<T, T>(result.row(r) + first, sum);
    });
  }
};

// ------------------------------------------------------------------ Graph

template <typename T>
Padded<T> copy_padded(CpuScratch& scratch, const T* source, int rows, int columns, int reach) {
  const Padded<T> result = Padded<T>::take(scratch, rows, columns, reach);
  for (int row = 0; row < rows; ++row) std::copy_n(source + row * columns, columns, result.row(row));
  return result;
}

template <typename T>
void run_graph(const Graph& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t size = std::int64_t{call.height} * call.width;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  for (std::int64_t b = begin; b < end; ++b) {
    scratch.reserve(Padded<T>::bytes(call.height, call.width, call.neighborhood.reach));
    const Padded<T> values = copy_padded(scratch, static_cast<const T*>(call.values) + b * size, call.height,
                                         call.width, call.neighborhood.reach);
    const Grid<T> grid = {call.height, call.width, call.neighborhood, values.stride};
    const T* theta = call.theta ? static_cast<const T*>(call.theta) + b % call.theta_rows * size : nullptr;
    T* output = static_cast<T*>(call.output) + b * size;
    T* aggregate = call.aggregate ? static_cast<T*>(call.aggregate) + b * size : nullptr;
    grid.for_each_vector([&](int r, int first, int count) {
      const std::int64_t place = std::int64_t{r} * call.width + first;
      Vector<T> result = load_widened<T, T>(values.row(r) + first) + grid.row_at(values, r, first).mean;
      if (aggregate) store_some<T, T>(aggregate + place, result, count);
      if (theta) result *= load_first<T, T>(theta + place, count);
      store_some<T, T>(output + place, result, count);
    });
  }
}

template <typename T>
void run_graph(const GraphBackward& call, std::int64_t begin, std::int64_t end) {
  const Graph& graph = call.graph;
  const int rows = graph.height, columns = graph.width, reach = graph.neighborhood.reach;
  const std::int64_t size = std::int64_t{rows} * columns;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  for (std::int64_t b = begin; b < end; ++b) {
    scratch.reserve(3 * Padded<T>::bytes(rows, columns, reach) +
                    GraphGradient<T>::bytes(rows, columns, reach));
    const Padded<T> values =
        copy_padded(scratch, static_cast<const T*>(graph.values) + b * size, rows, columns, reach);
    const Padded<T> grad =
        copy_padded(scratch, static_cast<const T*>(call.grad_output) + b * size, rows, columns, reach);
    const Padded<T> result = Padded<T>::take(scratch, rows, columns, reach);
    const auto gradient = GraphGradient<T>::take(scratch, rows, columns, reach);
    if (graph.theta) {
      const T* theta = static_cast<const T*>(graph.theta) + b % graph.theta_rows * size;
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) grad.row(r)[c] *= theta[r * columns + c];
      }
    }
    gradient.run({rows, columns, graph.neighborhood, values.stride}, values, grad, result);
    T* output = static_cast<T*>(call.grad_values) + b * size;
    for (int r = 0; r < rows; ++r) std::copy_n(result.row(r), columns, output + r * columns);
  }
}

// ------------------------------------------------------------------ Nodes: one map of one image

// AP_k of a map along both axes, and its adjoint.
template <typename T>
struct Pool {
  Taps* down;  // for every row, then for every column
  Taps* across;
  T* between;  // rows x columns

  static std::size_t bytes(int rows, int columns) {
    return CpuScratch::bytes_of<Taps>(rows) + CpuScratch::bytes_of<Taps>(columns) +
           CpuScratch::bytes_of<T>(std::int64_t{rows} * columns);
  }
  static Pool take(CpuScratch& scratch, int rows, int columns) {
    Pool result;
    result.down = scratch.take<Taps>(rows);
    result.across = scratch.take<Taps>(columns);
    result.between = scratch.take<T>(std::int64_t{rows} * columns);
    return result;
  }
  void prepare(int rows, int columns, int k, Pooling pooling) const {
    for (int r = 0; r < rows; ++r) down[r] = pooling_taps(r, rows, k, pooling);
    for (int c = 0; c < columns; ++c) across[c] = pooling_taps(c, columns, k, pooling);
  }

  void forward(const T* source, std::int64_t source_stride, int rows, int columns,
               const Padded<T>& result) const {
    for (int r = 0; r < rows; ++r) {
      for (int tap = 0; tap < down[r].count; ++tap) {
        const Window& rows_of = down[r].window[tap];
        for (int c = 0; c < columns; ++c) between[c] = source[rows_of.begin * source_stride + c];
        for (int i = rows_of.begin + 1; i < rows_of.end; ++i) {
          for (int c = 0; c < columns; ++c) between[c] += source[i * source_stride + c];
        }
        for (int c = 0; c < columns; ++c) {
          T value = 0;
          for (int other = 0; other < across[c].count; ++other) {
            const Window& columns_of = across[c].window[other];
            T sum = 0;
            for (int j = columns_of.begin; j < columns_of.end; ++j) sum += between[j];
            value += sum / static_cast<T>(rows_of.divisor * columns_of.divisor) *
                     across[c].template weight<T>(other);
          }
          value *= down[r].template weight<T>(tap);
          result.row(r)[c] = tap == 0 ? value : result.row(r)[c] + value;
        }
      }
    }
  }

  // Adds to `target`, rows of `target_stride`.
  void backward(const Padded<T>& grad, int rows, int columns, T* target, std::int64_t target_stride) const {
    for (int r = 0; r < rows; ++r) {
      for (int tap = 0; tap < down[r].count; ++tap) {
        const Window& rows_of = down[r].window[tap];
        const T weight = down[r].template weight<T>(tap);
        std::fill(between, between + columns, T(0));
        for (int c = 0; c < columns; ++c) {
          for (int other = 0; other < across[c].count; ++other) {
            const Window& columns_of = across[c].window[other];
            const T share = grad.row(r)[c] / static_cast<T>(rows_of.divisor * columns_of.divisor) *
                            (weight * across[c].template weight<T>(other));
            for (int j = columns_of.begin; j < columns_of.end; ++j) between[j] += share;
          }
        }
        for (int i = rows_of.begin; i < rows_of.end; ++i) {
          for (int c = 0; c < columns; ++c) target[i * target_stride + c] += between[c];
        }
      }
    }
  }
};

template <typename T>
void run_nodes(const Nodes& call, std::int64_t begin, std::int64_t end) {
  const Geometry& geometry = call.geometry;
  const int maps = geometry.maps(), width = geometry.width, reach = call.neighborhood.reach;
  const std::int64_t size = geometry.pixels();
  CpuScratch& scratch = CpuScratch::of_this_thread();
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps;
    const int map = static_cast<int>(item % maps), level = geometry.level_of(map);
    const Area area = geometry.map_area(map);
    const int rows = area.rows(), columns = area.columns();
    scratch.reserve(2 * Padded<T>::bytes(rows, columns, reach) + Pool<T>::bytes(rows, columns));
    const Padded<T> values = Padded<T>::take(scratch, rows, columns, reach);
    const Padded<T> sum = Padded<T>::take(scratch, rows, columns, reach);
    const auto pool = Pool<T>::take(scratch, rows, columns);
    const Grid<T> grid = {rows, columns, call.neighborhood, values.stride};
    const std::int64_t corner = std::int64_t{area.top} * width + area.left;
    for (int k = 0; k < call.scales; ++k) {
      pool.prepare(rows, columns, call.scale[k], call.pooling);
      pool.forward(static_cast<const T*>(call.squeezed) + image * size + corner, width, rows, columns,
                   values);
      const std::int64_t plane = ((image * geometry.levels + level) * call.scales + k) * size + corner;
      const T* theta =
          static_cast<const T*>(call.theta) + (std::int64_t{level} * call.scales + k) * size + corner;
      T* pooled = static_cast<T*>(call.pooled) + plane;
      T* aggregate = static_cast<T*>(call.aggregate) + plane;
      grid.for_each_vector([&](int r, int first, int count) {
        const std::int64_t place = std::int64_t{r} * width + first;
        const Vector<T> node = load_widened<T, T>(values.row(r) + first);
        const Vector<T> result = node + grid.row_at(values, r, first).mean;
        store_some<T, T>(pooled + place, node, count);
        store_some<T, T>(aggregate + place, result, count);
        const Vector<T> before = load_widened<T, T>(sum.row(r) + first);
        store_narrowed<T, T>(sum.row(r) + first, before + result * load_first<T, T>(theta + place, count));
      });
    }
    double mean = 0, spread = 0;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) mean += sum.row(r)[c];
    }
    mean /= area.size();
    T* centred = static_cast<T*>(call.centred) + (image * geometry.levels + level) * size + corner;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        const double value = sum.row(r)[c] - mean;
        centred[std::int64_t{r} * width + c] = static_cast<T>(value);
        spread += value * value;
      }
    }
    call.mean[item] = mean;
    call.spread[item] = spread;
  }
}

template <typename T>
void run_nodes(const NodesBackward& call, std::int64_t begin, std::int64_t end) {
  const Nodes& nodes = call.nodes;
  const Geometry& geometry = nodes.geometry;
  const int maps = geometry.maps(), width = geometry.width, reach = nodes.neighborhood.reach;
  const std::int64_t size = geometry.pixels();
  CpuScratch& scratch = CpuScratch::of_this_thread();
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps;
    const int map = static_cast<int>(item % maps), level = geometry.level_of(map);
    const Area area = geometry.map_area(map);
    const int rows = area.rows(), columns = area.columns();
    scratch.reserve(3 * Padded<T>::bytes(rows, columns, reach) +
                    GraphGradient<T>::bytes(rows, columns, reach) + Pool<T>::bytes(rows, columns));
    const Padded<T> values = Padded<T>::take(scratch, rows, columns, reach);
    const Padded<T> grad = Padded<T>::take(scratch, rows, columns, reach);
    const Padded<T> result = Padded<T>::take(scratch, rows, columns, reach);
    const auto gradient = GraphGradient<T>::take(scratch, rows, columns, reach);
    const auto pool = Pool<T>::take(scratch, rows, columns);
    const Grid<T> grid = {rows, columns, nodes.neighborhood, values.stride};
    const std::int64_t corner = std::int64_t{area.top} * width + area.left;
    const std::int64_t plane = (image * geometry.levels + level) * size + corner;
    const T* sums = static_cast<const T*>(call.sums) + plane;
    const T* centred = static_cast<const T*>(nodes.centred) + plane;
    const T offset = static_cast<const T*>(call.offset)[item],
            slope = static_cast<const T*>(call.slope)[item];
    T* grad_nodes = static_cast<T*>(call.grad_nodes) + plane;
    T* target = static_cast<T*>(call.grad_squeezed) + plane;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        const std::int64_t place = std::int64_t{r} * width + c;
        grad_nodes[place] = sums[place] - offset - slope * centred[place];
        target[place] = 0;
      }
    }
    for (int k = 0; k < nodes.scales; ++k) {
      const T* pooled = static_cast<const T*>(nodes.pooled) +
                        ((image * geometry.levels + level) * nodes.scales + k) * size + corner;
      const T* theta =
          static_cast<const T*>(nodes.theta) + (std::int64_t{level} * nodes.scales + k) * size + corner;
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) {
          const std::int64_t place = std::int64_t{r} * width + c;
          values.row(r)[c] = pooled[place];
          grad.row(r)[c] = grad_nodes[place] * theta[place];
        }
      }
      gradient.run(grid, values, grad, result);
      pool.prepare(rows, columns, nodes.scale[k], nodes.pooling);
      pool.backward(result, rows, columns, target, width);
    }
  }
}
