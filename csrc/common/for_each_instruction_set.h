// Compiles REID_OPS_KERNEL_FILE once per instruction set, each time in its own namespace.
//
// No include guard: each op's cpu.cpp includes this once, after every other header. (A header
// first included inside a target region would compile its inline functions with instructions the
// processor may not have, and the linker would be free to keep just those.)
//
// The included file sees REID_OPS_ISA (the namespace to open), REID_OPS_VECTOR_BYTES (the vector
// width) and REID_OPS_VECTOR_REGISTERS (how many there are).

#if !defined(REID_OPS_KERNEL_FILE)
#error "define REID_OPS_KERNEL_FILE first"
#endif

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#error "reid_ops needs GCC 12 or newer, or clang 15 or newer (__builtin_shufflevector)"
#endif

#define REID_OPS_ISA baseline
#define REID_OPS_VECTOR_BYTES 16
#if defined(__aarch64__)
#define REID_OPS_VECTOR_REGISTERS 32
#else
#define REID_OPS_VECTOR_REGISTERS 16
#endif
#include REID_OPS_KERNEL_FILE
#undef REID_OPS_ISA
#undef REID_OPS_VECTOR_BYTES
#undef REID_OPS_VECTOR_REGISTERS

#if defined(REID_OPS_X86)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define REID_OPS_ISA avx2
#define REID_OPS_VECTOR_BYTES 32
#define REID_OPS_VECTOR_REGISTERS 16
#include REID_OPS_KERNEL_FILE
#undef REID_OPS_ISA
#undef REID_OPS_VECTOR_BYTES
#undef REID_OPS_VECTOR_REGISTERS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define REID_OPS_ISA avx512
#define REID_OPS_VECTOR_BYTES 64
#define REID_OPS_VECTOR_REGISTERS 32
#include REID_OPS_KERNEL_FILE
#undef REID_OPS_ISA
#undef REID_OPS_VECTOR_BYTES
#undef REID_OPS_VECTOR_REGISTERS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // REID_OPS_X86
