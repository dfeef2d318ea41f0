// One node of a similarity graph and its gradient: the arithmetic that CPU and CUDA share.
//
// T is what is computed at a time: one node (float, double) or, on the CPU, a vector of nodes. No
// include guard: cpu_kernels.h includes it once per instruction set. The includer defines before it
// REID_OPS_NODE (function qualifiers), REID_OPS_NODE_LAMBDA (a lambda's), Element<T> (a lane's type)
// and exponential(T).
//
// With the weights w_ij = exp(x_ij - max_j x_ij) / Z_i of a row of E (Eq. 3), where
//   softmax: x_ij = v_j    product: x_ij = v_i v_j    negdist: x_ij = -|v_i - v_j|
// and `printed` w_ij = exp(v_i - max) / Z_i with the softmax's Z_i, a node's result is
//   u_i = v_i + m_i,   m_i = sum_j w_ij v_j.
// Its gradient, gathered by node j from its neighbours i (the relation is symmetric), is
//   dv_j = g_j (1 + own_j) + sum_i g_i t_ij
//   softmax, product, negdist: t_ij = w_ij (1 + (v_j - m_i) dx_ij/dv_j),  own_i = sum_j w_ij (v_j - m_i)
//   dx_ij/dv_i printed: t_ij = w_ij - m_i exp(v_j - max) / Z_i,  own_i = m_i

template <typename T>
struct Row {
  T shift;    // max_j x_ij
  T inverse;  // 1 / Z_i; 0 for a node without neighbours
  T mean;     // m_i
};

template <typename T>
REID_OPS_NODE T constant(double value) {
  return T{} + static_cast<Element<T>>(value);
}

template <typename T>
REID_OPS_NODE T logit(T own, T other, Edges edges) {
  if (edges == Edges::kProduct) return own * other;
  if (edges == Edges::kNegativeDistance) return own > other ? other - own : own - other;
  return other;
}

template <typename T>
REID_OPS_NODE T sign_of(T value) {
  const T zero{}, one = constant<T>(1);
  return value > zero ? one : (value < zero ? -one : zero);
}

// each(f) calls f(v_j, exists) for all neighbours of the node `own`.
template <typename T, typename Each>
REID_OPS_NODE Row<T> row_of(T own, Edges edges, const Each& each) {
  const T zero{}, one = constant<T>(1);
  T shift = constant<T>(-kLargest<Element<T>>);
  each([&](T other, auto exists) REID_OPS_NODE_LAMBDA {
    const T x = logit(own, other, edges);
    const T larger = x > shift ? x : shift;
    shift = exists ? larger : shift;
  });
  T total{}, weighted{};
  each([&](T other, auto exists) REID_OPS_NODE_LAMBDA {
    const T weight = exponential(logit(own, other, edges) - shift);
    const T term = edges == Edges::kPrinted ? other : weight * other;
    total = exists ? total + weight : total;
    weighted = exists ? weighted + term : weighted;
  });
  const T inverse = total == zero ? zero : one / total;
  T mean = weighted * inverse;
  if (edges == Edges::kPrinted) {
    const T ratio = exponential(own - shift) * inverse;
    mean = total == zero ? zero : weighted * ratio;
  }
  return {shift, inverse, mean};
}

// own_i, given the node's row.
template <typename T, typename Each>
REID_OPS_NODE T own_derivative(T own, const Row<T>& row, Edges edges, const Each& each) {
  T result{};
  if (edges == Edges::kNone || edges == Edges::kSoftmax) return result;
  if (edges == Edges::kPrinted) return row.mean;
  each([&](T other, auto exists) REID_OPS_NODE_LAMBDA {
    const T weight = exponential(logit(own, other, edges) - row.shift) * row.inverse;
    const T slope = edges == Edges::kProduct ? other : -sign_of(own - other);
    result = exists ? result + weight * (other - row.mean) * slope : result;
  });
  return result;
}

// t_ij of a node i with `row`, for its neighbour j.
template <typename T>
REID_OPS_NODE T derivative_by_neighbor(T own, const Row<T>& row, T other, Edges edges) {
  const T weight = exponential(logit(own, other, edges) - row.shift) * row.inverse;
  if (edges == Edges::kPrinted) return exponential(own - row.shift) * row.inverse - row.mean * weight;
  const T one = constant<T>(1);
  T slope = one;
  if (edges == Edges::kProduct) slope = own;
  if (edges == Edges::kNegativeDistance) slope = sign_of(own - other);
  return weight * (one + (other - row.mean) * slope);
}
