// The K nearest of all items for each, from features, on the CPU: products and lists in one parallel region.
//
// Square blocks of the upper triangle of all pairs are independent items of work: a block's products are
// computed into memory of the thread, in the second-level cache, and merged at once into the lists of its
// rows and, beside the diagonal, of its columns. Threads take blocks as they come, so that one that is held
// up holds nobody else; the result depends on no order (ties go to the lower number), nor on the number of
// threads: a product is summed in one fixed order.
#pragma once

#include <cstdint>
#include <mutex>

#include "common/data_type.h"

namespace reid_ops::k_reciprocal {

// Rows [items, dimension] -> groups of as many rows as a tile is wide, element by element: [groups,
// dimension, width], zeros behind the last row; and their squared lengths, summed like the products.
struct Pack {
  const void* features;
  std::int64_t items, dimension;
  DataType type;
  void* packed;   // out [packed_rows(items, type), dimension]
  void* lengths;  // out [packed_rows(items, type)] or nullptr
};

// All products of two sets of rows, each rounded as in the search.
struct Products {
  const void* left;   // of Pack
  const void* right;  // of Pack
  std::int64_t rows, columns, dimension;
  DataType type;
  std::int64_t block;  // rows and columns of an item of work, a multiple of 64
  void* output;        // out [rows, columns]
};

struct Search {
  const void* packed;   // of Pack
  const void* lengths;  // of Pack
  std::int64_t items, dimension;
  DataType type;
  std::int64_t block;  // items of a block's side, a multiple of 64
  std::mutex* locks;   // [blocks()] of the lists of a block's items
  void* products;      // out [queries, items - queries] products of the first items with the rest, or nullptr
  std::int64_t queries;
  std::int64_t neighbours;  // K
  void* distances;          // in, out [items, K] squared distances, ascending: see Nearest
  std::int32_t* indices;    // in, out [items, K]
  void* largest;            // in, out [items]

  std::int64_t blocks() const { return (items + block - 1) / block; }
};

// `items` rounded up to whole groups.
std::int64_t packed_rows(std::int64_t items, DataType type);

std::int64_t cpu_items(const Pack& call, std::int64_t threads);
std::int64_t cpu_items(const Products& call, std::int64_t threads);
std::int64_t cpu_items(const Search& call, std::int64_t threads);
void cpu_run(const Pack& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const Products& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const Search& call, std::int64_t items, std::int64_t begin, std::int64_t end);

}  // namespace reid_ops::k_reciprocal
