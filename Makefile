# Every target sets up what it needs, once: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
GRULAB := $(VENV)/bin/grulab
STAMP := $(VENV)/.installed

# The sweep this project is about; change or add overrides with ARGS="...".
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train sweep board test check format clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard src/grulab/kernels/*.[ch])
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"grulab needs Python 3.11, 3.12 or 3.13, this is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(STAMP)  ## one run with the defaults (ARGS="model.hidden_size=32" changes them)
	$(GRULAB) train $(ARGS)

sweep: $(STAMP)  ## the default sweep: hidden size x layers x direction x seed
	$(GRULAB) train -m experiment=architecture $(ARGS)

board: $(STAMP)  ## TensorBoard on the newest sweep (ARGS="outputs" shows everything)
	$(GRULAB) board $(ARGS)

test: $(STAMP)  ## the test suite
	$(VENV)/bin/python -m pytest -n auto $(ARGS)

check: $(STAMP)  ## lint, types, and which room may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(STAMP)  ## put the code into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf $(VENV) .import_linter_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
