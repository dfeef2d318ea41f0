#!/usr/bin/env bash
# The operators' tests, on the CPU and emulated, under several releases of torch and Python.
#   tools/torch_matrix.sh [--torch "2.11 2.14"] [--python "3.11 3.12"] [--small] [--once]
#     --torch, --python   releases to take; default: all that are supported
#     --small             the tests that are marked as small: a minute or two instead of many
#     --once              builds under the first torch of each Python and runs that under the others, as a wheel does
# What can't be installed is skipped with the reason. Environments, of several gigabytes, are made one at a time in
# build/matrix and removed. A table ends it; the exit status is 1 if something failed, or if nothing could be run.
set -uo pipefail  # no -e: a failure is a line of the table
cd "$(dirname "$0")/.."
torches="2.11 2.12 2.13 2.14 2.15" pythons="3.10 3.11 3.12 3.13" selection=() once=
usage() {
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --torch | --python)
      [ -n "${2:-}" ] || usage
      [ "$1" = --torch ] && torches=$2 || pythons=$2
      shift
      ;;
    --small) selection=(-m "sanitize and not cuda") ;;
    --once) once=yes ;;
    *) usage ;;
  esac
  shift
done

root=$PWD work=$PWD/build/matrix
copy=$work/copy environment=$work/environment
export REID_OPS_CUDA=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$work"
trap 'rm -rf "$copy" "$environment"' EXIT
rows=() failed=0 ran=0 reason=

row() {  # row PYTHON TORCH RESULT
  rows+=("$(printf '%-8s %-8s %s' "$1" "$2" "$3")")
  printf '=== Python %s, torch %s: %s\n' "$1" "$2" "$3"
}

fresh_copy() {  # the checkout as it is, without what was built in it
  rm -rf "$copy"
  mkdir -p "$copy"
  { git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - 2>/dev/null; } |
    tar -xf - -C "$copy"
}

install() {  # install PYTHON TORCH LOG: an environment with that torch; else the reason
  rm -rf "$environment"
  if ! "python$1" -c 'import ensurepip, venv' >"$3" 2>&1; then
    reason="no python$1 that makes environments"
    return 1
  fi
  if ! "python$1" -m venv "$environment" >"$3" 2>&1 ||
    ! "$environment/bin/python" -m pip install -qq --no-compile "torch==$2.*" -r requirements-build.txt \
      hypothesis packaging pytest scipy >"$3" 2>&1; then
    reason=$(grep -i '^error' "$3" | tail -1 | cut -c1-90)
    reason=${reason:-see $3}
    return 1
  fi
}

build() {  # build LOG: the extension and the emulated kernels, in the copied checkout
  unset REID_OPS_EMULATED_LIBRARY
  (
    cd "$copy" && export PATH="$environment/bin:$PATH" &&
      python setup.py --quiet build_ext --inplace && python -m tests.emulation.build
  ) >"$1" 2>&1 || return 1
  REID_OPS_EMULATED_LIBRARY=$(tail -1 "$1") && export REID_OPS_EMULATED_LIBRARY
}

run_tests() {  # run_tests LOG
  local files=(tests/test_dispatch.py tests/test_operator_properties.py) folder
  for folder in tests/*/; do
    case $folder in tests/models/ | tests/emulation/ | tests/cpp/ | *__pycache__/) ;; *) files+=("$folder") ;; esac
  done
  (cd "$copy" && PATH="$environment/bin:$PATH" python -m pytest -q -p no:cacheprovider \
    "${selection[@]}" "${files[@]}") >"$1" 2>&1
}

for python in $pythons; do
  fresh_copy
  built=
  for torch in $torches; do
    log=$work/python$python-torch$torch
    if ! install "$python" "$torch" "$log-install.log"; then
      row "$python" "$torch" "skipped: $reason"
      continue
    fi
    ran=$((ran + 1))
    exact=$("$environment/bin/python" -c 'import torch; print(torch.__version__)')
    if [ -z "$once" ] || [ -z "$built" ]; then
      if ! build "$log-build.log"; then
        failed=$((failed + 1))
        row "$python" "$exact" "FAILED: does not build, see ${log#"$root/"}-build.log"
        continue
      fi
      built=$exact
    fi
    if run_tests "$log-tests.log"; then
      row "$python" "$exact" "$(tail -1 "$log-tests.log"), built with $built"
    else
      failed=$((failed + 1))
      row "$python" "$exact" "FAILED: $(tail -1 "$log-tests.log"), built with $built, see ${log#"$root/"}-tests.log"
    fi
  done
done

printf '\n%-8s %-8s %s\n' Python torch result
printf '%s\n' "${rows[@]}"
printf '%d passed, %d failed\n' $((ran - failed)) "$failed"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ]
