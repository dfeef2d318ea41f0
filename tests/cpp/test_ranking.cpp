// Ranking metrics and verification counts without torch or Python, against sorting and counting every pair.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "host/ranking.h"
#include "host/verification.h"

namespace {

using namespace reid_ops::ranking;
using Integers = std::vector<std::int64_t>;

constexpr std::int64_t kJunk = -1;

template <typename Real>
struct Problem {
  std::int64_t queries, items, stride;
  CameraRule rule;
  bool has_junk;
  Integers identities, cameras, item_identities, item_cameras;
  std::vector<Real> distances;

  Problem(std::int64_t queries, std::int64_t items, std::int64_t people, int levels, CameraRule rule,
          bool has_junk)
      : queries(queries), items(items), stride(items + 2), rule(rule), has_junk(has_junk) {
    std::mt19937 generator(static_cast<unsigned>(items + levels));
    const auto draw = [&](std::int64_t count, std::int64_t low, std::int64_t high) {
      std::uniform_int_distribution<std::int64_t> value(low, high);
      Integers values(count);
      for (auto& each : values) each = value(generator);
      return values;
    };
    identities = draw(queries, kJunk, people), item_identities = draw(items, kJunk, people);
    cameras = draw(queries, 0, 2), item_cameras = draw(items, 0, 2);
    for (const std::int64_t level : draw(queries * stride, 0, levels - 1)) {
      distances.push_back(static_cast<Real>(level) / static_cast<Real>(7));
    }
    distances[0] = std::numeric_limits<Real>::infinity();
  }

  Real distance(std::int64_t query, std::int64_t item) const { return distances[query * stride + item]; }
  bool same(std::int64_t query, std::int64_t item) const {
    return identities[query] == item_identities[item];
  }
  bool removed(std::int64_t query, std::int64_t item) const {
    if (has_junk && item_identities[item] == kJunk) return true;
    const bool camera = cameras[query] == item_cameras[item];
    return rule == CameraRule::kAny ? camera
                                    : rule == CameraRule::kSameIdentity && camera && same(query, item);
  }
  Gallery gallery() const {
    return Gallery(item_identities.data(), item_cameras.data(), items, has_junk ? &kJunk : nullptr, rule);
  }
  Distances<Real> rows() const { return {distances.data(), queries, stride}; }
};

template <typename Real>
bool check_ranks(const Problem<Real>& p) {
  const Gallery gallery = p.gallery();
  Integers positives(p.queries), first(p.queries), last(p.queries);
  std::vector<double> mean(p.queries), area(p.queries);
  bool good = evaluate(gallery, p.rows(), p.identities.data(), p.cameras.data(), 3,
                       Measures{positives.data(), first.data(), last.data(), mean.data(), area.data()}) == -1;
  for (std::int64_t q = 0; q < p.queries; ++q) {
    Integers order;
    for (std::int64_t g = 0; g < p.items; ++g) {
      if (!p.removed(q, g)) order.push_back(g);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return p.distance(q, a) < p.distance(q, b); });
    Integers ranks;
    for (std::size_t rank = 0; rank < order.size(); ++rank) {
      if (p.same(q, order[rank])) ranks.push_back(static_cast<std::int64_t>(rank));
    }
    double precision = 0;
    for (std::size_t k = 0; k < ranks.size(); ++k) {
      precision += static_cast<double>(k + 1) / static_cast<double>(ranks[k] + 1);
    }
    if (!ranks.empty()) precision /= static_cast<double>(ranks.size());
    good &= positives[q] == static_cast<std::int64_t>(ranks.size());
    good &=
        first[q] == (ranks.empty() ? -1 : ranks.front()) && last[q] == (ranks.empty() ? -1 : ranks.back());
    good &= std::abs(mean[q] - precision) <= 1e-12;
  }
  return good;
}

template <typename Real>
bool check_impostors(const Problem<Real>& p) {
  std::vector<Real> values, impostors;
  for (std::int64_t q = 0; q < p.queries; ++q) {
    for (std::int64_t g = 0; g < p.items; ++g) {
      if (p.removed(q, g) || (p.has_junk && p.identities[q] == kJunk)) continue;
      (p.same(q, g) ? values : impostors).push_back(p.distance(q, g));
    }
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  Integers at_place(values.size() + 1, 0), equal = at_place, expected = at_place, expected_equal = at_place;
  for (const Real value : impostors) {
    const auto place = std::lower_bound(values.begin(), values.end(), value);
    ++expected[place - values.begin()];
    if (place != values.end() && *place == value) ++expected_equal[place - values.begin()];
  }
  const Thresholds<Real> thresholds(values.data(), static_cast<std::int64_t>(values.size()));
  const Gallery gallery = p.gallery();
  const std::int64_t bad = count_impostors(gallery, p.rows(), p.identities.data(), p.cameras.data(),
                                           thresholds, 3, ImpostorCounts{at_place.data(), equal.data()});
  return bad == -1 && at_place == expected && equal == expected_equal;
}

// Thresholds far apart, crowded, infinite: each value's place is the one that bisection finds.
template <typename Real>
bool check_places() {
  std::mt19937 generator(0);
  std::normal_distribution<double> normal(0, 30);
  const Real infinity = std::numeric_limits<Real>::infinity();
  std::vector<Real> values = {-infinity, 0, infinity, std::numeric_limits<Real>::max(),
                              std::numeric_limits<Real>::lowest()};
  for (int k = 0; k < 500; ++k) values.push_back(static_cast<Real>(std::exp(normal(generator))));
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  bool good = true;
  // All of them, only the finite ones in the middle, none finite, and none at all.
  for (const std::size_t cut : {std::size_t{0}, std::size_t{2}, values.size() - 1, values.size()}) {
    const std::vector<Real> kept(values.begin() + cut, values.end() - (cut == 2 ? 2 : 0));
    const Thresholds<Real> thresholds(kept.data(), static_cast<std::int64_t>(kept.size()));
    for (const Real value : values) {
      for (const Real each : {value, std::nextafter(value, infinity), std::nextafter(value, -infinity)}) {
        const auto place = std::lower_bound(kept.begin(), kept.end(), each) - kept.begin();
        good &= thresholds.place(each) == place;
      }
    }
  }
  return good;
}

bool check_refusals() {
  const double falling[] = {1, 1}, numbers[] = {1, std::nan("")};
  int refused = 0;
  for (const double* values : {falling, numbers}) {
    try {
      const Thresholds<double> thresholds(values, 2);
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  Problem<float> p(20, 50, 4, 9, CameraRule::kNone, false);
  p.distances[7 * p.stride + 3] = p.distances[13 * p.stride] = std::nanf("");
  p.distances[2 * p.stride + p.items] = std::nanf("");  // between rows: nobody's
  const Gallery gallery = p.gallery();
  Integers whole(3 * p.queries);
  std::vector<double> real(2 * p.queries);
  const Measures measures{whole.data(), whole.data() + p.queries, whole.data() + 2 * p.queries, real.data(),
                          real.data() + p.queries};
  const float threshold = 0.5f;
  const Thresholds<float> thresholds(&threshold, 1);
  Integers counts(4);
  return refused == 2 && evaluate(gallery, p.rows(), p.identities.data(), nullptr, 4, measures) == 7 &&
         count_impostors(gallery, p.rows(), p.identities.data(), nullptr, thresholds, 4,
                         ImpostorCounts{counts.data(), counts.data() + 2}) == 7;
}

template <typename Real>
bool check_all(const char* name) {
  bool ranks = true, impostors = true;
  for (const CameraRule rule : {CameraRule::kNone, CameraRule::kSameIdentity, CameraRule::kAny}) {
    for (const bool has_junk : {false, true}) {
      for (const int levels : {4, 1000}) {
        for (const std::int64_t people : {1, 6}) {
          for (const std::int64_t items : {1, 90, 9000}) {
            const Problem<Real> problem(items > 1000 ? 3 : 20, items, people, levels, rule, has_junk);
            ranks &= check_ranks(problem);
            impostors &= check_impostors(problem);
          }
        }
      }
    }
  }
  const bool places = check_places<Real>();
  std::printf("%s: ranks %s, impostors %s, places %s\n", name, ranks ? "equal" : "WRONG",
              impostors ? "equal" : "WRONG", places ? "equal" : "WRONG");
  return ranks && impostors && places;
}

}  // namespace

int main() {
  const bool equal[] = {check_all<float>("float"), check_all<double>("double")};
  const bool refused = check_refusals();
  std::printf("bad input %s\n", refused ? "refused" : "TAKEN");
  return equal[0] && equal[1] && refused ? 0 : 1;
}
