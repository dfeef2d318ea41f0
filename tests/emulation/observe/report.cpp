// What was observed, kept until somebody takes it, as one JSON object a line. Code is named by its offset in
// the library, for addr2line.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <tuple>

#include "watch.h"

namespace reid_ops_emulation {
namespace {

struct Races {
  std::uint64_t count = 0;
  std::string example;  // the rest of the JSON object
};
using RaceKey = std::tuple<std::uintptr_t, std::uintptr_t, bool, bool, Space>;

struct Findings {
  std::mutex mutex;
  bool profiles = false, detects = false;
  std::map<RaceKey, Races> races;
  std::string profiles_text;

  Findings() {
    const char* const wish = std::getenv("REID_OPS_EMULATION_OBSERVE");
    if (wish == nullptr) return;
    profiles = std::strstr(wish, "profile") != nullptr;
    detects = std::strstr(wish, "races") != nullptr;
  }
  ~Findings();
};

Findings& findings() {
  static Findings everything;
  return everything;
}

std::uintptr_t library_begin() {
  static const std::uintptr_t begin = [] {
    Dl_info info;
    return dladdr(reinterpret_cast<const void*>(&library_begin), &info) == 0
               ? std::uintptr_t{0}
               : reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  }();
  return begin;
}

template <typename... Values>
std::string format(const char* text, Values... values) {
  char line[512];
  std::snprintf(line, sizeof(line), text, values...);
  return line;
}

// A return address is behind its call.
unsigned long long offset(std::uintptr_t place) { return place - 1 - library_begin(); }

const char* name_of(Space space) {
  return space == Space::kGlobal ? "global" : space == Space::kShared ? "shared" : "wait";
}

std::string launch_text(const LaunchFacts& launch) {
  return format(
      "\"kernel\": %llu, \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"dynamic_shared\": %zu, "
      "\"cluster_blocks\": %u",
      static_cast<unsigned long long>(launch.kernel - library_begin()), launch.grid.x, launch.grid.y,
      launch.grid.z, launch.block.x, launch.block.y, launch.block.z, launch.dynamic_shared,
      launch.cluster_blocks);
}

bool write_all(Findings& everything, const char* path) {
  std::FILE* const file = std::fopen(path, "a");
  if (file == nullptr) return false;
  std::fputs(everything.profiles_text.c_str(), file);
  for (const auto& [key, races] : everything.races) {
    std::fprintf(file, "{\"type\": \"race\", \"count\": %llu, %s}\n",
                 static_cast<unsigned long long>(races.count), races.example.c_str());
  }
  everything.profiles_text.clear();
  everything.races.clear();
  return std::fclose(file) == 0;
}

Findings::~Findings() {
  const char* const path = std::getenv("REID_OPS_EMULATION_REPORT");
  if (path != nullptr && !write_all(*this, path)) {
    std::fprintf(stderr, "reid_ops emulation: cannot write what was observed to %s\n", path);
    std::abort();
  }
}

std::unique_ptr<LaunchObserver> observe(const cudaLaunchConfig_t& config, const KernelCall& call,
                                        unsigned int cluster_blocks) {
  const Findings& wish = findings();
  if (!wish.profiles && !wish.detects) return nullptr;
  const LaunchFacts facts = {reinterpret_cast<std::uintptr_t>(call.kernel), config.gridDim, config.blockDim,
                             config.dynamicSmemBytes, cluster_blocks};
  return std::make_unique<LaunchWatch>(facts, call, wish.profiles, wish.detects);
}

const struct Registration {
  Registration() { observe_launch = &observe; }
} registration;

}  // namespace

void keep_race(const LaunchFacts& launch, const RaceEnd& before, const RaceEnd& now, Space space) {
  Findings& everything = findings();
  const std::lock_guard<std::mutex> lock(everything.mutex);
  Races& races = everything.races[{before.place, now.place, before.write, now.write, space}];
  if (races.count++ != 0) return;
  const auto end = [](const RaceEnd& each) {
    return format("{\"place\": %llu, \"write\": %s, \"block\": %u, \"thread\": %u}", offset(each.place),
                  each.write ? "true" : "false", each.block, each.thread);
  };
  const char* const running_test = std::getenv("PYTEST_CURRENT_TEST");
  std::string test = running_test == nullptr ? "" : running_test;
  test.erase(
      std::remove_if(test.begin(), test.end(), [](char c) { return c == '"' || c == '\\' || c < ' '; }),
      test.end());
  races.example = launch_text(launch) + ", \"space\": \"" + name_of(space) +
                  "\", \"before\": " + end(before) + ", \"now\": " + end(now) + ", \"test\": \"" + test +
                  "\"";
}

void keep_profile(const LaunchFacts& launch, const std::vector<Site>& sites,
                  const std::vector<Tensor>& tensors) {
  std::string text = "{\"type\": \"launch\", " + launch_text(launch) + ", \"sites\": [";
  const char* between = "";
  for (const Site& site : sites) {
    const char* const kind = site.kind == Kind::kRead    ? "read"
                             : site.kind == Kind::kWrite ? "write"
                                                         : "atomic";
    text += format(
        "%s{\"place\": %llu, \"space\": \"%s\", \"kind\": \"%s\", \"size\": %u, \"requests\": %llu, "
        "\"lanes\": %llu, \"units\": %llu, \"ideal_units\": %llu}",
        between, offset(site.place), name_of(site.space), kind, site.size,
        static_cast<unsigned long long>(site.requests), static_cast<unsigned long long>(site.lanes),
        static_cast<unsigned long long>(site.units), static_cast<unsigned long long>(site.ideal_units));
    between = ", ";
  }
  text += "], \"tensors\": [";
  between = "";
  for (const Tensor& tensor : tensors) {
    text += format(
        "%s{\"argument\": %d, \"read\": %llu, \"written\": %llu, \"sectors_read\": %llu, "
        "\"sectors_written\": %llu}",
        between, tensor.argument, static_cast<unsigned long long>(tensor.totals.read),
        static_cast<unsigned long long>(tensor.totals.written),
        static_cast<unsigned long long>(tensor.totals.sectors_read),
        static_cast<unsigned long long>(tensor.totals.sectors_written));
    between = ", ";
  }
  text += "]}\n";
  Findings& everything = findings();
  const std::lock_guard<std::mutex> lock(everything.mutex);
  everything.profiles_text += text;
}

}  // namespace reid_ops_emulation

// For callers that load the library with ctypes: what to observe from now on, and what was observed, appended
// to a file and forgotten. 0: done.
extern "C" void reid_ops_emulation_observe(int profiles, int detects) {
  auto& everything = reid_ops_emulation::findings();
  const std::lock_guard<std::mutex> lock(everything.mutex);
  everything.profiles = profiles != 0;
  everything.detects = detects != 0;
}
extern "C" int reid_ops_emulation_take(const char* path) {
  auto& everything = reid_ops_emulation::findings();
  const std::lock_guard<std::mutex> lock(everything.mutex);
  return reid_ops_emulation::write_all(everything, path) ? 0 : 1;
}
