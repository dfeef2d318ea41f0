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
