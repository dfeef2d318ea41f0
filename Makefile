# make demo | test | bench | lint | format | build | clean
#
# Each makes its own environment in .venv first. Variables:
#   PYTHON=python3.12        the Python that .venv is made from
#   TORCH="torch==2.11.0"    the torch to install; default: the newest of pip's index
#   REID_OPS_CUDA=0|1, CUDA_HOME, TORCH_CUDA_ARCH_LIST, MAX_JOBS    see setup.py

PYTHON ?= python3
TORCH ?= torch
VENV := .venv
RUN := $(VENV)/bin/python
STEP := tools/step.sh
# One stamp for each choice of torch, so that another TORCH= installs anew.
INSTALLED := $(VENV)/installed-$(subst /,-,$(subst =,-,$(TORCH)))
CPP_SOURCES = $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test bench lint format build clean
.DELETE_ON_ERROR:
.SILENT:
MAKEFLAGS += --no-print-directory

demo: build
	PYTHONPATH=models $(RUN) -m examples.main_job
	$(RUN) -m benchmarks part_correlation similarity_graph stripe_pool polygon_erasing augmentation k_reciprocal \
	  evaluate_ranking --quick --no-compile --threads all

bench: build
	$(RUN) -m benchmarks

# CUDA on or off as setup.py decides; the tools come first on PATH so that torch finds ninja.
build: $(INSTALLED)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(RUN) setup.py --quiet build_ext --inplace

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

# A local environment, by package name only: pip's own configuration says where packages come from.
$(INSTALLED): requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; set PYTHON=")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	echo "installing $(TORCH) and tools into $(VENV)"
	$(RUN) -m pip install -qq "$(TORCH)" -r requirements-dev.txt
	rm -f $(VENV)/installed-*
	touch $@

clean:
	rm -rf build dist *.egg-info reid_ops/*.so
