// k_reciprocal on the CPU: blocks of distances merged into lists of the nearest.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// Distances are worked on in pieces that stay in the first-level cache.
constexpr std::int64_t kPiece = 256;

template <typename T>
REID_OPS_INLINE Vector<T> load(const T* source) {
  return load_widened<T, T>(source);
}
template <typename T>
REID_OPS_INLINE void store(T* destination, Vector<T> value) {
  store_narrowed<T, T>(destination, value);
}

// `count` <= kPiece distances of `row` from `column` on. V: a vector or, for the last few, one element.
template <typename T>
struct Measured {
  const Block& block;

  template <typename V>
  REID_OPS_INLINE V squared(V value) const {
    for (std::int64_t time = 0; time < block.squarings; ++time) value = value * value;
    return value;
  }

  void operator()(std::int64_t row, std::int64_t column, std::int64_t count, T* result) const {
    const T* values = static_cast<const T*>(block.values) + row * block.stride + column;
    if (block.measure == Measure::kGiven) {
      std::int64_t k = 0;
      for (; k + kLanes<T> <= count; k += kLanes<T>) store(result + k, squared(load(values + k)));
      for (; k < count; ++k) result[k] = squared(values[k]);
      return;
    }
    const T a = static_cast<const T*>(block.row_terms)[row];
    const T* b = static_cast<const T*>(block.column_terms) + column;
    std::int64_t k = 0;
    if (block.measure == Measure::kEuclidean) {
      for (; k + kLanes<T> <= count; k += kLanes<T>) {
        const Vector<T> difference = (a + load(b + k)) - T(2) * load(values + k);
        store(result + k, squared(difference > T(0) ? difference : Vector<T>{}));
      }
      for (; k < count; ++k) {
        const T difference = (a + b[k]) - T(2) * values[k];
        result[k] = squared(difference > T(0) ? difference : T(0));
      }
    } else {
      for (; k + kLanes<T> <= count; k += kLanes<T>) {
        store(result + k, squared(T(1) - load(values + k) * a * load(b + k)));
      }
      for (; k < count; ++k) result[k] = squared(T(1) - values[k] * a * b[k]);
    }
  }
};

// One item's list: ascending distances, and of equal ones ascending numbers. Takes a candidate in if it is
// nearer than the list's end, or as near and of a lower number.
template <typename T>
REID_OPS_INLINE void insert(T* distances, std::int32_t* indices, std::int64_t length, T distance,
                            std::int32_t index) {
  std::int64_t place = length - 1;
  const auto before = [&](std::int64_t other) {
    return distance < distances[other] || (distance == distances[other] && index < indices[other]);
  };
  if (!before(place)) return;
  for (; place > 0 && before(place - 1); --place) {
    distances[place] = distances[place - 1];
    indices[place] = indices[place - 1];
  }
  distances[place] = distance;
  indices[place] = index;
}

template <typename T>
void nearest_in_row(const Nearest& call, std::int64_t item) {
  const std::int64_t length = call.neighbours, columns = call.block.columns;
  T* distances = static_cast<T*>(call.distances) + item * length;
  std::int32_t* indices = call.indices + item * length;
  const Measured<T> measured = {call.block};
  const std::int64_t self = call.self_candidate + item - call.first_candidate;  // a column, or far outside
  T threshold = distances[length - 1], largest = static_cast<T*>(call.largest)[item];
  alignas(REID_OPS_VECTOR_BYTES) T piece[kPiece];
  for (std::int64_t column = 0; column < columns; column += kPiece) {
    const std::int64_t count = std::min(kPiece, columns - column);
    measured(item, column, count, piece);
    if (self >= column && self < column + count) piece[self - column] = T(0);
    // Most pieces hold nothing near enough: their extremes say so without a look at every element.
    Vector<T> low = Vector<T>{} + threshold, high = Vector<T>{} + largest;
    std::int64_t k = 0;
    for (; k + kLanes<T> <= count; k += kLanes<T>) {
      const Vector<T> value = load_aligned(piece + k);
      low = value < low ? value : low;
      high = value > high ? value : high;
    }
    T least = threshold;
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      least = std::min(least, low[lane]);
      largest = std::max(largest, high[lane]);
    }
    for (; k < count; ++k) least = std::min(least, piece[k]), largest = std::max(largest, piece[k]);
    if (!(least < threshold || (call.any_order && least == threshold))) continue;
    for (k = 0; k < count; ++k) {
      if (piece[k] <= threshold) {
        insert(distances, indices, length, piece[k],
               static_cast<std::int32_t>(call.first_candidate + column + k));
        threshold = distances[length - 1];
      }
    }
  }
  static_cast<T*>(call.largest)[item] = largest;
}

// Items are columns: a stripe of them walks down the rows together.
template <typename T>
void nearest_in_stripe(const Nearest& call, std::int64_t first) {
  const std::int64_t length = call.neighbours, count = std::min(kPiece, call.block.columns - first);
  T* distances = static_cast<T*>(call.distances) + first * length;
  std::int32_t* indices = call.indices + first * length;
  T* largest = static_cast<T*>(call.largest) + first;
  const Measured<T> measured = {call.block};
  alignas(REID_OPS_VECTOR_BYTES) T threshold[kPiece], piece[kPiece];
  for (std::int64_t k = 0; k < count; ++k) threshold[k] = distances[(k + 1) * length - 1];
  for (std::int64_t row = 0; row < call.block.rows; ++row) {
    measured(row, first, count, piece);
    const std::int64_t self = call.first_candidate + row - call.self_candidate - first;
    if (self >= 0 && self < count) piece[self] = T(0);
    auto nearer = Vector<T>{} < Vector<T>{};  // all false
    std::int64_t k = 0;
    for (; k + kLanes<T> <= count; k += kLanes<T>) {
      const Vector<T> value = load_aligned(piece + k), high = load(largest + k);
      nearer |= call.any_order ? value <= load_aligned(threshold + k) : value < load_aligned(threshold + k);
      store(largest + k, value > high ? value : high);
    }
    bool any = false;
    for (int lane = 0; lane < kLanes<T>; ++lane) any |= nearer[lane] != 0;
    for (; k < count; ++k) {
      any |= piece[k] < threshold[k] || (call.any_order && piece[k] == threshold[k]);
      largest[k] = std::max(largest[k], piece[k]);
    }
    if (!any) continue;
    for (k = 0; k < count; ++k) {
      if (piece[k] <= threshold[k]) {
        insert(distances + k * length, indices + k * length, length, piece[k],
               static_cast<std::int32_t>(call.first_candidate + row));
        threshold[k] = distances[(k + 1) * length - 1];
      }
    }
  }
}

template <typename T>
void nearest(const Nearest& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    if (call.by_column) {
      nearest_in_stripe<T>(call, item * kPiece);
    } else {
      nearest_in_row<T>(call, item);
    }
  }
}
