# make demo and make test set themselves up: .venv is made when it is missing and reused when it is not.
PYTHON ?= python3
BIN := .venv/bin
# Byte-compiling all of TensorFlow costs more than importing the part that is used.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Tests start many processes. Bytecode is kept for all of them, outside the source folders, even if the environment
# forbids Python to write it: compiling TensorFlow's modules again takes each process 6 s.
KEEP_BYTECODE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.venv/bytecode

# Environments beside .venv: the Python, TensorFlow and Keras of each. constraints.txt holds for .venv alone.
PYTHON_oldest ?= python3.10
PYTHON_middle ?= python3.12
PYTHON_nightly ?= $(PYTHON)
VERSIONS_oldest := "tensorflow==2.18.*" "keras==3.10.*"
VERSIONS_middle := "tensorflow==2.20.*" "keras==3.12.*"
run_in = $(KEEP_BYTECODE) .venv-$1/bin/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal $(ARGS)

# The tests of `make check`: those of rooms that others build on, and a few with no training, process or server.
QUICK := tests/common tests/layers/test_contract.py tests/layers/test_layers.py tests/layers/test_site_layers.py \
  tests/models/test_models.py tests/models/test_plans.py tests/models/test_surgery_edges.py \
  tests/training/test_losses_metrics.py tests/serving/test_monte_carlo_cut.py tests/sweep/test_sweep_space.py \
  tests/cli/test_options.py tests/test_evidence.py tests/test_house.py

.PHONY: help check quick demo test test-more test-all test-backends test-oldest test-middle test-nightly test-published lint docs bench evidence clean

help:  ## prints this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

check: .venv/dev  ## runs lint and quick, for the inner loop
	@$(MAKE) --no-print-directory -j 2 lint quick

demo: .venv/core  ## trains, samples and exports two models; writes demo/report.html
	$(KEEP_BYTECODE) $(BIN)/dropzoo demo --out demo

test: .venv/dev  ## runs the tests, in six minutes on two cores; leaves out most cases of tests that take seconds
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal --cases main

test-more: .venv/dev  ## runs all tests but the slow ones, in a quarter of an hour, before a change is merged
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal $(ARGS)

test-all: .venv/dev  ## runs every case of every test and the slow ones, for an hour or two, before a release
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal --cases all -m "not gpu" \
	  --ignore tests/published

test-backends: .venv/backends  ## runs the layers, models and rate schedules on JAX and PyTorch
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -q -rs tests/layers/test_backends.py

test-oldest: .venv-oldest/dev  ## runs the tests on the oldest TensorFlow, Keras and Python (ARGS="tests/layers --cases few")
	$(call run_in,oldest)

test-middle: .venv-middle/dev  ## runs the tests on a TensorFlow and a Keras in the middle of the supported range
	$(call run_in,middle)

test-nightly: .venv-nightly/dev  ## runs the tests on the newest TensorFlow with the nightly build of Keras
	$(call run_in,nightly)

test-published: .venv/published  ## tries networks that others publish, from five packages, for half an hour
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -q -m slow tests/published

quick: .venv/dev  ## runs the first cases of each test in the files of QUICK
	@$(KEEP_BYTECODE) $(BIN)/python -m pytest -q --cases few -n auto --maxprocesses 4 --dist worksteal $(QUICK)

# No test runs the benchmarks: the type checker sees whether they still fit what they measure.
lint: .venv/dev  ## checks format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p dropzoo
	$(BIN)/mypy benchmarks

docs: .venv/docs  ## builds the site into docs/_build/html, runs its tutorials, and checks its links
	$(KEEP_BYTECODE) $(BIN)/python -m sphinx -W --keep-going -j 2 -q -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/links.py docs/_build/html

bench: .venv/dev  ## runs the benchmarks that need no data, GPU, extra or hours; writes CSV files under benchmarks/results
	@for script in $(filter-out $(addprefix benchmarks/,gpu.py demo.py accuracy.py input_pipeline.py nuclei_intervals.py predictions.py recipes.py runtimes.py serving_forms.py),$(wildcard benchmarks/[a-z]*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

evidence: .venv/dev  ## tries claims on dropout, for hours; writes docs/evidence.md (ARGS="--list", "--claim 13", "--quick")
	$(BIN)/python benchmarks/evidence/run.py $(ARGS)

clean:  ## removes the environments, and all that the other targets made
	rm -rf .venv .venv-* build dist demo runs docs/_build docs/api/generated src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/core: pyproject.toml constraints.txt
	@echo "Setting up .venv (TensorFlow, Keras and friends; about a minute, more on a slow line)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/dev: .venv/core
	$(PIP) -e ".[dev]"
	@touch $@

.venv/docs: .venv/dev
	$(PIP) -e ".[docs]"
	@touch $@

# An old pip takes a quarter of an hour to choose the versions.
.venv-%/dev: pyproject.toml
	@echo "Setting up .venv-$*"
	test -x .venv-$*/bin/python || $(PYTHON_$*) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-$*/bin/python -m pip install --quiet --no-compile -e ".[dev]" $(VERSIONS_$*)
	$(if $(filter nightly,$*),.venv-nightly/bin/python -m pip uninstall --quiet --yes keras && \
	  .venv-nightly/bin/python -m pip install --quiet --no-compile --no-deps --pre --force-reinstall keras-nightly)
	@touch $@

.venv/backends: .venv/dev
	$(PIP) -e ".[backends]"
	@touch $@

.venv/published: .venv/dev
	$(PIP) -e ".[published]"
	@touch $@
