// The kernels without torch or Python: every call against plain loops in double, on the CPU and, where
// they are compiled in, by the (emulated) CUDA kernels.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "stripe_pool/kernels.h"

namespace {

using namespace reid_ops;
using namespace reid_ops::stripe_pool;

struct Sizes {
  std::int64_t batch, channels, height, width, stripes;
  bool channels_last;
};

std::vector<float> random_values(std::int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// What plain loops make of a map and the gradient of its windows.
struct Expected {
  std::vector<double> output, grad_x;
  std::vector<std::int64_t> argmax;
};

Expected expect(const Sizes& s, const std::vector<float>& x, const std::vector<float>& grad) {
  const std::int64_t positions = s.height * s.width, size = positions / s.stripes;
  const std::int64_t windows = s.stripes * (s.stripes + 1) / 2;
  Expected expected = {std::vector<double>(s.batch * windows * 2 * s.channels),
                       std::vector<double>(s.batch * s.channels * positions),
                       std::vector<std::int64_t>(s.batch * windows * s.channels)};
  for (std::int64_t n = 0; n < s.batch; ++n) {
    for (std::int64_t c = 0; c < s.channels; ++c) {
      const auto place = [&](std::int64_t p) {
        return s.channels_last ? (n * positions + p) * s.channels + c : (n * s.channels + c) * positions + p;
      };
      std::int64_t window = 0;
      for (std::int64_t length = s.stripes; length >= 1; --length) {
        for (std::int64_t first = 0; first + length <= s.stripes; ++first, ++window) {
          const std::int64_t begin = first * size, end = (first + length) * size;
          const std::int64_t row = n * windows + window, at = 2 * row * s.channels + c;
          std::int64_t best = begin;
          double sum = 0;
          for (std::int64_t p = begin; p < end; ++p) {
            if (x[place(p)] > x[place(best)]) best = p;
            sum += x[place(p)];
          }
          expected.output[at] = x[place(best)];
          expected.output[at + s.channels] = sum / static_cast<double>(end - begin);
          expected.argmax[row * s.channels + c] = best;
          expected.grad_x[place(best)] += grad[at];
          for (std::int64_t p = begin; p < end; ++p) {
            expected.grad_x[place(p)] += grad[at + s.channels] / static_cast<double>(end - begin);
          }
        }
      }
    }
  }
  return expected;
}

bool close(const char* what, const std::vector<float>& actual, const std::vector<double>& expected) {
  double worst = 0, largest = 1e-30;
  for (std::size_t k = 0; k < actual.size(); ++k) {
    const double error = std::abs(actual[k] - expected[k]);
    if (!(error <= worst)) worst = error;  // takes NaN, which std::max would drop
    if (std::isnan(worst)) break;
    largest = std::max(largest, std::abs(expected[k]));
  }
  const bool good = actual.size() == expected.size() && worst <= 1e-5 * largest;  // false for NaN too
  std::printf("  %-30s relative error %.1e %s\n", what, worst / largest, good ? "" : "WRONG");
  return good;
}

struct Cpu {
  static constexpr const char* kName = "CPU";
  template <typename Call>
  static bool run(const Call& call) {
    const std::int64_t items = cpu_items(call, 2);
    cpu_run(call, items, 0, items / 2);  // any split will do
    cpu_run(call, items, items / 2, items);
    return true;
  }
};

#if defined(REID_OPS_EMULATION)
struct EmulatedCuda {
  static constexpr const char* kName = "emulated CUDA";
  template <typename Call>
  static bool run(const Call& call) {
    return cuda_launch(call, nullptr) == cudaSuccess;
  }
};
#endif

template <typename Device>
bool check_on(const Sizes& s) {
  const std::int64_t positions = s.height * s.width, maps = s.batch * s.channels;
  const Problem problem = {s.batch,   s.channels,      s.height,          s.width,
                           s.stripes, s.channels_last, DataType::kFloat32};
  const std::int64_t windows = problem.windows();
  const std::vector<float> x = random_values(maps * positions), grad = random_values(2 * maps * windows);
  const Expected expected = expect(s, x, grad);

  const float poison = std::nanf("");
  std::vector<float> output(2 * maps * windows, poison), grad_x(maps * positions, poison);
  std::vector<std::int32_t> argmax(maps * windows, -1);
  std::printf(" %s\n", Device::kName);
  bool good = Device::run(Forward{problem, x.data(), output.data(), argmax.data()});
  good &= Device::run(Backward{problem, grad.data(), argmax.data(), grad_x.data()});
  good &= close("windows", output, expected.output);
  good &= close("gradient of the map", grad_x, expected.grad_x);
  return good && std::equal(argmax.begin(), argmax.end(), expected.argmax.begin());
}

bool check(const Sizes& s) {
  bool good = check_on<Cpu>(s);
#if defined(REID_OPS_EMULATION)
  good &= check_on<EmulatedCuda>(s);
#endif
  return good;
}

}  // namespace

int main() {
  const Sizes all[] = {{2, 48, 24, 8, 6, false}, {1, 33, 12, 7, 4, true},   {1, 70, 24, 8, 6, true},
                       {1, 1, 1, 1, 1, false},   {3, 5, 33, 13, 11, false}, {1, 129, 4, 2, 2, true}};
  bool good = true;
  for (const Sizes& s : all) {
    std::printf("%lldx%lldx%lldx%lld, %lld stripes%s\n", static_cast<long long>(s.batch),
                static_cast<long long>(s.channels), static_cast<long long>(s.height),
                static_cast<long long>(s.width), static_cast<long long>(s.stripes),
                s.channels_last ? ", channels-last" : "");
    good &= check(s);
  }
  std::puts(good ? "all within rounding" : "FAILED");
  return good ? 0 : 1;
}
