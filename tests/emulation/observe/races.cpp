#include "races.h"

#include <algorithm>

namespace reid_ops_emulation {

void BlockClocks::begin(std::uint64_t block, unsigned int threads, unsigned int cluster_blocks) {
  block_ = static_cast<std::uint32_t>(block);
  cluster_blocks_ = cluster_blocks;
  cluster_ = block_ / cluster_blocks;
  epoch_ = cluster_epoch_ = 0;
  clocks_.assign(std::size_t{threads} * 32, 0);
  for (unsigned int thread = 0; thread < threads; ++thread) clocks_[thread * 32 + thread % 32] = 1;
}

void BlockClocks::barrier(bool of_cluster) {
  ++epoch_;
  cluster_epoch_ += of_cluster;
}

void BlockClocks::meet(unsigned int warp, std::uint32_t mask) {
  std::uint32_t joint[32] = {};
  for (std::uint32_t left = mask; left != 0; left &= left - 1) {
    const std::uint32_t* const known = &clocks_[(warp * 32 + __builtin_ctz(left)) * 32];
    for (int lane = 0; lane < 32; ++lane) joint[lane] = std::max(joint[lane], known[lane]);
  }
  for (std::uint32_t left = mask; left != 0; left &= left - 1) {
    const unsigned int self = static_cast<unsigned int>(__builtin_ctz(left));
    std::uint32_t* const known = &clocks_[(warp * 32 + self) * 32];
    std::copy(joint, joint + 32, known);
    ++known[self];
  }
}

Access BlockClocks::access(unsigned int thread, int site, bool atomic) const {
  Access now;
  now.block = block_ + 1;
  now.epoch = epoch_;
  now.cluster_epoch = cluster_epoch_;
  now.clock = clocks_[thread * 32 + thread % 32];
  now.site = site;
  now.thread = static_cast<std::uint16_t>(thread);
  now.atomic = atomic;
  return now;
}

bool BlockClocks::ordered(const Access& before, unsigned int thread) const {
  if (before.block != block_ + 1) {
    return (before.block - 1) / cluster_blocks_ == cluster_ && before.cluster_epoch < cluster_epoch_;
  }
  if (before.thread == thread || before.epoch < epoch_) return true;
  return before.thread / 32 == thread / 32 && clocks_[thread * 32 + before.thread % 32] >= before.clock;
}

Shadow::Page& Shadow::page(std::uintptr_t number, unsigned int grain) {
  Page*& recent = recent_[number % 64];
  if (recent == nullptr || recent_number_[number % 64] != number) {
    std::unique_ptr<Page>& found = pages_[number];
    if (found == nullptr) found = std::make_unique<Page>();
    recent = found.get();
    recent_number_[number % 64] = number;
  }
  if (grain < recent->grain) {  // smaller cells know what the larger ones knew
    std::vector<Cell> finer(kPage / grain);
    for (std::size_t cell = 0; cell < finer.size(); ++cell) {
      finer[cell] = recent->cells[cell * grain / recent->grain];
    }
    recent->cells = std::move(finer);
    recent->grain = grain;
  }
  return *recent;
}

}  // namespace reid_ops_emulation
