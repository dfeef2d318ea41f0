// The kernels without torch or Python: all stages in turn, from features to blended distances, against the
// dense algorithm in double, on the CPU and, where they are compiled in, by the (emulated) CUDA kernels.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "k_reciprocal/kernels.h"

namespace {

using namespace reid_ops;
using namespace reid_ops::k_reciprocal;

struct Sizes {
  std::int64_t queries, gallery, dimension, k1, k2;
  bool soft;
  std::int64_t items() const { return queries + gallery; }
  std::int64_t list() const { return std::min(k1 + 1, items()); }
  std::int64_t half() const { return std::lround(std::nearbyint(static_cast<double>(k1) / 2)) + 1; }
};

constexpr double kLambda = 0.3;
using Lists64 = std::vector<std::vector<std::int64_t>>;

// Whole numbers: distances are exact in float, and many are equal.
template <typename T>
std::vector<T> random_features(const Sizes& s) {
  std::mt19937 generator(static_cast<unsigned>(s.items() * 31 + s.k1));
  std::uniform_int_distribution<int> value(-3, 3);
  std::vector<T> features(static_cast<std::size_t>(s.items() * s.dimension));
  for (T& feature : features) feature = static_cast<T>(value(generator));
  return features;
}

// -------------------------------------------------------------------------------------------- reference

std::vector<std::int64_t> reciprocal(const Lists64& rank, std::int64_t item, std::int64_t places) {
  std::vector<std::int64_t> members;
  places = std::min<std::int64_t>(places, static_cast<std::int64_t>(rank[item].size()));
  for (std::int64_t r = 0; r < places; ++r) {
    const auto& other = rank[rank[item][r]];
    if (std::find(other.begin(), other.begin() + places, item) != other.begin() + places) {
      members.push_back(rank[item][r]);
    }
  }
  return members;
}

template <typename T>
std::vector<double> reference(const Sizes& s, const std::vector<T>& features, Lists64& rank) {
  const std::int64_t n = s.items();
  std::vector<std::vector<double>> distance(n, std::vector<double>(n)), encoding = distance;
  rank.assign(n, std::vector<std::int64_t>(n));
  std::vector<double> largest(n);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t k = 0; k < s.dimension; ++k) {
        const double difference = features[i * s.dimension + k] - features[j * s.dimension + k];
        distance[i][j] += difference * difference;
      }
    }
    largest[i] = *std::max_element(distance[i].begin(), distance[i].end());
    std::iota(rank[i].begin(), rank[i].end(), 0);
    std::stable_sort(rank[i].begin(), rank[i].end(),
                     [&](std::int64_t a, std::int64_t b) { return distance[i][a] < distance[i][b]; });
    rank[i].resize(static_cast<std::size_t>(s.list()));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::vector<std::int64_t> members = reciprocal(rank, i, s.list());
    std::set<std::int64_t> all(members.begin(), members.end());
    for (const std::int64_t candidate : members) {
      const std::vector<std::int64_t> added = reciprocal(rank, candidate, s.half());
      const auto known = std::count_if(added.begin(), added.end(), [&](std::int64_t each) {
        return std::find(members.begin(), members.end(), each) != members.end();
      });
      if (3 * known > 2 * static_cast<std::int64_t>(added.size())) all.insert(added.begin(), added.end());
    }
    double total = 0;
    for (const std::int64_t j : all) {
      total += encoding[i][j] = s.soft ? std::exp(-distance[i][j] / largest[i]) : 1;
    }
    if (s.soft && total > 0) {
      for (double& weight : encoding[i]) weight /= total;
    }
  }
  if (s.soft) {
    std::vector<std::vector<double>> expanded(n, std::vector<double>(n));
    const std::int64_t members = std::min(s.k2, s.list());
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t r = 0; r < members; ++r) {
        for (std::int64_t j = 0; j < n; ++j) {
          expanded[i][j] += encoding[rank[i][r]][j] / static_cast<double>(members);
        }
      }
    }
    encoding = expanded;
  }
  std::vector<double> result;
  for (std::int64_t q = 0; q < s.queries; ++q) {
    for (std::int64_t g = s.queries; g < n; ++g) {
      double shared = 0, both = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        shared += std::min(encoding[q][j], encoding[g][j]);
        both += encoding[q][j] + encoding[g][j];
      }
      if (s.soft) both = 2;
      const double jaccard = both - shared > 0 ? 1 - shared / (both - shared) : 1;
      result.push_back((1 - kLambda) * std::max(jaccard, 0.0) + kLambda * distance[q][g] / largest[q]);
    }
  }
  return result;
}

// ------------------------------------------------------------------------------------------ the stages

struct OnCpu {
  static constexpr bool kIsDevice = false;
  template <typename Call>
  static bool run(const Call& call) {
    const std::int64_t items = cpu_items(call, 3);
    cpu_run(call, items, 0, items / 2);  // any split will do
    cpu_run(call, items, items / 2, items);
    return true;
  }
};

#if defined(REID_OPS_EMULATION)
struct Emulated {
  static constexpr bool kIsDevice = true;
  template <typename Call>
  static bool run(const Call& call) {
    return cuda_launch(call, nullptr) == cudaSuccess;
  }
};
#endif

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& sizes) {
  std::vector<std::int64_t> offsets(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), offsets.begin() + 1);
  return offsets;
}

template <typename T>
struct Rows {
  std::vector<std::int64_t> offsets;
  std::vector<std::int32_t> columns;
  std::vector<T> weights;
  SparseRows view() const { return {offsets.data(), columns.data(), weights.data()}; }
  void allocate(const std::vector<std::int64_t>& sizes) {
    offsets = offsets_of(sizes);
    columns.assign(static_cast<std::size_t>(offsets.back()), -7);
    weights.assign(columns.size(), std::nan(""));
  }
};

// The nearest of all items, from the blocks of a product that is cut at `border`.
template <typename Device, typename T>
bool find_nearest(const Sizes& s, const std::vector<T>& features, DataType type, std::int64_t border,
                  bool by_column, std::vector<std::int32_t>& indices, std::vector<T>& largest) {
  const std::int64_t n = s.items(), list = s.list();
  std::vector<T> norms(n), product(n * n), distances(n * list, std::numeric_limits<T>::infinity());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t k = 0; k < s.dimension; ++k) {
        product[i * n + j] += features[i * s.dimension + k] * features[j * s.dimension + k];
      }
    }
    norms[i] = product[i * n + i];
  }
  indices.assign(n * list, -1), largest.assign(n, -std::numeric_limits<T>::infinity());
  bool good = true;
  for (const auto& [first, last] : {std::pair{std::int64_t{0}, border}, std::pair{border, n}}) {
    if (first == last) continue;
    Nearest call = {};
    call.block = {product.data() + (by_column ? first * n : first),
                  by_column ? last - first : n,
                  by_column ? n : last - first,
                  n,
                  norms.data() + (by_column ? first : 0),
                  norms.data() + (by_column ? 0 : first),
                  Measure::kEuclidean,
                  0};
    call.type = type, call.by_column = by_column, call.first_candidate = first, call.self_candidate = 0;
    call.neighbours = list;
    call.distances = distances.data(), call.indices = indices.data(), call.largest = largest.data();
    good &= Device::run(call);
  }
  return good;
}

template <typename Device, typename T>
bool rerank(const Sizes& s, const std::vector<T>& features, const std::vector<std::int32_t>& neighbours,
            const std::vector<T>& largest, DataType type, std::vector<T>& output) {
  const std::int64_t n = s.items();
  const Lists lists = {neighbours.data(), n, s.list()};
  std::vector<std::int32_t> reverse(neighbours.size(), -7), scratch;
  bool good = Device::run(ReverseRanks{lists, reverse.data()});

  std::vector<std::int64_t> sizes(n, -7);
  Sets sets = {lists, reverse.data(), s.list(), std::min(s.half(), s.list())};
  scratch.resize(static_cast<std::size_t>(3 * sets.capacity()));
  sets.scratch = scratch.data(), sets.scratch_rows = 3;
  sets.sizes = sizes.data();
  good &= Device::run(sets);
  Rows<T> rows;
  rows.allocate(sizes);
  sets.sizes = nullptr, sets.offsets = rows.offsets.data(), sets.columns = rows.columns.data();
  good &= Device::run(sets);

  std::vector<T> scale(n), distances(rows.columns.size(), std::nan("")), sums(n);
  for (std::int64_t i = 0; i < n; ++i) scale[i] = 1 / largest[i], sums[i] = static_cast<T>(sizes[i]);
  if (s.soft) {
    good &= Device::run(PairDistances{features.data(), n, s.dimension, type, rows.offsets.data(),
                                      rows.columns.data(), distances.data()});
    good &= Device::run(
        Encode{distances.data(), scale.data(), n, type, rows.offsets.data(), rows.weights.data()});
    Rows<T> expanded;
    Expand expand = {lists, s.k2, rows.view(), type};
    expand.sizes = sizes.data();
    good &= Device::run(expand);
    expanded.allocate(sizes);
    expand.sizes = nullptr, expand.offsets = expanded.offsets.data();
    expand.columns = expanded.columns.data(), expand.weights = expanded.weights.data();
    good &= Device::run(expand);
    rows = expanded;
  } else {
    rows.weights.assign(rows.weights.size(), 1);
  }

  Rows<T> inverse;
  Invert invert = {rows.view(), n, s.queries, type};
  invert.sizes = sizes.data();
  good &= Device::run(invert);
  inverse.allocate(sizes);
  invert.offsets = inverse.offsets.data(), invert.rows = inverse.columns.data();
  invert.weights = inverse.weights.data();
  good &= Device::run(invert);

  // The block holds products and has a stride of its own.
  const std::int64_t stride = s.gallery + 3;
  std::vector<T> block(s.queries * stride, std::nan("")), norms(n), shared(s.queries * s.gallery);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < s.dimension; ++k) {
      norms[i] += features[i * s.dimension + k] * features[i * s.dimension + k];
    }
  }
  for (std::int64_t q = 0; q < s.queries; ++q) {
    for (std::int64_t g = 0; g < s.gallery; ++g) {
      T product = 0;
      for (std::int64_t k = 0; k < s.dimension; ++k) {
        product += features[q * s.dimension + k] * features[(s.queries + g) * s.dimension + k];
      }
      block[q * stride + g] = product;
    }
  }
  Blend blend = {};
  blend.block = {block.data(),        s.queries, s.gallery, stride, norms.data(), norms.data() + s.queries,
                 Measure::kEuclidean, 0};
  blend.output = block.data(), blend.type = type, blend.scale = scale.data();
  blend.rows = rows.view(), blend.inverse = inverse.view(), blend.lambda = kLambda;
  if (!s.soft) blend.row_sums = sums.data(), blend.column_sums = sums.data() + s.queries;
  blend.scratch = shared.data();
  good &= Device::run(blend);
  output.clear();
  for (std::int64_t q = 0; q < s.queries; ++q) {
    output.insert(output.end(), block.begin() + q * stride, block.begin() + q * stride + s.gallery);
  }
  return good;
}

// ---------------------------------------------------------------------------------------------- checks

template <typename Device, typename T>
bool check(const Sizes& s, const char* where, DataType type) {
  const std::vector<T> features = random_features<T>(s);
  Lists64 rank;
  const std::vector<double> expected = reference(s, features, rank);
  bool good = true;
  std::vector<std::int32_t> neighbours;
  std::vector<T> largest, output;
  for (const bool by_column : {false, true}) {
    for (const std::int64_t border : {std::int64_t{0}, s.items() / 3}) {
      good &= find_nearest<Device>(s, features, type, border, by_column, neighbours, largest);
      for (std::int64_t i = 0; i < s.items(); ++i) {
        good &= std::equal(rank[i].begin(), rank[i].end(), neighbours.begin() + i * s.list());
      }
    }
  }
  const bool same_lists = good;
  good &= rerank<Device>(s, features, neighbours, largest, type, output);
  double worst = 0;
  for (std::size_t k = 0; k < expected.size(); ++k) {
    const double error = std::abs(output[k] - expected[k]);
    if (!(error <= worst)) worst = error;  // takes NaN
    if (std::isnan(worst)) break;
  }
  // Sums of up to 300 weights of at most 1, each rounded to the type.
  good &= worst <= 300 * std::numeric_limits<T>::epsilon();
  std::printf("  %-8s %zu bytes: lists %s, error %.1e %s\n", where, sizeof(T), same_lists ? "equal" : "WRONG",
              worst, good ? "" : "WRONG");
  return good;
}

}  // namespace

int main() {
  const Sizes all[] = {{6, 60, 5, 20, 6, true}, {6, 60, 5, 20, 6, false}, {9, 33, 3, 7, 2, true},
                       {1, 40, 4, 9, 1, true},  {30, 1, 4, 9, 4, true},   {3, 5, 4, 20, 6, true},
                       {1, 1, 4, 1, 1, true},   {5, 90, 6, 45, 6, true}};
  bool good = true;
  for (const Sizes& s : all) {
    std::printf("%lld + %lld items, k1 = %lld, k2 = %lld, %s\n", static_cast<long long>(s.queries),
                static_cast<long long>(s.gallery), static_cast<long long>(s.k1), static_cast<long long>(s.k2),
                s.soft ? "soft" : "sets");
    good &= check<OnCpu, float>(s, "CPU", DataType::kFloat32);
    good &= check<OnCpu, double>(s, "CPU", DataType::kFloat64);
#if defined(REID_OPS_EMULATION)
    good &= check<Emulated, float>(s, "emulated", DataType::kFloat32);
    good &= check<Emulated, double>(s, "emulated", DataType::kFloat64);
#endif
  }
  std::puts(good ? "all within rounding" : "FAILED");
  return good ? 0 : 1;
}
