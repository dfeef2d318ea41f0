#!/usr/bin/env bash
# Everything that needs a GPU, in one go and under ten minutes: build, tests, sanitizers, benchmarks.
#   OUT=results PYTHON=python3 tools/gpu_check.sh
# Needs torch (CUDA build), nvcc, numpy, pytest and, for the benchmarks, rich; uses ninja, pybind11, hypothesis and
# compute-sanitizer where they are. Nothing of the extras: only the operators' tests are run.
set -uo pipefail  # no -e: a failing step is reported at the end and does not hide the later ones
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu_check}
mkdir -p "$out"
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
python=$(command -v "$python")
export PATH="$(dirname "$python"):$PATH"
failed=() SECONDS=0
deadline=590  # seconds from the start; the limits below add up to less

step() {  # step NAME LIMIT COMMAND...: output on the screen and in $out/NAME.log
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  printf '\n=== %s\n' "$name"
  [ "$limit" -le $((deadline - start)) ] || limit=$((deadline - start))
  if [ "$limit" -lt 1 ]; then
    echo "no time left"
    failed+=("$name")
    return
  fi
  timeout -k 2 "$limit" "$@" 2>&1 | tee "$out/$name.log"
  local status=${PIPESTATUS[0]}
  printf '=== %s: status %d after %d s\n' "$name" "$status" $((SECONDS - start))
  [ "$status" -eq 0 ] || failed+=("$name")
}

"$python" - <<'PYTHON' || exit 1
import importlib.util
import torch
if not torch.cuda.is_available():
    raise SystemExit("error: torch sees no CUDA GPU")
if importlib.util.find_spec("pytest") is None:
    raise SystemExit("error: pytest is missing")
print(torch.__version__, torch.cuda.get_device_name(), torch.cuda.get_device_capability())
PYTHON
# These only help: the build does without the first two, slower or with torch's own copy; tests of the laws and
# the tables of benchmarks need the others.
for module in ninja pybind11 hypothesis rich; do
  "$python" -c "import $module" 2>/dev/null ||
    timeout 10 "$python" -m pip install -qq --retries 0 --timeout 5 "$module" 2>/dev/null || echo "without $module"
done

# Only this GPU's architecture: the build takes a sixth of the time.
TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
export TORCH_CUDA_ARCH_LIST REID_OPS_CUDA=1

# Every file with tests on CUDA (tests/test_build.py compares): what else lies in tests/ stands on the extras.
tests=(tests/test_operator_properties.py tests/robustness/test_{modes,raw_operators}.py
  tests/augmentation/test_augmentation.py tests/part_correlation/test_{part_correlation,torch}.py
  tests/polygon_erasing/test_{erase,in_place,input,torch,transforms}.py
  tests/similarity_graph/test_{graph,hsgm,hsgm_cluster,hsgm_module,hsgm_tools,hsgm_torch}.py
  tests/k_reciprocal/test_{input,lists,rerank,torch}.py tests/metrics/test_ranking.py tests/search/test_torch.py
  tests/stripe_pool/test_{torch,windows}.py)

step build 140 "$python" setup.py --quiet build_ext --inplace
step tests 100 "$python" -m pytest -q -m cuda -p no:cacheprovider "${tests[@]}"

# compute-sanitizer slows kernels 10 to 100 times: the small tests marked for sanitizers are enough.
sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck initcheck; do
    # Without torch's caching allocator every tensor is an allocation of its own, whose ends are watched.
    step "$tool" 30 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
      "$sanitizer" --tool "$tool" --error-exitcode 1 --target-processes all \
      "$python" -m pytest -q -m "sanitize and cuda" -p no:cacheprovider "${tests[@]}"
  done
else
  echo "skipped: no compute-sanitizer"
fi

# HSGM's evaluation on Hopper and later: by default an image in a cluster's shared memory (one read), against
# the generic kernels (two reads) and other sizes of the cluster. A size that does not fit fails its step.
inference=(-m benchmarks similarity_graph --device cuda --mode inference --dtype float32 bfloat16 --quick)
for blocks in auto 0 8 16; do
  step "hsgm_cluster_$blocks" 30 env REID_OPS_HSGM_CLUSTER=$blocks "$python" "${inference[@]}" \
    --json "$out/hsgm_cluster_$blocks.json"
done

# A first look at the operators; without --quick, which compiles and takes long, call it by itself.
operators=(augmentation evaluate_ranking k_reciprocal part_correlation polygon_erasing similarity_graph stripe_pool)
step benchmarks 100 "$python" -m benchmarks "${operators[@]}" --device cuda --quick --json "$out/benchmarks"

# What the model predicted (for an H200) beside what was measured here.
step predicted 8 "$python" -m tools.gpu_model --measured "$out/benchmarks"

if [ "${#failed[@]}" -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all passed"
