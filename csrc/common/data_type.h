// The floating types every op takes, as a plain enum that crosses the torch-free boundary.
#pragma once

namespace reid_ops {

enum class DataType { kFloat32, kFloat64, kFloat16, kBFloat16 };

}  // namespace reid_ops
