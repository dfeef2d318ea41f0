#!/usr/bin/env bash
# Proves the package: sdist -> wheel from the unpacked sdist -> clean environments -> the operators'
# tests, with one wheel under the torch it was built with and under the oldest torch it promises.
#   package_test.sh PYTHON        (a Python with torch, build, ninja, pybind11, pytest and hypothesis)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
oldest_torch=2.11.0
work=$root/build/package
rm -rf "$work"/{sdist,source,wheel,newest,run}
mkdir -p "$work"/{sdist,source,wheel,run}
export PATH="$(dirname "$python"):$PATH"  # torch looks for ninja there

echo "--- sdist"
"$python" -m build --sdist --no-isolation --outdir "$work/sdist" . >"$work/sdist.log" 2>&1 \
  || { cat "$work/sdist.log" >&2; exit 1; }
tar -xzf "$work"/sdist/*.tar.gz -C "$work/source" --strip-components=1
ls "$work/sdist"

echo "--- wheel from the unpacked sdist"
"$python" -m pip wheel -v --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$work/source" \
  >"$work/wheel.log" 2>&1 || { cat "$work/wheel.log" >&2; exit 1; }
grep -h 'reid-ops: ' "$work/wheel.log"
wheel=$(ls "$work"/wheel/*.whl)
ls -lh "$wheel"

# The tests, away from the checkout, so that only the installed package can be imported.
cp -r tests "$work/run/tests"
cat >"$work/run/pytest.ini" <<'INI'
[pytest]
addopts = --strict-markers
markers =
  cuda: needs a CUDA GPU
  emulated: not run here
  sanitize: small tests
  slow: takes more than a few seconds
INI

run_tests() {  # run_tests PYTHON
  cd "$work/run"
  "$1" -c 'import reid_ops, sys
assert reid_ops.__file__.startswith(sys.prefix), reid_ops.__file__
info = reid_ops.build_info()
print("torch", info["runtime_torch"], "built on", info["torch"], "CUDA", info["cuda"], "loaded", info["loaded"])
reid_ops._extension.require()'
  "$1" -m pytest -q -m "not emulated and not slow" -p no:cacheprovider \
    tests/part_correlation tests/test_operator_properties.py
  cd "$root"
}

echo "--- clean environment, the torch it was built with"
"$python" -m venv "$work/newest"
# Borrows torch and pytest from the building environment (gigabytes) instead of installing them again.
# Its own packages come first on the path, and the checkout is not on it at all.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  >"$("$work/newest/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
"$work/newest/bin/python" -m pip install -qq --no-index --no-deps "$wheel"
run_tests "$work/newest/bin/python"
# reid_models from the wheel, with its data; its other tests do not depend on how it was installed.
(cd "$work/run" && "$work/newest/bin/python" -m pytest -q -p no:cacheprovider \
  tests/models/{data/test_datasets,data/test_images,recipes/test_recipes,report/test_html}.py && "$work/newest/bin/reid" recipes omniglot_hsgnet >/dev/null)

echo "--- clean environment, torch $oldest_torch"
# Kept between runs: only the wheel is installed anew.
oldest=$work/torch-$oldest_torch
[ -x "$oldest/bin/python" ] || "$python" -m venv "$oldest"
"$oldest/bin/python" -m pip install -qq "torch==$oldest_torch" numpy pytest hypothesis
"$oldest/bin/python" -m pip install -qq --no-index --no-deps --force-reinstall "$wheel"
run_tests "$oldest/bin/python"
# There are none of the extras' packages here: help works, and a command says what to install.
cd "$work/run"
"$oldest/bin/reid" --help >/dev/null
status=0
"$oldest/bin/reid" recipes >"$work/recipes.log" 2>&1 || status=$?
cat "$work/recipes.log"
[ "$status" -eq 2 ] && [ "$(wc -l <"$work/recipes.log")" -eq 1 ] &&
  grep -q '^reid recipes: needs the package [a-z]*: pip install "reid-ops\[models\]"$' "$work/recipes.log"
