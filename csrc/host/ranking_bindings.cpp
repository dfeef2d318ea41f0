// reid_ops._host.Gallery: numpy arrays in, numpy arrays out. Arguments are checked for what would read
// beyond an array; messages for users are reid_ops.metrics' task.
#include "host/ranking_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "host/ranking.h"
#include "host/verification.h"

namespace py = pybind11;

namespace reid_ops::ranking {
namespace {

using Integers = py::array_t<std::int64_t, py::array::c_style>;

CameraRule rule_from(const std::string& name) {
  if (name == "none") return CameraRule::kNone;
  if (name == "same_identity") return CameraRule::kSameIdentity;
  if (name == "any") return CameraRule::kAny;
  throw std::invalid_argument("camera_rule must be \"none\", \"same_identity\" or \"any\", got \"" + name +
                              "\"");
}

const std::int64_t* pointer_to(const std::optional<Integers>& values, std::int64_t size, const char* name) {
  if (!values) return nullptr;
  if (values->ndim() != 1 || values->shape(0) != size) {
    throw std::invalid_argument(std::string(name) + " must have shape (" + std::to_string(size) + ",)");
  }
  return values->data();
}

std::unique_ptr<Gallery> make_gallery(const Integers& identities, const std::optional<Integers>& cameras,
                                      std::optional<std::int64_t> junk, const std::string& rule_name) {
  if (identities.ndim() != 1) throw std::invalid_argument("identities must have one dimension");
  const std::int64_t size = identities.shape(0);
  const CameraRule rule = rule_from(rule_name);
  const std::int64_t* camera_values = pointer_to(cameras, size, "cameras");
  if (rule != CameraRule::kNone && camera_values == nullptr) {
    throw std::invalid_argument("camera_rule needs cameras");
  }
  return std::make_unique<Gallery>(identities.data(), camera_values, size, junk ? &*junk : nullptr, rule);
}

template <typename Real>
Distances<Real> rows_of(const py::array& distances) {
  const auto item = static_cast<py::ssize_t>(sizeof(Real));
  const bool adjacent = distances.shape(1) <= 1 || distances.strides(1) == item;
  if (!adjacent || distances.strides(0) % item != 0) {
    throw std::invalid_argument("distances must have adjacent columns");
  }
  return {static_cast<const Real*>(distances.data()), distances.shape(0), distances.strides(0) / item};
}

// The labels of a block of queries, checked against it; `cameras` may be null under CameraRule::kNone.
struct Labels {
  const std::int64_t* identities;
  const std::int64_t* cameras;
};

Labels checked_labels(const Gallery& gallery, const py::array& distances, const Integers& identities,
                      const std::optional<Integers>& cameras) {
  if (distances.ndim() != 2 || distances.shape(1) != gallery.size()) {
    throw std::invalid_argument("distances must have shape (Q, " + std::to_string(gallery.size()) + ")");
  }
  const std::int64_t queries = distances.shape(0);
  const Labels labels{pointer_to(identities, queries, "identities"), pointer_to(cameras, queries, "cameras")};
  if (gallery.rule() != CameraRule::kNone && labels.cameras == nullptr) {
    throw std::invalid_argument("this gallery's camera rule needs cameras");
  }
  return labels;
}

// Calls `use` with a value of the distances' type.
template <typename Use>
void with_type_of(const py::array& distances, const Use& use) {
  if (py::isinstance<py::array_t<float>>(distances)) {
    use(float());
  } else if (py::isinstance<py::array_t<double>>(distances)) {
    use(double());
  } else {
    throw std::invalid_argument("distances must be float32 or float64");
  }
}

py::tuple evaluate_block(const Gallery& gallery, const py::array& distances, const Integers& identities,
                         const std::optional<Integers>& cameras, std::int64_t threads) {
  const Labels labels = checked_labels(gallery, distances, identities, cameras);
  const std::int64_t queries = distances.shape(0);
  py::array_t<std::int64_t> positives(queries), first_rank(queries), last_rank(queries);
  py::array_t<double> mean_precision(queries), trapezoid(queries);
  const Measures measures{positives.mutable_data(), first_rank.mutable_data(), last_rank.mutable_data(),
                          mean_precision.mutable_data(), trapezoid.mutable_data()};
  std::int64_t bad_row = -1;
  with_type_of(distances, [&](auto type) {
    const auto rows = rows_of<decltype(type)>(distances);
    const py::gil_scoped_release release;
    bad_row = evaluate(gallery, rows, labels.identities, labels.cameras, threads, measures);
  });
  return py::make_tuple(bad_row, positives, first_rank, last_rank, mean_precision, trapezoid);
}

py::tuple count_block(const Gallery& gallery, const py::array& distances, const Integers& identities,
                      const std::optional<Integers>& cameras, const py::array& thresholds,
                      std::int64_t threads) {
  const Labels labels = checked_labels(gallery, distances, identities, cameras);
  if (thresholds.ndim() != 1) throw std::invalid_argument("thresholds must have one dimension");
  py::array_t<std::int64_t> at_place(thresholds.shape(0) + 1), equal(thresholds.shape(0) + 1);
  std::fill_n(at_place.mutable_data(), at_place.size(), 0);
  std::fill_n(equal.mutable_data(), equal.size(), 0);
  const ImpostorCounts counts{at_place.mutable_data(), equal.mutable_data()};
  std::int64_t bad_row = -1;
  with_type_of(distances, [&](auto type) {
    using Real = decltype(type);
    const auto rows = rows_of<Real>(distances);
    const auto values = thresholds.cast<py::array_t<Real, py::array::c_style>>();
    const py::gil_scoped_release release;
    const Thresholds<Real> places(values.data(), values.shape(0));
    bad_row = count_impostors(gallery, rows, labels.identities, labels.cameras, places, threads, counts);
  });
  return py::make_tuple(bad_row, at_place, equal);
}

}  // namespace

void add_bindings(py::module_& module) {
  py::class_<Gallery>(module, "Gallery", "Identities and cameras of a gallery, grouped for ranking.")
      .def(py::init(&make_gallery), py::arg("identities"), py::arg("cameras"), py::arg("junk"),
           py::arg("camera_rule"))
      .def("evaluate", &evaluate_block, py::arg("distances"), py::arg("identities"), py::arg("cameras"),
           py::arg("threads"),
           "(lowest row with a NaN or -1, positives, first rank, last rank, both average precisions)")
      .def("count_impostors", &count_block, py::arg("distances"), py::arg("identities"), py::arg("cameras"),
           py::arg("thresholds"), py::arg("threads"),
           "(lowest row with a NaN or -1, impostor pairs by the number of ascending thresholds below them, "
           "those of them at the next threshold)");
}

}  // namespace reid_ops::ranking
