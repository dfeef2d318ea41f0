// Ranking metrics on the CPU, free of torch: where the positives of each query rank, by counting.
//
// A query's positives are the gallery items of its identity that are not removed. The rank of one is the
// number of items, removed ones left out, that come before it: nearer, or as near with a lower index. So
// nothing is sorted but the positives, and a row of distances is read once from memory.
#pragma once

#include <cstdint>
#include <vector>

namespace reid_ops::ranking {

// Which gallery items the cameras remove.
enum class CameraRule {
  kNone,          // none
  kSameIdentity,  // those of the query's identity and camera (Market-1501 and most others)
  kAny,           // all of the query's camera
};

// Positions of equal values, found by value. Positions of one value are ascending.
class Groups {
 public:
  struct Span {
    const std::int64_t* begin;
    const std::int64_t* end;
  };

  void build(const std::int64_t* values, std::int64_t size);
  Span find(std::int64_t value) const;

 private:
  std::vector<std::int64_t> values_;   // ascending, each once
  std::vector<std::int64_t> offsets_;  // where a value's positions begin
  std::vector<std::int64_t> positions_;
};

// What is known of the gallery before any distance comes: serves any number of query blocks.
class Gallery {
 public:
  // `cameras` may be null only under CameraRule::kNone; `junk` null means that no identity is junk.
  Gallery(const std::int64_t* identities, const std::int64_t* cameras, std::int64_t size,
          const std::int64_t* junk, CameraRule rule);

  std::int64_t size() const { return size_; }
  CameraRule rule() const { return rule_; }

  // Whether an identity is junk: then it has no positives.
  bool is_junk(std::int64_t identity) const { return has_junk_ && identity == junk_identity_; }

  // Positions of the junk, which is removed for every query, ascending.
  const std::vector<std::int64_t>& junk() const { return junk_; }

  // Positions of one query's positives and of the items removed for its camera, both ascending and without
  // junk; both vectors are overwritten.
  void select(std::int64_t identity, std::int64_t camera, std::vector<std::int64_t>& positives,
              std::vector<std::int64_t>& removed) const;

 private:
  std::int64_t size_;
  CameraRule rule_;
  bool has_junk_;
  std::int64_t junk_identity_;
  std::vector<std::int64_t> cameras_;
  std::vector<std::int64_t> junk_;
  std::vector<bool> is_junk_;
  Groups by_identity_;
  Groups by_camera_;
};

// Rows of distances, columns adjacent. `row_stride` counts elements. Smaller is better.
template <typename Real>
struct Distances {
  const Real* values;
  std::int64_t rows;
  std::int64_t row_stride;
};

// One value per query. Ranks count from 0 and are -1 where a query has no positive.
struct Measures {
  std::int64_t* positives;
  std::int64_t* first_rank;
  std::int64_t* last_rank;
  double* mean_precision;  // average precision: mean of the precisions at the hits
  double* trapezoid;       // average precision: area under the interpolated precision-recall curve
};

// Fills `measures` on `threads` threads. `cameras` may be null under CameraRule::kNone. Returns the lowest
// row that holds a NaN, or -1; after a NaN the measures mean nothing.
template <typename Real>
std::int64_t evaluate(const Gallery& gallery, const Distances<Real>& distances,
                      const std::int64_t* identities, const std::int64_t* cameras, std::int64_t threads,
                      const Measures& measures);

extern template std::int64_t evaluate<float>(const Gallery&, const Distances<float>&, const std::int64_t*,
                                             const std::int64_t*, std::int64_t, const Measures&);
extern template std::int64_t evaluate<double>(const Gallery&, const Distances<double>&, const std::int64_t*,
                                              const std::int64_t*, std::int64_t, const Measures&);

}  // namespace reid_ops::ranking
