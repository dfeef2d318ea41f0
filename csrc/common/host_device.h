// Functions that host code and CUDA kernels both call.
#pragma once

#if defined(__CUDACC__)
#define REID_OPS_HOST_DEVICE __host__ __device__
#else
#define REID_OPS_HOST_DEVICE
#endif
