// k_reciprocal on the CPU: distances of listed pairs, and rows of re-ranked distances.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// sum (x - y)^2, in one fixed order: equal features are at distance exactly 0.
template <typename T>
REID_OPS_INLINE T squared_distance(const T* x, const T* y, std::int64_t dimension) {
  Vector<T> sums[4] = {};
  std::int64_t k = 0;
  for (; k + 4 * kLanes<T> <= dimension; k += 4 * kLanes<T>) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const Vector<T> difference = load(x + k + part * kLanes<T>) - load(y + k + part * kLanes<T>);
      sums[part] += difference * difference;
    }
  }
  T total = 0;
  for (; k < dimension; ++k) total += (x[k] - y[k]) * (x[k] - y[k]);
  const Vector<T> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int lane = 0; lane < kLanes<T>; ++lane) total += sum[lane];
  return total;
}

template <typename T>
void pair_distances(const PairDistances& call, std::int64_t begin, std::int64_t end) {
  const T* features = static_cast<const T*>(call.features);
  for (std::int64_t item = begin; item < end; ++item) {
    for (std::int64_t e = call.offsets[item]; e < call.offsets[item + 1]; ++e) {
      const std::int64_t other = call.columns[e];
      static_cast<T*>(call.distances)[e] =
          other < 0 || other >= call.items
              ? std::numeric_limits<T>::infinity()
              : squared_distance(features + item * call.dimension, features + other * call.dimension,
                                 call.dimension);
    }
  }
}

template <typename T>
void blend(const Blend& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = call.block.columns;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(columns) + CpuScratch::bytes_of<T>(kPiece));
  T* const shared = scratch.take<T>(columns);
  T* const piece = scratch.take<T>(kPiece);
  const T* column_sums = static_cast<const T*>(call.column_sums);
  const T* weights = static_cast<const T*>(call.rows.weights);
  const T* inverse_weights = static_cast<const T*>(call.inverse.weights);
  const T lambda = static_cast<T>(call.lambda), rest = static_cast<T>(1 - call.lambda);
  const Measured<T> measured = {call.block};
  for (std::int64_t row = begin; row < end; ++row) {
    std::fill(shared, shared + columns, T(0));
    const std::int64_t item = call.first_row + row;
    for (std::int64_t e = call.rows.offsets[item]; e < call.rows.offsets[item + 1]; ++e) {
      const std::int64_t column = call.rows.columns[e];
      const T weight = weights[e];
      for (std::int64_t k = call.inverse.offsets[column]; k < call.inverse.offsets[column + 1]; ++k) {
        shared[call.inverse.columns[k]] += std::min(weight, inverse_weights[k]);
      }
    }
    T* output = static_cast<T*>(call.output) + row * call.block.stride;
    const T factor = call.scale == nullptr ? lambda : lambda * static_cast<const T*>(call.scale)[row];
    for (std::int64_t first = 0; first < columns; first += kPiece) {
      const std::int64_t count = std::min(kPiece, columns - first);
      if (call.block.measure == Measure::kNone) {
        std::fill(piece, piece + count, T(0));
      } else {
        measured(row, first, count, piece);
      }
      if (call.row_sums == nullptr) {
        for (std::int64_t k = 0; k < count; ++k) {
          const T jaccard = T(1) - shared[first + k] / (T(2) - shared[first + k]);
          output[first + k] = rest * (jaccard > T(0) ? jaccard : T(0)) + factor * piece[k];
        }
      } else {
        const T row_sum = static_cast<const T*>(call.row_sums)[row];
        for (std::int64_t k = 0; k < count; ++k) {
          const T both = row_sum + column_sums[first + k] - shared[first + k];
          const T jaccard = both > T(0) ? T(1) - shared[first + k] / both : T(1);
          output[first + k] = rest * (jaccard > T(0) ? jaccard : T(0)) + factor * piece[k];
        }
      }
    }
  }
}
