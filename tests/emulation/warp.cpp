// The collectives of a warp: who must come, and what each lane gets.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "block.h"
#include "observer.h"

namespace reid_ops_emulation {
namespace {

bool is_shuffle(Collective kind) {
  return kind == Collective::kShuffle || kind == Collective::kShuffleUp || kind == Collective::kShuffleDown ||
         kind == Collective::kShuffleXor;
}

std::string hexadecimal(unsigned int mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

}  // namespace

void BlockRunner::check_mask(unsigned int mask) {
  const Warp& warp = warps_[current_ / 32];
  const unsigned int absent = mask & ~warp.present;
  const unsigned int gone = mask & warp.exited;
  std::string what;
  if (((mask >> lane()) & 1u) == 0) {
    what = "warp primitive called by a lane its mask does not name: lane " + std::to_string(lane());
  } else if (absent != 0) {
    what = "warp primitive names a lane that is not there: lane " + std::to_string(__builtin_ctz(absent)) +
           " is beyond the end of the block,";
  } else if (gone != 0) {
    what = "warp primitive names a lane that is not there: lane " + std::to_string(__builtin_ctz(gone)) +
           " has exited,";
  } else {
    return;
  }
  what += " with mask " + hexadecimal(mask);
  fault(std::move(what));
}

std::uint64_t BlockRunner::collective(Collective kind, unsigned int mask, std::uint64_t value,
                                      unsigned int argument, int width) {
  Warp& warp = warps_[current_ / 32];
  const unsigned int self = lane();
  if (((mask >> self) & 1u) == 0 || (mask & (~warp.present | warp.exited)) != 0) check_mask(mask);
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    std::string what = std::string(name_of(kind)) + ": width must be a power of two from 1 to 32, got " +
                       std::to_string(width);
    fault(std::move(what));
  }
  warp.lanes[self] = {kind, mask, argument, width, value, 0};
  if (is_shuffle(kind)) {
    const unsigned int source = shuffle_source(warp, self);
    if (((mask >> source) & 1u) == 0) {
      std::string what = std::string(name_of(kind)) + " reads a lane outside its mask: lane " +
                         std::to_string(self) + " reads lane " + std::to_string(source) + " with mask " +
                         hexadecimal(mask);
      fault(std::move(what));
    }
  }
  warp.waiting |= 1u << self;

  bool complete = (warp.waiting & mask) == mask;
  for (unsigned int left = mask; complete && left != 0; left &= left - 1) {
    const Lane& other = warp.lanes[__builtin_ctz(left)];
    complete = other.kind == kind && other.mask == mask;
  }
  if (complete) {
    // All results now: a lane that runs ahead overwrites its entry at its next collective.
    const bool differs_by_lane = is_shuffle(kind) || kind == Collective::kMatchAny;
    const std::uint64_t shared_result = differs_by_lane ? 0 : collective_result(warp, self);
    for (unsigned int left = mask; left != 0; left &= left - 1) {
      const unsigned int member = static_cast<unsigned int>(__builtin_ctz(left));
      warp.lanes[member].result = differs_by_lane ? collective_result(warp, member) : shared_result;
    }
    warp.waiting &= ~mask;
    if (running.observer != nullptr) {
      running.observer->warp_meets(current_ / 32, mask, kind == Collective::kSyncWarp);
    }
    if (mask == 1u << self) return warp.lanes[self].result;
    release_warp(current_ / 32, mask);
  }
  suspend();
  return warp.lanes[self].result;
}

void BlockRunner::release_warp(unsigned int warp, unsigned int mask) {
  unsigned int members[32];
  unsigned int count = 0;
  for (unsigned int left = mask; left != 0; left &= left - 1) {
    members[count++] = 32 * warp + static_cast<unsigned int>(__builtin_ctz(left));
  }
  if (schedule_.order == Schedule::Order::kReverse) std::reverse(members, members + count);
  if (schedule_.order == Schedule::Order::kShuffled) std::shuffle(members, members + count, random_);
  for (unsigned int member = 0; member < count; ++member) make_ready(members[member]);
}

// Which lane `lane` reads, by the definition of PTX `shfl.sync`: offsets count modulo 32, and who
// would leave its segment (of `width` lanes) reads itself. An xor may reach into earlier segments.
unsigned int BlockRunner::shuffle_source(const Warp& warp, unsigned int lane) const {
  const Lane& call = warp.lanes[lane];
  const unsigned int width = static_cast<unsigned int>(call.width);
  const unsigned int first = lane & ~(width - 1);
  const unsigned int last = first + width - 1;
  const unsigned int argument = call.argument & 31u;
  switch (call.kind) {
    case Collective::kShuffle:
      return first | (argument & (width - 1));
    case Collective::kShuffleUp:
      return lane >= first + argument ? lane - argument : lane;
    case Collective::kShuffleDown:
      return lane + argument <= last ? lane + argument : lane;
    case Collective::kShuffleXor:
      return (lane ^ argument) <= last ? lane ^ argument : lane;
    default:
      return lane;
  }
}

std::uint64_t BlockRunner::collective_result(const Warp& warp, unsigned int lane) const {
  const Lane& call = warp.lanes[lane];
  if (is_shuffle(call.kind)) return warp.lanes[shuffle_source(warp, lane)].value;
  unsigned int set = 0, same = 0;  // lanes with a true value; lanes with this lane's value
  unsigned int sum = 0, all_bits = 0xffffffffu, any_bits = 0, odd_bits = 0;
  unsigned int least = 0xffffffffu, most = 0;
  int least_signed = 0x7fffffff, most_signed = -0x7fffffff - 1;
  for (unsigned int left = call.mask; left != 0; left &= left - 1) {
    const unsigned int other = static_cast<unsigned int>(__builtin_ctz(left));
    const std::uint64_t full = warp.lanes[other].value;
    const unsigned int value = static_cast<unsigned int>(full);
    if (full != 0) set |= 1u << other;
    if (full == call.value) same |= 1u << other;
    sum += value;
    all_bits &= value;
    any_bits |= value;
    odd_bits ^= value;
    least = std::min(least, value);
    most = std::max(most, value);
    least_signed = std::min(least_signed, static_cast<int>(value));
    most_signed = std::max(most_signed, static_cast<int>(value));
  }
  switch (call.kind) {
    case Collective::kBallot:
      return set;
    case Collective::kAny:
      return set != 0;
    case Collective::kAll:
      return set == call.mask;
    case Collective::kMatchAny:
      return same;
    case Collective::kMatchAll:
      return same == call.mask ? same : 0;
    case Collective::kAdd:
      return sum;
    case Collective::kMinSigned:
      return static_cast<unsigned int>(least_signed);
    case Collective::kMaxSigned:
      return static_cast<unsigned int>(most_signed);
    case Collective::kMinUnsigned:
      return least;
    case Collective::kMaxUnsigned:
      return most;
    case Collective::kAnd:
      return all_bits;
    case Collective::kOr:
      return any_bits;
    case Collective::kXor:
      return odd_bits;
    default:
      return 0;
  }
}

const char* name_of(Collective kind) {
  switch (kind) {
    case Collective::kSyncWarp:
      return "__syncwarp";
    case Collective::kShuffle:
      return "__shfl_sync";
    case Collective::kShuffleUp:
      return "__shfl_up_sync";
    case Collective::kShuffleDown:
      return "__shfl_down_sync";
    case Collective::kShuffleXor:
      return "__shfl_xor_sync";
    case Collective::kBallot:
      return "__ballot_sync";
    case Collective::kAny:
      return "__any_sync";
    case Collective::kAll:
      return "__all_sync";
    case Collective::kMatchAny:
      return "__match_any_sync";
    case Collective::kMatchAll:
      return "__match_all_sync";
    case Collective::kAdd:
      return "__reduce_add_sync";
    case Collective::kMinSigned:
    case Collective::kMinUnsigned:
      return "__reduce_min_sync";
    case Collective::kMaxSigned:
    case Collective::kMaxUnsigned:
      return "__reduce_max_sync";
    case Collective::kAnd:
      return "__reduce_and_sync";
    case Collective::kOr:
      return "__reduce_or_sync";
    case Collective::kXor:
      return "__reduce_xor_sync";
  }
  return "a warp primitive";
}

}  // namespace reid_ops_emulation
