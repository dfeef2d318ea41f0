// The loops over a row of distances, written for the compiler's vectoriser. Included once per
// instruction set by ranking.cpp; no include guard.

namespace reid_ops::ranking::REID_OPS_ISA {

// Counters as wide as the values, so that a vector of comparisons is added without widening.
template <typename Real>
struct Counter;
template <>
struct Counter<float> {
  using type = std::int32_t;
};
template <>
struct Counter<double> {
  using type = std::int64_t;
};

// Sizes are below 2^31: callers pass tiles.
template <typename Real>
std::int64_t count_below(const Real* values, std::int64_t size, Real threshold) {
  typename Counter<Real>::type count = 0;
  for (std::int64_t i = 0; i < size; ++i) count += values[i] < threshold ? 1 : 0;
  return count;
}

template <typename Real>
std::int64_t count_up_to(const Real* values, std::int64_t size, Real threshold) {
  typename Counter<Real>::type count = 0;
  for (std::int64_t i = 0; i < size; ++i) count += values[i] <= threshold ? 1 : 0;
  return count;
}

template <typename Real>
bool has_nan(const Real* values, std::int64_t size) {
  typename Counter<Real>::type count = 0;
  for (std::int64_t i = 0; i < size; ++i) count += values[i] != values[i] ? 1 : 0;
  return count != 0;
}

}  // namespace reid_ops::ranking::REID_OPS_ISA
