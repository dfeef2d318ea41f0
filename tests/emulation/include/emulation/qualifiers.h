// CUDA's declaration qualifiers as a C++ compiler can honour them.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))

// __noinline__ is left undefined on purpose: GCC's own headers spell the attribute that way, and a
// macro of that name breaks <memory>.

// Static shared memory is thread-local: every block of a launch runs on the launching OS thread,
// so launches from two threads do not see each other's tiles. It also puts all of it, templates'
// included, in one place (.tbss) that the runtime finds and fills with NaN at the start of a block.
#define __shared__ thread_local
