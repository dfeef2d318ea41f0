// A launch: checks, shared memory and its poison, the blocks in turn, the report of a fault.
#include <cuda_runtime.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "block.h"
#include "cluster.h"
#include "device.h"
#include "observer.h"

// Not all zero: they must lie in .tdata, see execution.h.
__thread uint3 threadIdx = {~0u, ~0u, ~0u};
__thread uint3 blockIdx = {~0u, ~0u, ~0u};
__thread dim3 blockDim = {1, 1, 1};
__thread dim3 gridDim = {1, 1, 1};

namespace reid_ops_emulation {

__thread Running running = {nullptr, nullptr, nullptr, 0, nullptr, 1};
ObserveLaunch observe_launch = nullptr;

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN in every floating type, -1 as an integer

// Bytes after dynamic shared memory that nobody may write. AddressSanitizer does better.
#if defined(REID_OPS_EMULATION_ASAN)
constexpr std::size_t kCanaryBytes = 0;
#else
constexpr std::size_t kCanaryBytes = 256;
#endif

// This library's thread-local variables without an initial value, for the calling OS thread: the
// static shared memory of all its kernels (qualifiers.h). No section attribute could collect them,
// as GCC ignores it on variables of templates.
using Range = Cluster::Range;
struct ThreadLocals {
  Range shared, others;
};
ThreadLocals find_thread_locals() {
  ThreadLocals found = {{nullptr, 0}, {nullptr, 0}};
  const auto visit = [](dl_phdr_info* info, std::size_t, void* result) -> int {
    const auto here = reinterpret_cast<std::uintptr_t>(&find_thread_locals);
    bool ours = false;
    const ElfW(Phdr)* tls = nullptr;
    for (int index = 0; index < info->dlpi_phnum; ++index) {
      const ElfW(Phdr) & header = info->dlpi_phdr[index];
      const std::uintptr_t begin = info->dlpi_addr + header.p_vaddr;
      if (header.p_type == PT_LOAD && here >= begin && here < begin + header.p_memsz) ours = true;
      if (header.p_type == PT_TLS) tls = &header;
    }
    if (!ours) return 0;
    if (tls != nullptr && info->dlpi_tls_data != nullptr) {
      char* const begin = static_cast<char*>(info->dlpi_tls_data);
      *static_cast<ThreadLocals*>(result) = {{begin + tls->p_filesz, tls->p_memsz - tls->p_filesz},
                                             {begin, tls->p_filesz}};
    }
    return 1;
  };
  running.marker = 1;  // touch a thread-local variable: glibc allocates them on first use
  dl_iterate_phdr(visit, &found);
  return found;
}

struct FreeDeleter {
  void operator()(void* address) const { std::free(address); }
};
using Memory = std::unique_ptr<char, FreeDeleter>;

// What an OS thread keeps between launches.
struct ThreadState {
  BlockRunner runner;
  ThreadLocals locals = find_thread_locals();
  std::string last_fault;
  cudaError_t last_error = cudaSuccess;
};

// A plain pointer and a pthread key instead of a thread_local object: that would have a
// zero-initialised guard, which the poison would overwrite.
struct ThreadStateSlot {
  ThreadState* state;
  unsigned int marker;
};
__thread ThreadStateSlot thread_state_slot = {nullptr, 1};

pthread_key_t make_key() {
  pthread_key_t key;
  if (pthread_key_create(&key, [](void* state) { delete static_cast<ThreadState*>(state); }) != 0) {
    std::abort();
  }
  return key;
}

ThreadState& thread_state() {
  if (thread_state_slot.state == nullptr) {
    static const pthread_key_t key = make_key();
    thread_state_slot.state = new ThreadState;
    pthread_setspecific(key, thread_state_slot.state);
  }
  return *thread_state_slot.state;
}

cudaError_t check(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
  if (block.x == 0 || block.y == 0 || block.z == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  if (block.x > 1024 || block.y > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (block.x * block.y * block.z > 1024) return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes > dynamic_shared_limit(kernel)) return cudaErrorInvalidValue;
  for (unsigned int index = 0; index < config.numAttrs; ++index) {
    const cudaLaunchAttribute& attribute = config.attrs[index];
    if (attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative) {
      return cudaErrorNotSupported;
    }
  }
  return check_cluster(config, kernel);
}

// One OS thread's share of a launch: its blocks one by one.
class Worker {
 public:
  // `observer` may be null.
  Worker(const cudaLaunchConfig_t& config, const KernelCall& call, const Schedule& schedule,
         LaunchObserver* observer)
      : config_(config), state_(thread_state()) {
    void* allocated = nullptr;
    if (posix_memalign(&allocated, 16, config.dynamicSmemBytes + kCanaryBytes) != 0) return;
    dynamic_shared_.reset(static_cast<char*>(allocated));
    std::memset(dynamic_shared_.get() + config.dynamicSmemBytes, kPoison, kCanaryBytes);
    state_.runner.configure(call, config.blockDim, schedule);
    blockDim = config.blockDim;
    gridDim = config.gridDim;
    running.dynamic_shared = dynamic_shared_.get();
    running.runner = &state_.runner;
    if (observer != nullptr) {
      const ThreadLocals& locals = state_.locals;
      observer_ = observer->observe(state_.runner, {dynamic_shared_.get(), config.dynamicSmemBytes},
                                    {locals.shared.begin, locals.shared.bytes},
                                    {locals.others.begin, locals.others.bytes});
    }
  }
  ~Worker() {
    running.runner = nullptr;
    running.dynamic_shared = nullptr;
    running.cluster = nullptr;
    running.cluster_rank = 0;
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  bool has_memory() const { return dynamic_shared_ != nullptr; }
  Cluster::SharedMemory shared() const {
    return {state_.locals.shared, {dynamic_shared_.get(), config_.dynamicSmemBytes}};
  }

  void poison() {
    std::memset(dynamic_shared_.get(), kPoison, config_.dynamicSmemBytes);
    const Range fixed = state_.locals.shared;
    if (fixed.bytes != 0) std::memset(fixed.begin, kPoison, fixed.bytes);
  }

  Fault run(std::uint64_t block) {
    const std::uint64_t columns = config_.gridDim.x, rows = config_.gridDim.y;
    const uint3 index = {static_cast<unsigned int>(block % columns),
                         static_cast<unsigned int>(block / columns % rows),
                         static_cast<unsigned int>(block / columns / rows)};
    blockIdx = index;
    running.observer = observer_.get();
    if (observer_ != nullptr) observer_->block_begins(block);
    Fault fault = state_.runner.run(index, block);
    if (observer_ != nullptr) observer_->block_ends();
    running.observer = nullptr;
    const std::size_t shared_bytes = config_.dynamicSmemBytes;
    const char* const canary = dynamic_shared_.get() + shared_bytes;
    const bool written = std::any_of(canary, canary + kCanaryBytes,
                                     [](char byte) { return static_cast<unsigned char>(byte) != kPoison; });
    if (fault.error == cudaSuccess && written) {
      char text[128];
      std::snprintf(text, sizeof(text),
                    "write past the end of dynamic shared memory (%zu bytes) [block (%u, %u, %u)]",
                    shared_bytes, index.x, index.y, index.z);
      fault = {cudaErrorIllegalAddress, text};
    }
    return fault;
  }

 private:
  const cudaLaunchConfig_t& config_;
  ThreadState& state_;
  Memory dynamic_shared_;
  std::unique_ptr<BlockObserver> observer_;
};

// Numbers 0 to count - 1 in the schedule's order.
template <typename Number>
std::vector<Number> in_order(const Schedule& schedule, Number count) {
  std::vector<Number> order(static_cast<std::size_t>(count));
  for (Number number = 0; number < count; ++number) {
    order[static_cast<std::size_t>(number)] =
        schedule.order == Schedule::Order::kReverse ? count - 1 - number : number;
  }
  std::mt19937_64 random(schedule.seed);
  if (schedule.order == Schedule::Order::kShuffled) std::shuffle(order.begin(), order.end(), random);
  return order;
}

std::atomic<long long> clusters_launched = 0;

// Cluster after cluster; a block of each on every one of as many OS threads. (Clusters lie along the
// grid's first axis, so that a cluster's blocks have consecutive numbers.)
Fault run_clusters(const cudaLaunchConfig_t& config, const KernelCall& call, const Schedule& schedule,
                   const std::vector<std::uint64_t>& order, LaunchObserver* observer) {
  const unsigned int size = cluster_size(config);
  Cluster cluster(in_order(schedule, size));
  std::atomic<bool> has_memory = true;
  std::vector<std::thread> threads;
  for (unsigned int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Worker worker(config, call, schedule, observer);
      if (!worker.has_memory()) has_memory = false;
      running.cluster = &cluster;
      running.cluster_rank = rank;
      for (const std::uint64_t number : order) {
        if (has_memory) worker.poison();
        cluster.enter(rank, worker.shared());
        const bool goes_on = has_memory && cluster.fault().error == cudaSuccess;
        cluster.leave(rank, goes_on ? worker.run(number * size + rank) : Fault{});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ++clusters_launched;
  return has_memory ? cluster.fault() : Fault{cudaErrorMemoryAllocation, "no memory for a cluster's blocks"};
}

// " in <kernel>", or nothing for a kernel without an exported name.
std::string kernel_name(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_saddr != kernel || info.dli_sname == nullptr) return "";
  int status = 0;
  const Memory readable(abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status));
  return std::string(" in ") + (status == 0 ? readable.get() : info.dli_sname);
}

cudaError_t report(ThreadState& state, const Fault& fault, const void* kernel) {
  state.last_fault = fault.message + kernel_name(kernel);
  std::fprintf(stderr, "reid_ops emulation: %s\n", state.last_fault.c_str());
  std::fflush(stderr);
  return fault.error;
}

}  // namespace

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) thread_state().last_error = error;
  return error;
}

cudaError_t last_error(bool take) {
  const cudaError_t error = thread_state().last_error;
  if (take) thread_state().last_error = cudaSuccess;
  return error;
}

Schedule Schedule::from_environment() {
  Schedule schedule;
  const char* wish = std::getenv("REID_OPS_EMULATION_SCHEDULE");
  if (wish == nullptr || *wish == '\0' || std::strcmp(wish, "forward") == 0) return schedule;
  if (std::strcmp(wish, "reverse") == 0) {
    schedule.order = Order::kReverse;
    return schedule;
  }
  constexpr const char* kShuffledName = "shuffled";
  const std::size_t length = std::strlen(kShuffledName);
  if (std::strncmp(wish, kShuffledName, length) == 0 && (wish[length] == '\0' || wish[length] == ':')) {
    schedule.order = Order::kShuffled;
    if (wish[length] == ':') schedule.seed = std::strtoull(wish + length + 1, nullptr, 10);
    return schedule;
  }
  std::fprintf(stderr,
               "reid_ops emulation: REID_OPS_EMULATION_SCHEDULE must be forward, reverse or "
               "shuffled[:seed], got '%s'\n",
               wish);
  std::abort();
}

cudaError_t launch(const cudaLaunchConfig_t& config, const KernelCall& call) {
  // A kernel that launches kernels is beyond this emulation.
  if (running.runner != nullptr) device_trap("a kernel was launched from inside a kernel");
  const cudaError_t refused = check(config, call.kernel);
  if (refused != cudaSuccess) return remember(refused);

  const Schedule schedule = Schedule::from_environment();
  const std::uint64_t blocks = std::uint64_t{config.gridDim.x} * config.gridDim.y * config.gridDim.z;
  std::unique_ptr<LaunchObserver> observer;
  if (observe_launch != nullptr) observer = observe_launch(config, call, cluster_size(config));
  Fault fault;
  if (cluster_size(config) > 1) {
    const std::vector<std::uint64_t> order = in_order(schedule, blocks / cluster_size(config));
    fault = run_clusters(config, call, schedule, order, observer.get());
  } else {
    Worker worker(config, call, schedule, observer.get());
    if (!worker.has_memory()) return remember(cudaErrorMemoryAllocation);
    std::vector<std::uint64_t> shuffled;
    if (schedule.order == Schedule::Order::kShuffled) shuffled = in_order(schedule, blocks);
    for (std::uint64_t turn = 0; turn < blocks && fault.error == cudaSuccess; ++turn) {
      std::uint64_t block = turn;
      if (schedule.order == Schedule::Order::kReverse) block = blocks - 1 - turn;
      if (schedule.order == Schedule::Order::kShuffled) block = shuffled[turn];
      worker.poison();
      fault = worker.run(block);
    }
  }
  return fault.error == cudaSuccess ? cudaSuccess : remember(report(thread_state(), fault, call.kernel));
}

const char* last_fault() { return thread_state().last_fault.c_str(); }
void clear_last_fault() { thread_state().last_fault.clear(); }

// Device functions called from host code: there is no block to be in.
static BlockRunner& running_block(const char* what) {
  if (running.runner == nullptr) {
    std::fprintf(stderr, "reid_ops emulation: %s outside of a kernel\n", what);
    std::abort();
  }
  return *running.runner;
}

int block_barrier(Barrier kind, int predicate) {
  if (running.observer != nullptr) running.observer->waits(__builtin_return_address(0));
  return running_block("a barrier").barrier(kind, predicate);
}

std::uint64_t warp_collective(Collective kind, unsigned int mask, std::uint64_t value, unsigned int argument,
                              int width) {
  if (running.observer != nullptr) running.observer->waits(__builtin_return_address(0));
  return running_block("a warp primitive").collective(kind, mask, value, argument, width);
}

unsigned int cluster_rank() { return running.cluster_rank; }
unsigned int cluster_blocks() { return running.cluster == nullptr ? 1 : running.cluster->blocks(); }

void* shared_of(void* address, unsigned int rank) {
  if (running.cluster == nullptr && rank == 0) return address;
  void* const found =
      running.cluster == nullptr ? nullptr : running.cluster->shared_of(running.cluster_rank, address, rank);
  if (found == nullptr) {
    device_trap("the address is not in shared memory, or the cluster has no such block any more");
  }
  return found;
}

long long cluster_launches() { return clusters_launched; }

unsigned int this_lane() { return running_block("__activemask").lane(); }

void device_trap(const char* what) { running_block(what).fault(std::string(what)); }

}  // namespace reid_ops_emulation

// For callers that load the library with ctypes.
extern "C" const char* reid_ops_emulation_last_fault() { return reid_ops_emulation::last_fault(); }
extern "C" long long reid_ops_emulation_cluster_launches() { return reid_ops_emulation::cluster_launches(); }
extern "C" void reid_ops_emulation_clear_last_fault() { reid_ops_emulation::clear_last_fault(); }
