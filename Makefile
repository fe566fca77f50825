# Two commands from a fresh clone: `make demo` and `make test`. Each sets up .venv and does the rest.
# They need Python >= 3.11, pip and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# one environment a framework, since their stacks do not agree with one another
VENVS ?= .venvs
FRAMEWORKS := pytorch keras jax sklearn escnn
SHARED ?= ../shared
RUNS ?= runs

.PHONY: vega demo test quick lint types contracts check bench real-models models wheel clean setup exporters extras paper paper-fast findings

demo: setup            ## run the shipped suite, write its page, and tell what the numbers say
	$(BIN)/geed-onnx run models/demo.toml -o $(RUNS)/demo --page $(RUNS)/demo/report.html
	$(BIN)/geed-onnx demo -o $(RUNS)/demo
	@echo "the page: $(RUNS)/demo/report.html"

# test files side by side, one a core
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

test: setup            ## all tests
	$(PYTEST)

quick: setup           ## a developer's loop: all but the slow tests
	$(PYTEST) -m "not slow" -x

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
	$(BIN)/python benchmarks/many_cells.py
	$(BIN)/python benchmarks/coverage.py

real-models: setup     ## the table of third-party files; SHARED holds models-real/ and data/
	$(BIN)/python benchmarks/real_models.py $(SHARED)

extras: $(VENVS)/extras/.ready   ## Ray and MLflow: a real local cluster, a real local server
	$(VENVS)/extras/bin/python -m pytest tests/extras

exporters: $(FRAMEWORKS:%=exporter-%)   ## build every framework's environment and run its exporter's tests

exporter-%: $(VENVS)/%/.ready   ## one of them: make exporter-keras
	$(VENVS)/$*/bin/python -m pytest exporters/tests/$*

models: $(FRAMEWORKS:%=$(VENVS)/%/.ready)   ## train the shipped models again, each with its framework
	for each in $(FRAMEWORKS); do $(VENVS)/$$each/bin/pip install -q -e ".[$$each,train]" || exit 1; done
	$(VENVS)/pytorch/bin/python models/train_pytorch.py
	$(VENVS)/keras/bin/python models/train_keras.py
	$(VENVS)/keras/bin/python models/train_keras.py --copy models/shipped/digits-cnn.safetensors
	$(VENVS)/jax/bin/python models/train_flax.py
	$(VENVS)/escnn/bin/python models/train_c8.py
	$(VENVS)/sklearn/bin/python models/train_sklearn.py
	$(VENVS)/sklearn/bin/python models/quantise.py

# the paper's experiments: train, measure, draw, write the page of findings; SHARED holds data/
ESCNN := $(VENVS)/escnn/bin/python -W ignore
paper-fast: PAPER := --fast
paper paper-fast: setup $(VENVS)/escnn/.ready   ## all of them (hours); paper-fast: their small form, into runs/paper-fast
	$(ESCNN) -m experiments.augmentation.train $(PAPER) --shared $(SHARED)
	$(ESCNN) -m experiments.pretraining.train $(PAPER) --shared $(SHARED)
	$(ESCNN) -m experiments.self_supervision.train $(PAPER) --shared $(SHARED)
	$(ESCNN) -m experiments.robustness.resize $(PAPER) --shared $(SHARED)
	$(ESCNN) -m experiments.out_of_distribution.untrained $(PAPER) --shared $(SHARED)
	$(BIN)/python -m experiments.out_of_distribution.prepare $(PAPER) --shared $(SHARED)
	$(BIN)/python -m experiments.measure $(PAPER)
	$(BIN)/python -m experiments.findings.page $(PAPER)

findings: setup        ## the page of findings and its figures, from the results in the repository
	$(BIN)/python -m experiments.findings.page

wheel: setup           ## build the wheel and try it in an isolated environment
	rm -rf dist && $(BIN)/python -m build --wheel -o dist .
	sh tests/try_wheel.sh "$(PYTHON)" dist/*.whl

vega:                  ## bundle what the page draws with, at the versions of its package.json; needs npm and the network
	cd geed_onnx/reports/page/vega && npm ci && npm run build && rm -rf node_modules meta.json

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "geed-onnx needs Python 3.11 or later, but $(PYTHON) is `$(PYTHON) --version 2>&1`: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

$(VENVS)/%/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENVS)/$*
	$(VENVS)/$*/bin/python -m pip install -q --upgrade pip
	$(VENVS)/$*/bin/python -m pip install -q -e '.[$*]' 'pytest>=8.0'
	@# escnn's own requirements do not build beside a current NumPy; the extra brings what it really needs
	if [ $* = escnn ]; then $(VENVS)/$*/bin/python -m pip install -q --no-deps escnn==1.0.11; fi
	@touch $@

$(VENVS)/extras/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENVS)/extras
	$(VENVS)/extras/bin/python -m pip install -q --upgrade pip
	$(VENVS)/extras/bin/python -m pip install -q -e '.[ray,mlflow]' 'pytest>=8.0' 'hypothesis>=6.100'
	@touch $@

.PRECIOUS: $(VENVS)/%/.ready

clean:
	rm -rf $(VENV) $(VENVS) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
