// Scratch memory of a CPU kernel: one 64-byte aligned block a thread, kept between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace reid_ops {

class CpuScratch {
 public:
  CpuScratch() = default;
  CpuScratch(const CpuScratch&) = delete;
  CpuScratch& operator=(const CpuScratch&) = delete;
  ~CpuScratch() { std::free(block_); }

  // Begins a new use: what was handed out before is void. `bytes` is the sum of what `take` will ask.
  void reserve(std::size_t bytes) {
    used_ = 0;
    if (bytes <= capacity_) return;
    std::free(block_);
    capacity_ = 0;
    block_ = std::aligned_alloc(kAlignment, round_up(bytes));
    if (block_ == nullptr) {
      throw std::runtime_error("could not allocate " + std::to_string(bytes) + " bytes of scratch memory");
    }
    capacity_ = round_up(bytes);
  }

  template <typename T>
  T* take(std::int64_t count) {
    T* result = reinterpret_cast<T*>(static_cast<char*>(block_) + used_);
    used_ += bytes_of<T>(count);
    return result;
  }

  template <typename T>
  static std::size_t bytes_of(std::int64_t count) {
    return round_up(static_cast<std::size_t>(count) * sizeof(T));
  }

  static CpuScratch& of_this_thread() {
    static thread_local CpuScratch scratch;
    return scratch;
  }

 private:
  static constexpr std::size_t kAlignment = 64;
  static std::size_t round_up(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  void* block_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

}  // namespace reid_ops
