// part_correlation on the CPU for 1x1 filters: a plane times a number, and its two gradients.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.
//
// One multiply-add per element moved: transposing planes into lanes would cost more than the work, so
// planes are walked as they lie in memory. Only without a pool, and for planes without gaps.

inline bool is_pointwise(const Problem& problem) {
  return problem.kernel_height == 1 && problem.kernel_width == 1 && problem.pool == 1;
}

inline bool has_dense_planes(const Problem& problem) {
  return problem.signal_stride[3] == 1 && problem.signal_stride[2] == problem.width;
}

template <typename S, typename T>
void scale_plane(const S* input, T scale, std::int64_t count, S* output) {
  for (std::int64_t k = 0; k < count; ++k) output[k] = narrow<S, T>(static_cast<T>(widen(input[k])) * scale);
}

template <typename S, typename T>
void add_scaled_plane(const S* input, T scale, std::int64_t count, T* sum) {
  for (std::int64_t k = 0; k < count; ++k) sum[k] += static_cast<T>(widen(input[k])) * scale;
}

// Four vectors of partial sums, then their total in a fixed order.
template <typename S, typename T>
T dot_planes(const S* first, const S* second, std::int64_t count) {
  constexpr int lanes = kLanes<T>;
  Vector<T> partial[4] = {};
  std::int64_t k = 0;
  for (; k + 4 * lanes <= count; k += 4 * lanes) {
    for (int m = 0; m < 4; ++m) {
      partial[m] += load_widened<S, T>(first + k + m * lanes) * load_widened<S, T>(second + k + m * lanes);
    }
  }
  const Vector<T> together = (partial[0] + partial[1]) + (partial[2] + partial[3]);
  T total = 0;
  for (int lane = 0; lane < lanes; ++lane) total += together[lane];
  for (; k < count; ++k) total += static_cast<T>(widen(first[k])) * static_cast<T>(widen(second[k]));
  return total;
}

// One plane of the signal with one number of each part.
template <typename S, typename T>
void run_forward_pointwise(const Forward& call, const Worker<S, T>& worker, const Group& group) {
  const Problem& problem = call.problem;
  const std::int64_t *signal_stride = problem.signal_stride, *parts_stride = problem.parts_stride;
  const std::int64_t size = problem.height * problem.width;
  worker.for_each_plane(group, [&](int, std::int64_t pair, std::int64_t channel) {
    const S* plane = static_cast<const S*>(call.signal) + problem.signal_row(pair) * signal_stride[0] +
                     channel * signal_stride[1];
    for (std::int64_t part = 0; part < problem.parts; ++part) {
      const S* tap = static_cast<const S*>(call.parts) + problem.part_row(pair) * parts_stride[0] +
                     part * parts_stride[1] + channel * parts_stride[2];
      S* output =
          static_cast<S*>(call.output) + ((pair * problem.parts + part) * problem.channels + channel) * size;
      scale_plane<S, T>(plane, static_cast<T>(widen(*tap)), size, output);
    }
  });
}

template <typename S, typename T, typename RunOf>
void run_grad_signal_pointwise(const GradSignal& call, const Worker<S, T>& worker, const Group& group,
                               const RunOf& run_of) {
  const Problem& problem = call.problem;
  const std::int64_t* stride = problem.parts_stride;
  const std::int64_t size = problem.height * problem.width;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(size));
  T* const sum = scratch.take<T>(size);
  worker.for_each_plane(group, [&](int, std::int64_t row, std::int64_t channel) {
    std::memset(sum, 0, size * sizeof(T));
    run_of(row, [&](std::int64_t pair) {
      for (std::int64_t part = 0; part < problem.parts; ++part) {
        const S* tap = static_cast<const S*>(call.parts) + problem.part_row(pair) * stride[0] +
                       part * stride[1] + channel * stride[2];
        const S* grad = static_cast<const S*>(call.grad_output) +
                        ((pair * problem.parts + part) * problem.channels + channel) * size;
        add_scaled_plane<S, T>(grad, static_cast<T>(widen(*tap)), size, sum);
      }
    });
    S* output = static_cast<S*>(call.grad_signal) + (row * problem.channels + channel) * size;
    for (std::int64_t k = 0; k < size; ++k) output[k] = narrow<S, T>(sum[k]);
  });
}

template <typename S, typename T, typename RunOf>
void run_grad_parts_pointwise(const GradParts& call, const Worker<S, T>& worker, const Group& group,
                              const RunOf& run_of) {
  const Problem& problem = call.problem;
  const std::int64_t* stride = problem.signal_stride;
  const std::int64_t size = problem.height * problem.width;
  worker.for_each_plane(group, [&](int, std::int64_t row, std::int64_t channel) {
    for (std::int64_t part = 0; part < problem.parts; ++part) {
      T total = 0;
      run_of(row, [&](std::int64_t pair) {
        const S* plane =
            static_cast<const S*>(call.signal) + problem.signal_row(pair) * stride[0] + channel * stride[1];
        const S* grad = static_cast<const S*>(call.grad_output) +
                        ((pair * problem.parts + part) * problem.channels + channel) * size;
        total += dot_planes<S, T>(plane, grad, size);
      });
      static_cast<S*>(call.grad_parts)[(row * problem.parts + part) * problem.channels + channel] =
          narrow<S, T>(total);
    }
  });
}
