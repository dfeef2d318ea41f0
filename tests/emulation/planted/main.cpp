// As a program: `planted NAME buggy|corrected` prints the error's name. As a library: run_planted.
#include <cstdio>
#include <cstring>

#include "planted.h"

std::vector<planted::Entry>& planted::entries() {
  static std::vector<Entry> all;
  return all;
}

extern "C" int run_planted(const char* name, int corrected) {
  for (const planted::Entry& entry : planted::entries()) {
    if (std::strcmp(entry.name, name) == 0) return entry.run(corrected != 0);
  }
  return -1;
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const int error = run_planted(arguments[1], std::strcmp(arguments[2], "corrected") == 0);
  if (error < 0) return 3;
  std::printf("%s\n", cudaGetErrorName(static_cast<cudaError_t>(error)));
  return error == cudaSuccess ? 0 : 1;
}
