// Stands in for the CUDA runtime on the CPU: a cuda.cu of this project, compiled as C++ against
// this header, runs with a block's threads as fibers. See tests/emulation/README.md.
#pragma once

#if defined(__CUDACC__)
#error "tests/emulation/include is for the host compiler only: nvcc has its own cuda_runtime.h"
#endif

#include <math.h>  // the C header: CUDA has sqrtf, fmaxf, ... in the global namespace

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "emulation/atomics.h"
#include "emulation/device_math.h"
#include "emulation/execution.h"
#include "emulation/qualifiers.h"
#include "emulation/runtime_api.h"
#include "emulation/vector_types.h"
#include "emulation/warp.h"
