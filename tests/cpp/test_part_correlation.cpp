// The kernels without torch or Python: every call against plain loops in double, on the CPU and, where
// they are compiled in, by the (emulated) CUDA kernels.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "part_correlation/kernels.h"

namespace {

using namespace reid_ops;
using namespace reid_ops::part_correlation;

struct Sizes {
  std::int64_t pairs, parts, channels, height, width, kernel_height, kernel_width;
};

Problem make_problem(const Sizes& s) {
  Problem problem = {};
  problem.pairs = problem.signal_rows = problem.part_rows = s.pairs;
  problem.parts = s.parts, problem.channels = s.channels;
  problem.height = s.height, problem.width = s.width;
  problem.kernel_height = s.kernel_height, problem.kernel_width = s.kernel_width;
  problem.pool = 1;
  problem.type = DataType::kFloat32;
  const std::int64_t signal_stride[4] = {s.channels * s.height * s.width, s.height * s.width, s.width, 1};
  const std::int64_t filter = s.kernel_height * s.kernel_width;
  const std::int64_t parts_stride[5] = {s.parts * s.channels * filter, s.channels * filter, filter,
                                        s.kernel_width, 1};
  for (int k = 0; k < 4; ++k) problem.signal_stride[k] = signal_stride[k];
  for (int k = 0; k < 5; ++k) problem.parts_stride[k] = parts_stride[k];
  return problem;
}

// body(g index, x index, f index) for every product of the trilinear form in kernels.h.
template <typename Body>
void for_each_product(const Problem& p, const Body& body) {
  for (std::int64_t b = 0; b < p.pairs; ++b)
    for (std::int64_t part = 0; part < p.parts; ++part)
      for (std::int64_t c = 0; c < p.channels; ++c)
        for (std::int64_t i = 0; i < p.height; ++i)
          for (std::int64_t j = 0; j < p.width; ++j)
            for (std::int64_t u = 0; u < p.kernel_height; ++u)
              for (std::int64_t v = 0; v < p.kernel_width; ++v) {
                const std::int64_t y = i + u - p.top(), x = j + v - p.left();
                if (y < 0 || y >= p.height || x < 0 || x >= p.width) continue;
                const std::int64_t map = (b * p.parts + part) * p.channels + c;
                body((map * p.height + i) * p.width + j, ((b * p.channels + c) * p.height + y) * p.width + x,
                     (map * p.kernel_height + u) * p.kernel_width + v);
              }
}

std::vector<float> random_values(std::int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

bool close(const char* what, const std::vector<float>& actual, const std::vector<double>& expected) {
  double worst = 0, largest = 1e-30;
  for (std::size_t k = 0; k < actual.size(); ++k) {
    worst = std::max(worst, std::abs(actual[k] - expected[k]));
    largest = std::max(largest, std::abs(expected[k]));
  }
  const bool good = worst <= 1e-5 * largest;  // false for NaN too
  std::printf("  %-28s relative error %.1e %s\n", what, worst / largest, good ? "" : "WRONG");
  return good;
}

bool check(const Sizes& sizes) {
  const Problem problem = make_problem(sizes);
  const std::int64_t maps = sizes.pairs * sizes.parts * sizes.channels;
  const std::int64_t outputs = maps * sizes.height * sizes.width;
  const std::int64_t signals = sizes.pairs * sizes.channels * sizes.height * sizes.width;
  const std::int64_t filters = maps * sizes.kernel_height * sizes.kernel_width;
  const std::vector<float> signal = random_values(signals), parts = random_values(filters),
                           grad = random_values(outputs);
  std::vector<double> output(outputs), to_signal(signals), to_parts(filters);
  for_each_product(problem, [&](std::int64_t g, std::int64_t x, std::int64_t f) {
    output[g] += static_cast<double>(signal[x]) * parts[f];
    to_signal[x] += static_cast<double>(grad[g]) * parts[f];
    to_parts[f] += static_cast<double>(grad[g]) * signal[x];
  });

  const float poison = std::nanf("");
  std::vector<float> a(outputs, poison), b(signals, poison), c(filters, poison);
  const Forward forward = {problem, signal.data(), parts.data(), a.data(), nullptr};
  const GradSignal grad_signal = {problem, grad.data(), nullptr, parts.data(), nullptr, b.data()};
  const GradParts grad_parts = {problem, grad.data(), nullptr, signal.data(), nullptr, c.data()};
  const auto run_cpu = [](const auto& call) {
    const std::int64_t items = cpu_items(call, 2);
    cpu_run(call, items, 0, items / 2);  // any split will do
    cpu_run(call, items, items / 2, items);
  };
  run_cpu(forward), run_cpu(grad_signal), run_cpu(grad_parts);
  bool good = close("forward, CPU", a, output);
  good &= close("gradient of signal, CPU", b, to_signal);
  good &= close("gradient of parts, CPU", c, to_parts);

  b.assign(signals, poison), c.assign(filters, poison);
  const Backward backward = {problem, grad.data(), nullptr, signal.data(), parts.data(), b.data(), c.data()};
  if (cpu_fits(backward)) {
    run_cpu(backward);
    good &= close("both, gradient of signal", b, to_signal);
    good &= close("both, gradient of parts", c, to_parts);
  }

#if defined(REID_OPS_EMULATION)
  a.assign(outputs, poison), b.assign(signals, poison), c.assign(filters, poison);
  good &= cuda_launch(forward, nullptr) == cudaSuccess;
  good &= cuda_launch(grad_signal, nullptr) == cudaSuccess;
  good &= cuda_launch(grad_parts, nullptr) == cudaSuccess;
  good &= close("forward, emulated CUDA", a, output);
  good &= close("gradient of signal, emulated", b, to_signal);
  good &= close("gradient of parts, emulated", c, to_parts);
#endif
  return good;
}

}  // namespace

int main() {
  const Sizes all[] = {{2, 3, 18, 40, 15, 10, 10}, {1, 3, 33, 20, 8, 5, 5}, {2, 3, 16, 10, 4, 3, 3},
                       {1, 1, 1, 1, 1, 1, 1},      {2, 5, 3, 7, 11, 4, 9},  {1, 2, 4, 3, 3, 1, 1}};
  bool good = true;
  for (const Sizes& s : all) {
    std::printf("%lldx%lldx%lldx%lld, %lld parts of %lldx%lld\n", static_cast<long long>(s.pairs),
                static_cast<long long>(s.channels), static_cast<long long>(s.height),
                static_cast<long long>(s.width), static_cast<long long>(s.parts),
                static_cast<long long>(s.kernel_height), static_cast<long long>(s.kernel_width));
    good &= check(s);
  }
  std::puts(good ? "all within rounding" : "FAILED");
  return good ? 0 : 1;
}
