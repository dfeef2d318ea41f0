// Rows of a matrix shared out among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace reid_ops::ranking {

// Rows that a thread takes at a time.
constexpr std::int64_t kRowsPerTurn = 8;

// Calls `work(next)` on `threads` threads; `next()` gives a row that is nobody else's yet, or -1 when all
// are taken. What `work` throws is thrown here after all have ended.
template <typename Work>
void share_rows(std::int64_t rows, std::int64_t threads, const Work& work) {
  std::atomic<std::int64_t> taken{0};
  std::mutex mutex;
  std::exception_ptr failure;

  const auto run = [&] {
    std::int64_t row = 0, end = 0;
    const auto next = [&]() -> std::int64_t {
      if (row == end) {
        row = taken.fetch_add(kRowsPerTurn);
        end = std::min(row + kRowsPerTurn, rows);
        if (row >= rows) return row = end = -1;
      }
      return row++;
    };
    try {
      work(next);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  };

  const std::int64_t turns = (rows + kRowsPerTurn - 1) / kRowsPerTurn;
  std::vector<std::thread> helpers;
  try {
    for (std::int64_t i = 1; i < std::min(threads, turns); ++i) helpers.emplace_back(run);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do the work.
  }
  run();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

// The lowest of the rows that `note` was called with, from any thread; -1: none.
class LowestRow {
 public:
  void note(std::int64_t row) {
    const std::lock_guard<std::mutex> lock(mutex_);
    row_ = row_ < 0 ? row : std::min(row_, row);
  }
  std::int64_t row() const { return row_; }

 private:
  std::mutex mutex_;
  std::int64_t row_ = -1;
};

}  // namespace reid_ops::ranking
