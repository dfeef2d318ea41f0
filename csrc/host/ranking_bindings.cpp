// reid_ops._host.Gallery: numpy arrays in, numpy arrays out. Arguments are checked for what would read
// beyond an array; messages for users are reid_ops.metrics' task.
#include "host/ranking_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "host/ranking.h"

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
std::int64_t run(const Gallery& gallery, const py::array& distances, const std::int64_t* identities,
                 const std::int64_t* cameras, std::int64_t threads, const Measures& measures) {
  const auto item = static_cast<py::ssize_t>(sizeof(Real));
  const bool adjacent = distances.shape(1) <= 1 || distances.strides(1) == item;
  if (!adjacent || distances.strides(0) % item != 0) {
    throw std::invalid_argument("distances must have adjacent columns");
  }
  const Distances<Real> rows{static_cast<const Real*>(distances.data()), distances.shape(0),
                             distances.strides(0) / item};
  const py::gil_scoped_release release;
  return evaluate(gallery, rows, identities, cameras, threads, measures);
}

py::tuple evaluate_block(const Gallery& gallery, const py::array& distances, const Integers& identities,
                         const std::optional<Integers>& cameras, std::int64_t threads) {
  if (distances.ndim() != 2 || distances.shape(1) != gallery.size()) {
    throw std::invalid_argument("distances must have shape (Q, " + std::to_string(gallery.size()) + ")");
  }
  const std::int64_t queries = distances.shape(0);
  const std::int64_t* identity_values = pointer_to(identities, queries, "identities");
  const std::int64_t* camera_values = pointer_to(cameras, queries, "cameras");
  if (gallery.rule() != CameraRule::kNone && camera_values == nullptr) {
    throw std::invalid_argument("this gallery's camera rule needs cameras");
  }
  py::array_t<std::int64_t> positives(queries), first_rank(queries), last_rank(queries);
  py::array_t<double> mean_precision(queries), trapezoid(queries);
  const Measures measures{positives.mutable_data(), first_rank.mutable_data(), last_rank.mutable_data(),
                          mean_precision.mutable_data(), trapezoid.mutable_data()};
  std::int64_t bad_row = -1;
  if (py::isinstance<py::array_t<float>>(distances)) {
    bad_row = run<float>(gallery, distances, identity_values, camera_values, threads, measures);
  } else if (py::isinstance<py::array_t<double>>(distances)) {
    bad_row = run<double>(gallery, distances, identity_values, camera_values, threads, measures);
  } else {
    throw std::invalid_argument("distances must be float32 or float64");
  }
  return py::make_tuple(bad_row, positives, first_rank, last_rank, mean_precision, trapezoid);
}

}  // namespace

void add_bindings(py::module_& module) {
  py::class_<Gallery>(module, "Gallery", "Identities and cameras of a gallery, grouped for ranking.")
      .def(py::init(&make_gallery), py::arg("identities"), py::arg("cameras"), py::arg("junk"),
           py::arg("camera_rule"))
      .def("evaluate", &evaluate_block, py::arg("distances"), py::arg("identities"), py::arg("cameras"),
           py::arg("threads"),
           "(lowest row with a NaN or -1, positives, first rank, last rank, both average precisions)");
}

}  // namespace reid_ops::ranking
