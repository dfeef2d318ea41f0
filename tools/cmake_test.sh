#!/usr/bin/env bash
# Builds the C++ side without CUDA (and runs its tests), then with CUDA where there is a toolkit.
#   cmake_test.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
jobs=${MAX_JOBS:-$(nproc)}

cmake -S . -B build/cmake-cpu -DPython3_EXECUTABLE="$python" -DREID_OPS_CUDA=OFF
cmake --build build/cmake-cpu --parallel "$jobs"
ctest --test-dir build/cmake-cpu --output-on-failure

if "$python" -m tools.cmake_config | grep '^NVCC=' >/dev/null; then
  # One architecture is enough here: the resource report and the wheel compile the others.
  cmake -S . -B build/cmake-cuda -DPython3_EXECUTABLE="$python" -DREID_OPS_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real
  cmake --build build/cmake-cuda --parallel "$jobs"
elif [ "${REID_OPS_CUDA:-}" = 1 ]; then
  echo "error: REID_OPS_CUDA=1 can't be met: no nvcc for the CMake build" >&2
  exit 1
else
  echo "skipped: no CUDA toolkit"
fi
