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
  // The gradients of signal and parts that the mask wants, empty tensors for the others. Of an operand whose
  // other gradient is not wanted only the shape counts. The orders: with pairs, these sorted by signal row
  // (by parts row), each for its gradient.
  library.def(
      "part_correlation_backward(Tensor grad_output, Tensor? argmax, Tensor signal, Tensor parts,"
      " Tensor? pairs, Tensor? signal_order, Tensor? part_order, int pool, bool[2] mask) -> (Tensor, "
      "Tensor)");

  // (images [N,C,H,W], the seed as an int or as an int64 tensor that the kernel reads, whose second element,
  //  if any, is added to the number of the first image, that number, the rule's integers, the fills'
  //  values, mask wanted)
  //   -> [images erased,] mask [N,H,W] bool or empty, attempts [N] int32: 0 not drawn, -1 none fitted
  library.def(
      "polygon_erase(Tensor images, Tensor? seed_tensor, SymInt seed, SymInt first_index, int[] rule,"
      " float[] values, bool with_mask) -> (Tensor, Tensor, Tensor)");
  library.def(
      "polygon_erase_(Tensor(a!) images, Tensor? seed_tensor, SymInt seed, SymInt first_index, int[] rule,"
      " float[] values, bool with_mask) -> (Tensor, Tensor)");

  // (images uint8 [N,C,H,W] of any strides, the valid size of each image [N,2] int64 or None, seed and
  //  first image as above, size of the crop, padding, flip's threshold, mean and std of each channel, and
  //  for rectangles and for polygons the rule's integers, or none, and the constants) -> [N,C,h,w]
  library.def(
      "augment(Tensor images, Tensor? sizes, Tensor? seed_tensor, SymInt seed, SymInt first_index, int "
      "height,"
      " int width, int pad, int flip, float[] mean, float[] std, int[] rectangle, float[] rectangle_values,"
      " int[] polygon, float[] polygon_values, ScalarType dtype) -> Tensor");

  // Neighbour graphs. values [B,H,W], theta [T,H,W] (row b % T belongs to b) -> ((I + E) v) * theta, and
  // (I + E) v where wanted, else empty. A chain is a grid of one row.
  library.def(
      "similarity_graph(Tensor values, Tensor? theta, int radius_squared, bool include_self, int edges,"
      " bool with_aggregate) -> (Tensor, Tensor)");
  library.def(
      "similarity_graph_backward(Tensor grad_output, Tensor values, Tensor? theta, int radius_squared,"
      " bool include_self, int edges) -> Tensor");

  // HSGM. Level l has rows[l] x columns[l] of all G maps. "Real": float64 for float64 features, else float32.
  // squeeze, once read: features [N,C,H,W] -> mean over channels [N,H,W], over each map's pixels [N,G,C].
  library.def("similarity_graph_squeeze(Tensor features, int[] rows, int[] columns) -> (Tensor, Tensor)");
  // squeezed, theta [L,K,H,W] -> a less its mean [N,L,H,W], that mean and the sum of squares [N,G] (float64),
  //   and for backward the pooled and the aggregated nodes [N,L,K,H,W].
  library.def(
      "similarity_graph_nodes(Tensor squeezed, Tensor theta, int[] rows, int[] columns, int[] scales,"
      " int pooling, int radius_squared, bool include_self, int edges) -> (Tensor, Tensor, Tensor, Tensor,"
      " Tensor)");
  library.def(
      "similarity_graph_nodes_backward(Tensor sums, Tensor centred, Tensor offset, Tensor slope,"
      " Tensor pooled, Tensor theta, int[] rows, int[] columns, int[] scales, int pooling,"
      " int radius_squared, bool include_self, int edges) -> (Tensor, Tensor)");
  // Batch norm of the product in closed form. channel [N,G,C] -> mean and variance [G,C] (float64);
  //   with the mean and 1 / sigma -> scale and shift [N,G,C]; and the gradients.
  library.def(
      "similarity_graph_statistics(Tensor channel, Tensor mean, Tensor spread, int height, int width,"
      " int[] rows, int[] columns) -> (Tensor, Tensor)");
  library.def(
      "similarity_graph_affine(Tensor channel, Tensor mean, Tensor weight, Tensor bias, Tensor batch_mean,"
      " Tensor inverse, int height, int width, int[] rows, int[] columns) -> (Tensor, Tensor)");
  library.def(
      "similarity_graph_affine_sums(Tensor total, Tensor moment, Tensor channel, Tensor mean,"
      " Tensor weight, Tensor batch_mean, Tensor inverse, int height, int width, int[] rows, int[] columns)"
      " -> (Tensor, Tensor)");
  library.def(
      "similarity_graph_affine_backward(Tensor total, Tensor moment, Tensor channel, Tensor mean,"
      " Tensor spread, Tensor weight, Tensor batch_mean, Tensor inverse, Tensor mean_total,"
      " Tensor mean_moment, int height, int width, int[] rows, int[] columns) -> (Tensor, Tensor, Tensor)");
  // excite, one read and one write: residual * x + factor * sum_levels leaky(scale * centred + shift).
  library.def(
      "similarity_graph_excite(Tensor features, Tensor centred, Tensor scale, Tensor shift, int[] rows,"
      " int[] columns, float residual, float factor, float negative_slope) -> Tensor");
  // Its backward in one read -> sums over channels [N,L,H,W], over each map's pixels [N,G,C], and the latter
  //   weighted by centred; then dX in one read and one write.
  library.def(
      "similarity_graph_sums(Tensor grad_y, Tensor centred, Tensor scale, Tensor shift, int[] rows,"
      " int[] columns, float factor, float negative_slope) -> (Tensor, Tensor, Tensor)");
  library.def(
      "similarity_graph_input(Tensor grad_y, Tensor? grad_squeezed, Tensor? grad_means, int[] rows,"
      " int[] columns, float residual) -> Tensor");
  // The whole forward pass with given statistics and no gradient. Theta or delta None: no such graph.
  library.def(
      "similarity_graph_evaluate(Tensor features, Tensor? theta, Tensor? delta, Tensor weight, Tensor bias,"
      " Tensor batch_mean, Tensor inverse, int[] rows, int[] columns, int[] scales, int pooling,"
      " int radius_squared, int channel_radius_squared, bool include_self, int edges, int channel_edges,"
      " float residual, float factor, float negative_slope) -> Tensor");
  // (x [N,C,H,W], stripes, argmax wanted) -> maximum and mean of every window [N,windows,2,C], and the
  //   maxima's positions in the map [N,windows,C] int32 or empty. Windows: csrc/stripe_pool/kernels.h.
  library.def("stripe_pool(Tensor x, int stripes, bool with_argmax) -> (Tensor, Tensor)");
  // -> the gradient of x, one write, channels-last in memory where asked.
  library.def(
      "stripe_pool_backward(Tensor grad_output, Tensor argmax, int stripes, SymInt height, SymInt width,"
      " bool channels_last) -> Tensor");

  // k-reciprocal re-ranking: stages over N items with K neighbours each (csrc/k_reciprocal/kernels.h).
  // Merges a block of distances, or of products and squared norms, into the K nearest found so far.
  library.def(
      "k_reciprocal_nearest(Tensor block, Tensor? row_terms, Tensor? column_terms, int measure,"
      " int squarings, bool by_column, int first_candidate, int self_candidate, Tensor(a!) distances,"
      " Tensor(b!) indices, Tensor(c!) largest) -> ()");
  // Two that the CPU alone has. products [M,N] of rows [M,D] with columns [N,D], each summed in the search's
  //   order: who is among the nearest, and among near copies, must not depend on which of the two found it,
  //   nor on the threads, as it would with the products of the BLAS that torch happens to have.
  library.def("k_reciprocal_products(Tensor rows, Tensor columns, Tensor(a!) output) -> ()");
  // The nearest from features [N,D] alone, all pairs in one parallel region: no block of distances is written
  //   and read again, nor are threads woken block by block (csrc/k_reciprocal/search.h).
  //   products [Q,N-Q] receives those of the first rows with the rest.
  library.def(
      "k_reciprocal_search(Tensor features, Tensor(a!)? products, Tensor(b!) distances, Tensor(c!) indices,"
      " Tensor(d!) largest) -> ()");
  // neighbours [N,K] int32 -> at which place each neighbour has the item itself, [N,K] int32
  library.def("k_reciprocal_reverse_ranks(Tensor neighbours) -> Tensor");
  // Three stages with sparse results are called twice: without the result's offsets they count its rows'
  //   sizes [N] int64; with their running sum [N+1] and last element, `entries`, they fill it.
  // The expanded sets R*: sizes, or members.
  library.def(
      "k_reciprocal_sets(Tensor neighbours, Tensor reverse, Tensor? offsets, int entries, int list, int half)"
      " -> Tensor");
  // features [N,D], offsets [N+1], columns [E] -> squared distances [E]
  library.def("k_reciprocal_pair_distances(Tensor features, Tensor offsets, Tensor columns) -> Tensor");
  // distances [E], scale [N], offsets [N+1] -> weights [E]
  library.def("k_reciprocal_encode(Tensor distances, Tensor scale, Tensor offsets) -> Tensor");
  // Means of the rows of the first `members` neighbours: (sizes, nothing), or (columns, weights).
  library.def(
      "k_reciprocal_expand(Tensor neighbours, Tensor offsets, Tensor columns, Tensor? weights, int members,"
      " Tensor? expanded_offsets, int entries) -> (Tensor, Tensor)");
  // Inverted lists of the rows from first_row on: (sizes, nothing), or (rows less first_row, weights).
  library.def(
      "k_reciprocal_invert(Tensor offsets, Tensor columns, Tensor? weights, int first_row,"
      " Tensor? list_offsets, int entries) -> (Tensor, Tensor)");
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
