# make demo and make test set themselves up: .venv is made when it is missing and reused when it is not.
PYTHON ?= python3
BIN := .venv/bin
# Byte-compiling all of TensorFlow costs more than importing the part that is used.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test lint bench evidence clean

demo: .venv/core  ## train, sample, export; writes demo/report.html
	$(BIN)/dropzoo demo --out demo

test: .venv/dev  ## the fast test suite
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

lint: .venv/dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p dropzoo

bench: .venv/dev  ## every benchmark; CSV files under benchmarks/results
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

evidence: .venv/dev  ## the ten claims, some hours; make evidence ARGS=--quick for minutes; docs/evidence.md
	$(BIN)/python benchmarks/evidence/run.py $(ARGS)

clean:
	rm -rf .venv build dist demo runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/core: pyproject.toml constraints.txt
	@echo "Setting up .venv (TensorFlow, Keras and friends; about a minute, more on a slow line)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/dev: .venv/core
	$(PIP) -e ".[dev]"
	@touch $@
