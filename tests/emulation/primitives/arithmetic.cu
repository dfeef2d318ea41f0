// Conversions and integer functions, element by element.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/launch.h"

namespace {

constexpr unsigned int kThreads = 256;

template <typename From, typename To, typename Function>
__global__ void apply(const From* from, To* to, long long count, Function function) {
  const long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < count) to[index] = function(from[index]);
}

template <typename From, typename To, typename Function>
int run(const void* from, void* to, long long count, Function function) {
  const dim3 grid(static_cast<unsigned int>((count + kThreads - 1) / kThreads));
  return reid_ops::launch(apply<From, To, Function>, grid, dim3(kThreads), 0, nullptr,
                          static_cast<const From*>(from), static_cast<To*>(to), count, function);
}

template <typename T>
__global__ void arithmetic(const T* a, const T* b, const T* c, T* out, int count) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= count) return;
  out[index] = __hadd(a[index], b[index]);
  out[count + index] = __hsub(a[index], b[index]);
  out[2 * count + index] = __hmul(a[index], b[index]);
  out[3 * count + index] = __hdiv(a[index], b[index]);
  out[4 * count + index] = __hfma(a[index], b[index], c[index]);
  out[5 * count + index] = __hmax(a[index], b[index]);
  out[6 * count + index] = __hmin(a[index], b[index]);
}

__global__ void pairs(const float2* in, __half2* half, __nv_bfloat162* bfloat, float2* back, int count) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= count) return;
  half[index] = __hadd2(__float22half2_rn(in[index]), __floats2half2_rn(1.0f, 2.0f));
  bfloat[index] = __float22bfloat162_rn(in[index]);
  back[index] = make_float2(__low2float(half[index]), __high2float(half[index]));
}

}  // namespace

extern "C" {

int run_convert(int kind, const void* from, void* to, long long count) {
  switch (kind) {
    case 0:
      return run<__half, float>(from, to, count, [](__half value) { return __half2float(value); });
    case 1:
      return run<float, __half>(from, to, count, [](float value) { return __float2half_rn(value); });
    case 2:
      return run<double, __half>(from, to, count, [](double value) { return __double2half(value); });
    case 3:
      return run<__nv_bfloat16, float>(from, to, count,
                                       [](__nv_bfloat16 value) { return __bfloat162float(value); });
    case 4:
      return run<float, __nv_bfloat16>(from, to, count,
                                       [](float value) { return __float2bfloat16_rn(value); });
    case 5:
      return run<double, __nv_bfloat16>(from, to, count,
                                        [](double value) { return __double2bfloat16(value); });
    case 6:
      return run<float, int>(from, to, count, [](float value) { return __float2int_rn(value); });
    case 7:
      return run<float, int>(from, to, count, [](float value) { return __float2int_rz(value); });
    case 8:
      return run<float, float>(from, to, count, [](float value) { return rsqrtf(value); });
    case 9:
      return run<float, float>(from, to, count,
                               [](float value) { return __int_as_float(__float_as_int(value)); });
    default:
      return -1;
  }
}

int run_half_arithmetic(const void* a, const void* b, const void* c, void* out, int count) {
  return reid_ops::launch(arithmetic<__half>, dim3(static_cast<unsigned int>(count) / kThreads + 1),
                          dim3(kThreads), 0, nullptr, static_cast<const __half*>(a),
                          static_cast<const __half*>(b), static_cast<const __half*>(c),
                          static_cast<__half*>(out), count);
}

int run_pairs(const void* in, void* half, void* bfloat, void* back, int count) {
  return reid_ops::launch(pairs, dim3(static_cast<unsigned int>(count) / kThreads + 1), dim3(kThreads), 0,
                          nullptr, static_cast<const float2*>(in), static_cast<__half2*>(half),
                          static_cast<__nv_bfloat162*>(bfloat), static_cast<float2*>(back), count);
}

// out: [7, count]
int run_integers(const void* in, void* out, long long count) {
  auto* const row = static_cast<unsigned int*>(out);
  int error = run<unsigned int, unsigned int>(
      in, row, count, [](unsigned int value) { return static_cast<unsigned int>(__popc(value)); });
  error |= run<unsigned int, unsigned int>(in, row + count, count, [](unsigned int value) {
    return static_cast<unsigned int>(__clz(static_cast<int>(value)));
  });
  error |= run<unsigned int, unsigned int>(in, row + 2 * count, count, [](unsigned int value) {
    return static_cast<unsigned int>(__ffs(static_cast<int>(value)));
  });
  error |= run<unsigned int, unsigned int>(in, row + 3 * count, count,
                                           [](unsigned int value) { return __brev(value); });
  error |= run<unsigned int, unsigned int>(in, row + 4 * count, count,
                                           [](unsigned int value) { return __umulhi(value, 0xD2511F53u); });
  error |= run<unsigned int, unsigned int>(in, row + 5 * count, count, [](unsigned int value) {
    return __funnelshift_l(value, ~value, 7) ^ __byte_perm(value, ~value, 0x7531);
  });
  error |= run<unsigned int, unsigned int>(
      in, row + 6 * count, count, [](unsigned int value) { return max(value, 5) + min(value, 100u); });
  return error;
}

}  // extern "C"
