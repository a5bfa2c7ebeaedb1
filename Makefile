# `make demo` and `make test` work from a clean clone with Python >= 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The CPU build of JAX looks for no accelerator; unset on a machine that has one.
export JAX_PLATFORMS ?= cpu

.PHONY: help demo test quick test-slow bench reproduce architecture lint format clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.installed ## run the main job on the built-in data and write a report
	$(BIN)/maml-jax run --out "runs/demo-$$(date +%Y-%m-%d-%H%M%S)"

quick: $(VENV)/.test ## the tests that are run before each commit: minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long"

test: $(VENV)/.test ## all tests but the heaviest
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/.slow ## the heavy checks: minutes to hours
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.bench ## time everything against its peers; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks --peers

reproduce: $(VENV)/.installed ## compute known figures anew: make reproduce NAME=sinusoid
	$(BIN)/python -m benchmarks.reproduce $(NAME)

architecture: $(VENV)/.installed ## draw the packages and their imports: docs/architecture/packages.svg
	$(BIN)/python docs/architecture/draw.py

lint: $(VENV)/.lint ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads

format: $(VENV)/.lint ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was installed and built
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "maml_jax needs Python >= 3.11; name one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.slow: $(VENV)/.test
	$(PIP) backtesting==0.6.6 quantstats==0.0.86 vectorbt==1.2.0
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) torch==2.13.0
	$(PIP) -e '.[peers]'
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) -e '.[lint]'
	@touch $@
