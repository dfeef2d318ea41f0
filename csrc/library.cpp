// Every operator's schema on one page: the table of contents.
//
// Implementations register themselves in csrc/<op>/ops.cpp; shapes for tracing (fake kernels) and
// gradients are registered in reid_ops/<op>.py.
#include "common/torch_glue.h"

STABLE_TORCH_LIBRARY(REID_OPS_LIBRARY, library) {
  // (signal [N,C,H,W], parts [M,P,C,kh,kw], pairs [B,2] or None, pool, argmax wanted)
  //   -> output [B, P*C, ceil(H/pool), ceil(W/pool)], argmax like output (int16) or empty
  library.def(
      "part_correlation(Tensor signal, Tensor parts, Tensor? pairs, int pool, bool with_argmax)"
      " -> (Tensor, Tensor)");
  // Gradients of the above. `order`: the pairs sorted by signal row (by parts row), None without pairs.
  library.def(
      "part_correlation_grad_signal(Tensor grad_output, Tensor? argmax, Tensor parts, Tensor? pairs,"
      " Tensor? order, int signal_rows, int height, int width, int pool) -> Tensor");
  library.def(
      "part_correlation_grad_parts(Tensor grad_output, Tensor? argmax, Tensor signal, Tensor? pairs,"
      " Tensor? order, int part_rows, int kernel_height, int kernel_width, int pool) -> Tensor");
  // Both at once: (gradient of signal, gradient of parts), without pairs.
  library.def(
      "part_correlation_backward(Tensor grad_output, Tensor? argmax, Tensor signal, Tensor parts, int pool)"
      " -> (Tensor, Tensor)");

  // k-reciprocal re-ranking: stages over N items with K neighbours each (csrc/k_reciprocal/kernels.h).
  // Merges a block of distances, or of products and squared norms, into the K nearest found so far.
  library.def(
      "k_reciprocal_nearest(Tensor block, Tensor? row_terms, Tensor? column_terms, int measure,"
      " int squarings, bool by_column, int first_candidate, int self_candidate, Tensor(a!) distances,"
      " Tensor(b!) indices, Tensor(c!) largest) -> ()");
  // neighbours [N,K] int32 -> at which place each neighbour has the item itself, [N,K] int32
  library.def("k_reciprocal_reverse_ranks(Tensor neighbours) -> Tensor");
  // Sizes [N] int64, and with their running sum the members, of the expanded sets R*.
  library.def("k_reciprocal_set_sizes(Tensor neighbours, Tensor reverse, int list, int half) -> Tensor");
  library.def(
      "k_reciprocal_sets(Tensor neighbours, Tensor reverse, Tensor offsets, int entries, int list, int half)"
      " -> Tensor");
  // features [N,D], offsets [N+1], columns [E] -> squared distances [E]
  library.def("k_reciprocal_pair_distances(Tensor features, Tensor offsets, Tensor columns) -> Tensor");
  // distances [E], scale [N], offsets [N+1] -> weights [E]
  library.def("k_reciprocal_encode(Tensor distances, Tensor scale, Tensor offsets) -> Tensor");
  // Means of the rows of the first `members` neighbours: sizes [N], then (columns, weights).
  library.def(
      "k_reciprocal_expand_sizes(Tensor neighbours, Tensor offsets, Tensor columns, int members) -> Tensor");
  library.def(
      "k_reciprocal_expand(Tensor neighbours, Tensor offsets, Tensor columns, Tensor weights, int members,"
      " Tensor expanded_offsets, int entries) -> (Tensor, Tensor)");
  // Inverted lists of the rows from first_row on: sizes [N], then (rows less first_row, weights).
  library.def("k_reciprocal_invert_sizes(Tensor offsets, Tensor columns, int first_row) -> Tensor");
  library.def(
      "k_reciprocal_invert(Tensor offsets, Tensor columns, Tensor weights, int first_row,"
      " Tensor list_offsets, int entries) -> (Tensor, Tensor)");
  // A block of distances becomes the block of re-ranked distances.
  library.def(
      "k_reciprocal_blend(Tensor(a!) block, Tensor? row_terms, Tensor? column_terms, int measure,"
      " int squarings, Tensor? scale, Tensor offsets, Tensor columns, Tensor weights, int first_row,"
      " Tensor list_offsets, Tensor list_rows, Tensor list_weights, Tensor? row_sums, Tensor? column_sums,"
      " float lambda_value) -> ()");
}

#if !defined(REID_OPS_EMULATION)
#include <Python.h>

// `import reid_ops._C` only loads the library, which registers the operators above.
extern "C" PyMODINIT_FUNC PyInit__C(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
#endif
