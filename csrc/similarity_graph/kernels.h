// similarity_graph: the contract between the torch-aware file (ops.cpp) and the kernels (cpu.cpp,
// cuda.cu). Plain pointers and sizes, no torch header. docs/hsgm.md derives the formulas.
//
// HSGM (HSGNet, Eqs. 1-11) adds to features x, for every level l of maps g, the batch-normalised
// rank-one product of a spatial vector a (one value a pixel) and a channel vector b:
//
//   y = k * x + s * sum_l leaky(scale[n,g,c] * a[n,l,p] + shift[n,g,c])     g = map of level l at pixel p
//
// where a has its mean over the map taken off. Everything of the size of x is in Squeeze, Excite,
// Sums and Input; the rest are small. `Real` below is double for float64 features, else float.
#pragma once

#include <cstdint>

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "common/data_type.h"
#include "similarity_graph/geometry.h"

namespace reid_ops::similarity_graph {

constexpr int kChannelChunk = 128;  // channels whose contributions to a pixel are added up at a time

enum class Edges : int { kNone = 0, kSoftmax = 1, kPrinted = 2, kProduct = 3, kNegativeDistance = 4 };

// Node j is a neighbour of i when their squared distance on the grid is at most radius_squared.
struct Neighborhood {
  int radius_squared;
  int reach;  // floor(sqrt(radius_squared))
  bool include_self;
  Edges edges;
};

// ------------------------------------------------------------------ graphs (Eqs. 3-5, 8)

struct Graph {
  std::int64_t batch, theta_rows;
  int height, width;
  Neighborhood neighborhood;
  bool is_double;
  const void* values;  // in   Real [batch, height, width]
  const void* theta;   // in   Real [theta_rows, height, width], row b % theta_rows belongs to b; or nullptr
  void* output;        // out  Real like values: ((I + E) v) * theta
  void* aggregate;     // out  Real like values: (I + E) v; or nullptr
};

struct GraphBackward {
  Graph graph;              // its outputs are not used
  const void* grad_output;  // in   Real like values
  void* rows;               // work Real [4, batch, height, width]
  void* grad_values;        // out  Real like values
};

// All maps' spatial graphs over all scales, summed over the scales, mean taken off (Eqs. 2-6).
struct Nodes {
  Geometry geometry;
  Neighborhood neighborhood;
  Pooling pooling;
  int scales;
  int scale[kMaxScales];
  bool is_double;
  const void* squeezed;  // in   Real [N, H, W]
  const void* theta;     // in   Real [L, K, H, W]
  void* centred;         // out  Real [N, L, H, W]
  double* mean;          // out  [N, G]         double: the mean may be much larger than what is left
  double* spread;        // out  [N, G]         sum over the map of centred squared
  void* pooled;          // work Real [N, L, K, H, W]   AP_k(S)
  void* aggregate;       // out  Real [N, L, K, H, W]   (I + E) AP_k(S)
};

struct NodesBackward {
  Nodes nodes;          // its outputs are not used; `centred` is read
  const void* sums;     // in   Real [N, L, H, W]   P: sum over channels of scale * d
  const void* offset;   // in  Real [N, G]   what batch norm's statistics take off: offset + slope * centred
  const void* slope;    // in   Real [N, G]
  void* rows;           // work Real [4, N, L, K, H, W]
  void* grad_pooled;    // work Real [N, L, K, H, W]
  void* grad_nodes;     // out  Real [N, L, H, W]   gradient of sum_k aggregate * theta
  void* grad_squeezed;  // out Real [N, L, H, W]   a level's share of the gradient of S
};

// ------------------------------------------------------------------ batch norm in closed form (Eq. 10)

struct Statistics {  // mean and (biased) variance of a * b over images and pixels, by the law of total
                     // variance
  Geometry geometry;
  bool is_double;
  const void* channel;     // in   Real [N, G, C]   b
  const double* mean;      // in   [N, G]
  const double* spread;    // in   [N, G]
  double* batch_mean;      // out  [G, C]
  double* batch_variance;  // out [G, C]
};

struct Affine {  // scale = b * weight / sigma, shift = (b * mean - mu) * weight / sigma + bias
  Geometry geometry;
  bool is_double;
  const void* channel;       // in   Real [N, G, C]
  const double* mean;        // in   [N, G]
  const void* weight;        // in   Real [G, C]
  const void* bias;          // in   Real [G, C]
  const double* batch_mean;  // in [G, C]   mu
  const double* inverse;     // in [G, C]   1 / sigma
  void* scale;               // out  Real [N, G, C]
  void* shift;               // out  Real [N, G, C]
};

// With d = dY * s * leaky', T = sum_p d, Q = sum_p d * centred, and zhat the normalised product:
struct AffineSums {     // grad_bias = sum_n T; grad_weight = sum_n,p d * zhat
  Affine affine;        // its outputs are not used
  const void* total;    // in   Real [N, G, C]   T
  const void* moment;   // in  Real [N, G, C]   Q
  double* grad_weight;  // out [G, C]
  double* grad_bias;    // out [G, C]
};

struct AffineBackward {
  Affine affine;
  const double* spread;       // in [N, G]
  const void* total;          // in   Real [N, G, C]
  const void* moment;         // in   Real [N, G, C]
  const double* mean_total;   // in [G, C]  grad_bias / M, M = images * pixels of a map; 0 in evaluation
  const double* mean_moment;  // in [G, C]  grad_weight / M
  void* grad_channel;         // out  Real [N, G, C]
  void* offset;               // out  Real [N, G]
  void* slope;                // out  Real [N, G]
};

// ------------------------------------------------------------------ passes over the features

struct Features {
  Geometry geometry;
  DataType type;
  bool channels_last;  // [N, H, W, C] in memory, else [N, C, H, W]; always dense
  REID_OPS_HOST_DEVICE std::int64_t chunks() const {
    return (geometry.channels + kChannelChunk - 1) / kChannelChunk;
  }
};

struct Squeeze {  // Eqs. 1 and 7: one read of x
  Features features;
  const void* x;      // in
  void* partial;      // work Real [N, chunks, H, W]
  void* region_sums;  // work Real [N, regions, C]
  void* squeezed;     // out  Real [N, H, W]   mean over channels
  void* means;        // out  Real [N, G, C]   mean over a map's pixels
};

struct Excite {  // Eqs. 9-11 and the sum over levels: one read, one write
  Features features;
  double residual;  // k
  double factor;    // s
  double negative_slope;
  const void* x;        // in
  const void* centred;  // in   Real [N, L, H, W]
  const void* scale;    // in   Real [N, G, C]
  const void* shift;    // in   Real [N, G, C]
  void* y;              // out  like x
};

struct Sums {           // all sums of the backward pass: one read of dY
  Excite excite;        // x is dY, y is not used
  void* partial;        // work Real [N, chunks, L, H, W]
  void* region_total;   // work Real [N, regions, L, C]
  void* region_moment;  // work Real [N, regions, L, C]
  void* sums;           // out  Real [N, L, H, W]   P
  void* total;          // out  Real [N, G, C]      T
  void* moment;         // out  Real [N, G, C]      Q
};

struct Input {  // dX = k * dY + dS / C + dMeans / pixels: one read, one write
  Features features;
  double residual;
  const void* grad_y;         // in
  const void* grad_squeezed;  // in   Real [N, L, H, W]
  const void* grad_means;     // in   Real [N, G, C]
  void* grad_x;               // out
};

// CUDA only: the whole forward pass with given statistics in one kernel, one read and one write. A
// cluster of blocks keeps an image in its shared memory.
struct EvaluateAtOnce {
  Excite excite;  // centred, scale and shift are not used
  Neighborhood spatial, channel;
  Pooling pooling;
  int scales;
  int scale[kMaxScales];
  const void* theta;         // in  Real [L, K, H, W]; or nullptr: no spatial graph
  const void* delta;         // in  Real [G, C]; or nullptr: no channel graph
  const void* weight;        // in  Real [G, C]
  const void* bias;          // in  Real [G, C]
  const double* batch_mean;  // in  [G, C]
  const double* inverse;     // in  [G, C]
  int blocks;                // of a cluster: 0 for never, a number to insist on, -1 for a choice
  bool* taken;               // out, on the host: false where no cluster fits, and nothing was launched
};

#define REID_OPS_SIMILARITY_GRAPH_CALLS(apply)                                                        \
  apply(Graph) apply(GraphBackward) apply(Nodes) apply(NodesBackward) apply(Statistics) apply(Affine) \
      apply(AffineSums) apply(AffineBackward) apply(Squeeze) apply(Excite) apply(Sums) apply(Input)

// CPU. One call is one or two steps; the items of a step are independent: the caller runs [0, items)
// in any split over any number of threads, and step after step. No result depends on the split.
#define REID_OPS_DECLARE(Call)                        \
  int cpu_steps(const Call& call);                    \
  std::int64_t cpu_items(const Call& call, int step); \
  void cpu_run(const Call& call, int step, std::int64_t begin, std::int64_t end);
REID_OPS_SIMILARITY_GRAPH_CALLS(REID_OPS_DECLARE)
#undef REID_OPS_DECLARE

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`.
#define REID_OPS_DECLARE(Call) cudaError_t cuda_launch(const Call& call, cudaStream_t stream);
REID_OPS_SIMILARITY_GRAPH_CALLS(REID_OPS_DECLARE)
#undef REID_OPS_DECLARE
cudaError_t cuda_launch(const EvaluateAtOnce& call, cudaStream_t stream);
#endif

}  // namespace reid_ops::similarity_graph
