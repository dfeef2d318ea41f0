// similarity_graph on the CPU: what graph_core.h asks for, with vectors of nodes.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

#define REID_OPS_NODE REID_OPS_INLINE
#define REID_OPS_NODE_LAMBDA __attribute__((always_inline))

template <typename V>
using Element = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V>()[0])>>;

// exp for a vector of floats: x = n ln 2 + r, a polynomial for exp(r) (Cephes' coefficients, below
// 2 ulp), and 2^n in two factors so that results may be subnormal or infinite. NaN stays NaN.
REID_OPS_INLINE Vector<float> exponential(Vector<float> x) {
  typedef Vector<std::int32_t> Integers;
  const Vector<float> zero = {};
  const Vector<float> low = zero - 104.0f, high = zero + 89.0f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Vector<float> magic = zero + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vector<float> shifted = x * 1.44269504f + magic;
  const Vector<float> n = shifted - magic;
  const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector<float> p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Integers exponent = (Integers)shifted - (Integers)magic;
  const Integers half = exponent >> 1;
  const Vector<float> first = (Vector<float>)((half + 127) << 23);
  const Vector<float> second = (Vector<float>)((exponent - half + 127) << 23);
  return p * first * second;
}

REID_OPS_INLINE Vector<double> exponential(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}
