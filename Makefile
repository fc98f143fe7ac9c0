# `make demo`: from nothing to a small dataset and its pictures. `make test`, `make check`: what CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all check format docs gallery coverage dist-check benchmark bench gpu gpu-check clean

demo: $(VENV)/.base
	$(BIN)/ussim demo demo

test: $(VENV)/.all
	$(BIN)/python -c "from diffusers import UNet2DModel"
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/.all
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not peer"

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site: a warning (a link that leads nowhere, a page that is not in the menu) is an error.
docs: $(VENV)/.all
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The pictures and pages that scripts make: the gallery, the page beside MUST, the figures. A few minutes.
gallery: $(VENV)/.all
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/parity.py
	$(BIN)/python docs/figures.py

# The lines that the default tests run, by package; then the kernels' own, which the compiler hides, in plain Python.
coverage: $(VENV)/.all
	$(BIN)/python tests/measure_coverage.py

# The sdist and the wheel, in dist/: built, installed in an empty environment, and used there.
dist-check: $(VENV)/.all
	$(BIN)/python tests/check_dist.py

# Smoke runs of the two speed benchmarks, a minute: that they work, and roughly how fast. The files in benchmarks/results, which the
# README quotes, are made by the commands that each script names, on an idle machine.
benchmark: $(VENV)/.base
	$(BIN)/python benchmarks/simulate.py --quick --no-must -o build/benchmarks/simulate.json
	$(BIN)/python benchmarks/beamform.py --only ours --repeat 3 --out build/benchmarks/beamform.json

# Beside other toolkits, each in an environment of its own, then the tables of README and the site: 20 minutes on two cores.
bench: $(VENV)/.base
	$(BIN)/python benchmarks/peers

# On a machine with an NVIDIA card, by a Python that has numpy, scipy, numba, CuPy and pytest (PYTHON=...; no environment is made): its
# report, the tests on it and the benchmark, into OUT, in under nine minutes. Without a card it fails.
OUT ?= build/gpu
gpu:
	$(PYTHON) benchmarks/gpu_report.py $(OUT)

# The kernels under compute-sanitizer and Nsight Compute.
gpu-check:
	$(PYTHON) benchmarks/gpu_report.py $(OUT) --check

# What the packages need on a CPU.
$(VENV)/.base: pyproject.toml constraints.txt
	@echo "an environment in $(VENV), and the packages into it: half a minute to a few"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

# Training, tests and the checkers too. PyTorch is the CPU build that constraints.txt pins.
$(VENV)/.all: pyproject.toml constraints.txt
	@echo "an environment in $(VENV), and PyTorch and all else into it: some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[all]"
	@touch $@ $(VENV)/.base

clean:
	rm -rf $(VENV) demo build dist *.egg-info
	find ussim datagen irsde tests -name __pycache__ -prune -exec rm -rf {} +
