# Two commands from a fresh clone: `make demo` and `make test`. Each sets up .venv and does the rest.
# They need Python >= 3.11, pip and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHARED ?= ../shared

.PHONY: demo test quick lint types contracts check bench real-models models wheel clean setup

demo: setup            ## measure the shipped models and print the table
	$(BIN)/geed-onnx demo

test: setup            ## all tests
	$(BIN)/python -m pytest

quick: setup           ## a developer's loop: all but the slow tests
	$(BIN)/python -m pytest -m "not slow" -x

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

check: lint types contracts

bench: setup           ## figures of benchmarks/RESULTS.md
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/rotation.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/coverage.py

real-models: setup     ## the table of third-party files; SHARED holds models-real/ and data/
	$(BIN)/python benchmarks/real_models.py $(SHARED)

models: setup          ## train the shipped models again (needs torch: about two minutes)
	$(BIN)/pip install -q -e '.[train]'
	$(BIN)/python models/train.py --out models/shipped

wheel: setup           ## build the wheel and try it in an isolated environment
	rm -rf dist && $(BIN)/python -m build --wheel -o dist .
	sh tests/try_wheel.sh "$(PYTHON)" dist/*.whl

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "geed-onnx needs Python 3.11 or later, but $(PYTHON) is `$(PYTHON) --version 2>&1`: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
