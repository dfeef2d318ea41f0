# make demo | test | bench | lint | format | build | clean
#
# Each makes its own environment in .venv first. Variables:
#   PYTHON=python3.12        the Python that .venv is made from
#   TORCH="torch==2.11.0"    the torch to install; default: the newest of pip's index
#   REID_OPS_CUDA=0|1, CUDA_HOME, TORCH_CUDA_ARCH_LIST, MAX_JOBS    see setup.py; `make demo` leaves CUDA out
#                            where there is no GPU, unless REID_OPS_CUDA=1

PYTHON ?= python3
TORCH ?= torch
VENV := .venv
RUN := $(VENV)/bin/python
STEP := tools/step.sh
PIP := $(RUN) -m pip install -qq --no-compile
# Stamps, one for each choice of torch, so that another TORCH= installs anew: torch and what the build needs;
# what the demo needs; all the rest. Bytecode is left to the first import: the demo imports a part.
CHOICE := $(subst /,-,$(subst =,-,$(TORCH)))
BUILDS := $(VENV)/builds-$(CHOICE)
RUNS := $(VENV)/runs-$(CHOICE)
INSTALLED := $(VENV)/installed-$(CHOICE)
CPP_SOURCES = $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo demo-job test bench lint format build extension clean
.DELETE_ON_ERROR:
.SILENT:
MAKEFLAGS += --no-print-directory

demo:
	$(STEP) "demo" $(MAKE) demo-job

# Compilers and pip run side by side.
demo-job: $(BUILDS)
	$(MAKE) -j2 $(RUNS) extension BUILD_OPTIONS=--no-cuda-without-gpu
	PYTHONPATH=models $(RUN) -m examples.main_job

bench: build $(INSTALLED)
	$(RUN) -m benchmarks

# CUDA on or off as setup.py decides.
build: extension

# The tools come first on PATH so that torch finds ninja.
extension: $(BUILDS)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(RUN) -m tools.quiet_build $(BUILD_OPTIONS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_SOURCES)

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CPP_SOURCES)

test: $(INSTALLED)
	$(STEP) "lint and types" $(MAKE) lint
	$(STEP) "build in place" $(MAKE) build
	$(STEP) "CUDA kernels: registers, spills, shared memory" $(RUN) -m tools.cuda_resources --if-available
	$(STEP) "tests (CPU, and CUDA where there is a GPU)" $(RUN) -m pytest -q -m "not emulated"
	$(STEP) "tests of the CUDA kernels, emulated" $(RUN) -m pytest -q -m emulated
	$(STEP) "emulated kernels under sanitizers" $(RUN) -m tools.sanitizer_test
	$(STEP) "C++ library and tests by CMake" tools/cmake_test.sh $(RUN)
	$(STEP) "package: sdist, wheel, clean environments" tools/package_test.sh $(RUN)

# A local environment, by package name only: pip's own configuration says where packages come from. torchvision
# is chosen along with torch, since each of its releases wants one release of torch.
$(BUILDS): requirements-build.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; set PYTHON=")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	echo "installing $(TORCH) into $(VENV)"
	$(PIP) "$(TORCH)" torchvision -r requirements-build.txt
	rm -f $(VENV)/builds-* $(VENV)/runs-* $(VENV)/installed-*
	touch $@

# faiss-cpu and faiss-gpu fill one folder: of two the second to go takes the first's files along.
$(RUNS): $(BUILDS) requirements-demo.txt
	echo "installing what the models need"
	$(RUN) -m pip uninstall -qq -y faiss-cpu faiss-gpu 2>/dev/null
	$(PIP) "$(TORCH)" -r requirements-demo.txt
	touch $@

$(INSTALLED): $(RUNS) requirements-dev.txt
	echo "installing what the tests need"
	$(PIP) "$(TORCH)" -r requirements-dev.txt
	touch $@

clean:
	rm -rf build dist *.egg-info reid_ops/*.so
