# Every target sets up what it needs, once: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
GRULAB := $(VENV)/bin/grulab
STAMP := $(VENV)/.installed
# Ray does not go with all versions of constraints.txt.
RAY_VENV := .venv-ray
RAY_STAMP := $(RAY_VENV)/.installed

# The sweep this project is about; change or add overrides with ARGS="...".
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train sweep board test test-slurm test-ray studies check format clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test-slurm: $(STAMP)  ## the tests of clusters on a real one-node SLURM, from Debian's packages; nothing is installed
	@test -x .slurm/usr/sbin/slurmctld-wlm || experiments/cluster/slurm.sh fetch .slurm
	SLURM_ROOT=$(CURDIR)/.slurm $(VENV)/bin/python -m pytest tests/test_slurm.py $(ARGS)

test-ray: $(RAY_STAMP)  ## the tests of Ray, in an environment of its own
	$(RAY_VENV)/bin/python -m pytest tests/test_ray.py $(ARGS)

$(RAY_STAMP): pyproject.toml constraints-ray.txt hatch_build.py
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-ray.txt --editable '.[ray]' pytest hypothesis
	@touch $@

studies: $(STAMP)  ## the studies of what hidden size, depth and direction buy, 101 minutes on two cores
	for study in seeds direction depth temporal_order capacity length architecture; do \
		$(VENV)/bin/python -m experiments.$$study.measure || exit; done
	$(VENV)/bin/python -m experiments.answer

check: $(STAMP)  ## lint, types, and which room may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(STAMP)  ## put the code into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf $(VENV) $(RAY_VENV) .slurm .import_linter_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
