// k_reciprocal: the contract between the torch-aware file (ops.cpp) and the kernels (cpu.cpp,
// cuda.cu). Plain pointers and sizes, no torch header.
//
// k-reciprocal re-ranking (HCN, section 3.4) in stages, each linear in the number of items.
// N items (queries and gallery together) have K nearest neighbours each, ascending by distance:
//
//   nearest        the K nearest of blocks of a distance matrix that never exists as a whole
//   reverse ranks  where i stands in the list of its r-th neighbour
//   sets           R*(i): the k-reciprocal set R(i) = {j in N(i) : i in N(j)}, plus for every c in R(i)
//                  the reciprocal set H(c) of the half list, if |R(i) ^ H(c)| > 2/3 |H(c)|
//   pair distances d(i, j) for j in R*(i)
//   encode         V[i, j] = exp(-d(i, j)) / sum
//   expand         V[i] <- mean of V over the first k2 neighbours of i
//   invert         the columns of V as lists
//   blend          (1 - lambda) (1 - m / (s_i + s_g - m)) + lambda d(i, g), m = sum_j min(V[i,j], V[g,j])
//
// V is sparse: row i holds entries [offsets[i], offsets[i + 1]). With k = the list's length and h = the
// half list's, |R*(i)| <= k + k h; after the expansion a row has at most k2 times that. Offsets are 64
// bits wide. An element of `neighbours` outside [0, N) means "none" and is passed over.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "common/data_type.h"
#include "common/host_device.h"

namespace reid_ops::k_reciprocal {

// How an element p of a block becomes a distance, with a term for its row and one for its column.
enum class Measure : std::int64_t {
  kNone = 0,       // there are no distances (pure Jaccard)
  kGiven = 1,      // p itself
  kEuclidean = 2,  // a + b - 2 p, at least 0: p = <x, y>, a = |x|^2, b = |y|^2
  kCosine = 3,     // 1 - p a b: a = 1 / |x|, b = 1 / |y|
};

// A block of a distance matrix, elements of T at values[row * stride + column].
struct Block {
  const void* values;
  std::int64_t rows, columns;
  std::int64_t stride;
  const void* row_terms;     // [rows] or nullptr
  const void* column_terms;  // [columns] or nullptr
  Measure measure;
  std::int64_t squarings;  // the distance is then squared so many times: 1 makes d^2 of d, or d^4 of d^2
};

// Merges a block into the K smallest distances found so far. The block's rows (its columns, if
// `by_column`) are items of which the state is kept; the other side are candidates, the first of
// which has number first_candidate. Of equal distances the lower number stays: calls come in ascending order
// of candidates, or in any if `any_order` (on the CPU). An item is at distance exactly 0 from itself.
struct Nearest {
  Block block;
  DataType type;
  bool by_column;
  bool any_order;
  std::int64_t first_candidate;
  std::int64_t self_candidate;  // the candidate that is the first item itself, minus 1 << 62: none
  std::int64_t neighbours;      // K
  void* distances;              // in, out [items, K] ascending, infinity where nothing was found yet
  std::int32_t* indices;        // in, out [items, K], -1 there
  void* largest;                // in, out [items] largest distance seen

  REID_OPS_HOST_DEVICE std::int64_t items() const { return by_column ? block.columns : block.rows; }
};

// On the CPU a row that needs another number of places than `offsets` gives it is not filled, and this is
// set.
using Misfit = std::atomic<bool>;

struct Lists {
  const std::int32_t* neighbours;  // [items, length]
  std::int64_t items, length;
};

// reverse[i, r] = place of i in the list of neighbours[i, r], or `length` where it is not in it.
struct ReverseRanks {
  Lists lists;
  std::int32_t* reverse;  // out [items, length]
};

// Counts (columns == nullptr: writes sizes) or fills rows. Order within a row: R(i) by rank, then what
// each member of R(i) adds, in that order.
struct Sets {
  Lists lists;
  const std::int32_t* reverse;  // in  [items, length]
  std::int64_t list;            // places of the list that R(i) looks at
  std::int64_t half;            // and of the half list
  const std::int64_t* offsets;  // in  [items + 1], when filling
  std::int32_t* columns;        // out [offsets[items]]
  std::int64_t* sizes;          // out [items], when counting
  Misfit* misfit;               // CPU, when filling
  std::int32_t* scratch;        // CUDA: [scratch_rows, capacity]
  std::int64_t scratch_rows;

  REID_OPS_HOST_DEVICE std::int64_t capacity() const {
    const std::int64_t bound = list + list * half;
    return bound < lists.items ? bound : lists.items;
  }
};

struct PairDistances {
  const void* features;  // [items, dimension]
  std::int64_t items, dimension;
  DataType type;
  const std::int64_t* offsets;  // [items + 1]
  const std::int32_t* columns;
  void* distances;  // out: sum_k (x_ik - x_jk)^2, infinity where the column is none
};

// weights[e] = exp(-distances[e] * scale[i]) / sum over the row
struct Encode {
  const void* distances;
  const void* scale;  // [items]
  std::int64_t items;
  DataType type;
  const std::int64_t* offsets;
  void* weights;  // out
};

// A sparse matrix by rows.
struct SparseRows {
  const std::int64_t* offsets;
  const std::int32_t* columns;
  const void* weights;
};

// Counts (columns == nullptr) or fills. Order within a row: that of first appearance, neighbour by
// neighbour; sums run in that order too.
struct Expand {
  Lists lists;
  std::int64_t members;  // k2
  SparseRows source;
  DataType type;
  const std::int64_t* offsets;  // in  [items + 1], when filling
  std::int32_t* columns;        // out
  void* weights;                // out
  std::int64_t* sizes;          // out [items], when counting
  Misfit* misfit;               // CPU, when filling
};

// Lists of the rows (less first_row, from first_row on) that hold a column. Counts (rows == nullptr) or
// fills. The CPU keeps rows ascending; on CUDA their order is open and nothing depends on it.
struct Invert {
  SparseRows source;
  std::int64_t items, first_row;
  DataType type;
  const std::int64_t* offsets;  // in  [items + 1], when filling
  std::int32_t* rows;           // out
  void* weights;                // out
  std::int64_t* sizes;          // out [items], when counting; CUDA: also the cursor when filling
  Misfit* misfit;               // CPU, when filling
};

// Distances of rows [first_row, first_row + block.rows) of V to the block.columns rows that `inverse`
// was made of, over the block itself.
struct Blend {
  Block block;
  void* output;  // in, out: block.values
  DataType type;
  const void* scale;  // [block.rows] or nullptr: factor of the blended distance
  SparseRows rows;
  std::int64_t first_row;
  SparseRows inverse;       // offsets by column of V, `columns` are the rows that hold it
  const void* row_sums;     // [block.rows] |R*| of the set Jaccard distance; nullptr: rows sum to 1
  const void* column_sums;  // [block.columns]
  double lambda;
  void* scratch;  // CUDA: [block.rows, block.columns]
};

// CPU. The work is cut into independent items; the caller runs [0, items) in any split over any
// number of threads. `threads` only guides the cut.
#define REID_OPS_K_RECIPROCAL_CALLS(DECLARE) \
  DECLARE(Nearest)                           \
  DECLARE(ReverseRanks)                      \
  DECLARE(Sets)                              \
  DECLARE(PairDistances)                     \
  DECLARE(Encode)                            \
  DECLARE(Expand)                            \
  DECLARE(Invert)                            \
  DECLARE(Blend)

#define REID_OPS_DECLARE_CPU(Call)                                \
  std::int64_t cpu_items(const Call& call, std::int64_t threads); \
  void cpu_run(const Call& call, std::int64_t items, std::int64_t begin, std::int64_t end);
REID_OPS_K_RECIPROCAL_CALLS(REID_OPS_DECLARE_CPU)
#undef REID_OPS_DECLARE_CPU

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`.
#define REID_OPS_DECLARE_CUDA(Call) cudaError_t cuda_launch(const Call& call, cudaStream_t stream);
REID_OPS_K_RECIPROCAL_CALLS(REID_OPS_DECLARE_CUDA)
#undef REID_OPS_DECLARE_CUDA
#endif

}  // namespace reid_ops::k_reciprocal
