// k_reciprocal on the CPU: products of all pairs by tiles in registers, merged into lists while they are in
// the cache: see search.h. Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// A tile: so many rows by two vectors of columns. Half of the registers are sums; the rest hold what is
// multiplied. With 8 x 2 sums no multiplication waits for the one before, whose latency is 4 on two ports.
constexpr int kTileRows = REID_OPS_VECTOR_REGISTERS / 4;
template <typename T>
constexpr std::int64_t kGroup = 2 * kLanes<T>;
// Elements of a product that are summed in registers before they are added to the rest: a group's share
// (16 KiB) stays in the first-level cache, and the shorter sums round less.
constexpr std::int64_t kDepth = 128;
static_assert(kGroup<float> % kTileRows == 0 && kGroup<double> % kTileRows == 0,
              "a tile's rows are in one group");

template <typename T>
void pack(const Pack& call, std::int64_t group) {
  constexpr std::int64_t width = kGroup<T>, lanes = kLanes<T>;
  const std::int64_t dimension = call.dimension, first = group * width;
  const std::int64_t rows = std::min(width, call.items - first);
  const T* source = static_cast<const T*>(call.features) + first * dimension;
  T* packed = static_cast<T*>(call.packed) + first * dimension;
  std::int64_t k = 0;
  if (rows == width) {
    for (; k + lanes <= dimension; k += lanes) {
      for (std::int64_t half = 0; half < width; half += lanes) {
        Vector<T> square[lanes];
        for (int row = 0; row < lanes; ++row) square[row] = load(source + (half + row) * dimension + k);
        transpose<T>(square);
        for (int row = 0; row < lanes; ++row) store(packed + (k + row) * width + half, square[row]);
      }
    }
  }
  for (; k < dimension; ++k) {
    for (std::int64_t row = 0; row < width; ++row) {
      packed[k * width + row] = row < rows ? source[row * dimension + k] : T(0);
    }
  }
  if (call.lengths == nullptr) return;
  T* lengths = static_cast<T*>(call.lengths) + first;
  for (std::int64_t half = 0; half < width; half += lanes) {
    Vector<T> total = {};
    for (std::int64_t begin = 0; begin < dimension; begin += kDepth) {
      Vector<T> sum = {};
      for (k = begin; k < std::min(begin + kDepth, dimension); ++k) {
        const Vector<T> value = load(packed + k * width + half);
        sum += value * value;
      }
      total += sum;
    }
    store(lengths + half, total);
  }
}

// Products of kTileRows rows with a group of columns over `depth` elements, put into or added to `result`.
template <typename T, bool kAdd>
REID_OPS_INLINE void multiply_tile(const T* rows, const T* columns, std::int64_t depth, T* result,
                                   std::int64_t stride) {
  constexpr std::int64_t width = kGroup<T>, lanes = kLanes<T>;
  Vector<T> sums[kTileRows][2] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    const Vector<T> left = load(columns + k * width), right = load(columns + k * width + lanes);
#pragma GCC unroll 8
    for (int row = 0; row < kTileRows; ++row) {
      const Vector<T> value = rows[k * width + row] - Vector<T>{};  // a broadcast: x - 0 is x, 0 + x is not
      sums[row][0] += value * left;
      sums[row][1] += value * right;
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
    T* place = result + row * stride;
    store(place, kAdd ? load(place) + sums[row][0] : sums[row][0]);
    store(place + lanes, kAdd ? load(place + lanes) + sums[row][1] : sums[row][1]);
  }
}

// Products of `rows` packed rows with `columns` packed columns, both up to whole groups, into [rows, stride].
template <typename T>
void multiply(const T* left, std::int64_t rows, const T* right, std::int64_t columns, std::int64_t dimension,
              T* result, std::int64_t stride) {
  constexpr std::int64_t width = kGroup<T>;
  rows = (rows + width - 1) / width * width;
  columns = (columns + width - 1) / width * width;
  if (dimension == 0) std::fill(result, result + rows * stride, T(0));
  for (std::int64_t k = 0; k < dimension; k += kDepth) {
    const std::int64_t depth = std::min(kDepth, dimension - k);
    for (std::int64_t column = 0; column < columns; column += width) {
      const T* group = right + column * dimension + k * width;
      for (std::int64_t row = 0; row < rows; row += kTileRows) {
        const std::int64_t first = row / width * width;
        const T* tile_rows = left + first * dimension + k * width + (row - first);
        T* tile = result + row * stride + column;
        k == 0 ? multiply_tile<T, false>(tile_rows, group, depth, tile, stride)
               : multiply_tile<T, true>(tile_rows, group, depth, tile, stride);
      }
    }
  }
}

template <typename T>
void products(const Products& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t side = call.block, across = (call.columns + side - 1) / side;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(side * side));
  T* block = scratch.take<T>(side * side);
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t row = item / across * side, column = item % across * side;
    const std::int64_t rows = std::min(side, call.rows - row),
                       columns = std::min(side, call.columns - column);
    multiply(static_cast<const T*>(call.left) + row * call.dimension, rows,
             static_cast<const T*>(call.right) + column * call.dimension, columns, call.dimension, block,
             side);
    for (std::int64_t k = 0; k < rows; ++k) {
      std::memcpy(static_cast<T*>(call.output) + (row + k) * call.columns + column, block + k * side,
                  static_cast<std::size_t>(columns) * sizeof(T));
    }
  }
}

// The part of a block that is products of queries with the gallery, to where it is wanted.
template <typename T>
void keep_products(const Search& call, const T* block, std::int64_t stride, std::int64_t first_row,
                   std::int64_t rows, std::int64_t first_column, std::int64_t columns) {
  const std::int64_t begin = std::max(first_column, call.queries), gallery = call.items - call.queries;
  if (begin >= first_column + columns) return;
  for (std::int64_t row = 0; row < rows && first_row + row < call.queries; ++row) {
    std::memcpy(static_cast<T*>(call.products) + (first_row + row) * gallery + begin - call.queries,
                block + row * stride + begin - first_column,
                static_cast<std::size_t>(first_column + columns - begin) * sizeof(T));
  }
}

template <typename T>
void search_block(const Search& call, std::int64_t row_block, std::int64_t column_block) {
  const std::int64_t side = call.block, first_row = row_block * side, first_column = column_block * side;
  const std::int64_t rows = std::min(side, call.items - first_row);
  const std::int64_t columns = std::min(side, call.items - first_column);
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(side * side));
  T* products = scratch.take<T>(side * side);
  const T* packed = static_cast<const T*>(call.packed);
  multiply(packed + first_row * call.dimension, rows, packed + first_column * call.dimension, columns,
           call.dimension, products, side);
  if (call.products != nullptr) {
    keep_products(call, products, side, first_row, rows, first_column, columns);
  }
  const T* lengths = static_cast<const T*>(call.lengths);
  Nearest merge = {};
  merge.block = {
      products, rows, columns, side, lengths + first_row, lengths + first_column, Measure::kEuclidean, 0};
  merge.type = call.type;
  merge.any_order = true;
  merge.neighbours = call.neighbours;
  // The rows' lists, then (the block's mirror image) the columns': of an item, of its candidates.
  for (const bool by_column : {false, true}) {
    if (by_column && row_block == column_block) break;
    const std::int64_t item = by_column ? first_column : first_row;
    merge.by_column = by_column;
    merge.first_candidate = by_column ? first_row : first_column;
    merge.self_candidate = item;
    merge.distances = static_cast<T*>(call.distances) + item * call.neighbours;
    merge.indices = call.indices + item * call.neighbours;
    merge.largest = static_cast<T*>(call.largest) + item;
    const std::lock_guard<std::mutex> lock(call.locks[by_column ? column_block : row_block]);
    nearest<T>(merge, 0, by_column ? (columns + kPiece - 1) / kPiece : rows);
  }
}

// Blocks in order of their distance from the diagonal: threads that work on neighbouring ones have no lists
// in common.
template <typename T>
void search(const Search& call, std::int64_t begin, std::int64_t end) {
  std::int64_t row_block = begin, distance = 0;
  for (; row_block >= call.blocks() - distance; ++distance) row_block -= call.blocks() - distance;
  for (std::int64_t item = begin; item < end; ++item) {
    search_block<T>(call, row_block, row_block + distance);
    if (++row_block == call.blocks() - distance) row_block = 0, ++distance;
  }
}

inline std::int64_t packed_rows(std::int64_t items, DataType type) {
  const std::int64_t width = type == DataType::kFloat64 ? kGroup<double> : kGroup<float>;
  return (items + width - 1) / width * width;
}
inline std::int64_t items_of(const Pack& call) {
  return packed_rows(call.items, call.type) / packed_rows(1, call.type);
}
inline void run(const Pack& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t group = begin; group < end; ++group) {
    call.type == DataType::kFloat64 ? pack<double>(call, group) : pack<float>(call, group);
  }
}
inline void run(const Search& call, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? search<double>(call, begin, end) : search<float>(call, begin, end);
}
inline void run(const Products& call, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? products<double>(call, begin, end) : products<float>(call, begin, end);
}
