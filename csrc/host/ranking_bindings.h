// Adds the ranking metrics to reid_ops._host.
#pragma once

#include <pybind11/pybind11.h>

namespace reid_ops::ranking {

void add_bindings(pybind11::module_& module);

}  // namespace reid_ops::ranking
