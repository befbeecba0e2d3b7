# Everything runs in .venv, which `make setup` makes from Python 3.11 or newer. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BASE ?= smollm2-135m
SERVER ?= python -m mcp_server_time
STUDY ?=
SEEDS ?= 1 2 3
RUNS ?= .journeyman
JOBS ?= 2
ARGS ?=
# An index for torch beside pip's own: https://download.pytorch.org/whl/cpu has wheels without CUDA packages.
TORCH_INDEX ?=

STAMP := $(VENV)/.journeyman-installed
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
ACTIVE := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)"
# One thread a process: the processes share the cores (see docs/performance.md).
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: help setup demo study test bench check format clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## make .venv, install everything, put the base model into the cache (TORCH_INDEX=)
	@$(ACTIVE) journeyman models fetch $(BASE)

$(STAMP): pyproject.toml
	@python=""; for candidate in $${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "no Python 3.11 or newer found; install one, or say where it is: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if [ ! -x $(VENV)/bin/python ]; then \
	  echo "== $(VENV) from $$("$$python" -V)"; \
	  "$$python" -m venv $(VENV) || { echo "could not make $(VENV): install the venv package of your Python (Debian: python3-venv)" >&2; exit 1; }; fi
	@echo "== torch, in the release that the tests ran with (first, so that nothing else chooses another)"
	@$(PIP_INSTALL) torch==2.13.0
	@echo "== journeyman and what it needs"
	@$(PIP_INSTALL) -e ".[local,dev]"
	@touch $@

demo: setup  ## train a 135M model to use a real MCP server on this machine (SERVER=, ARGS=)
	@$(ACTIVE) journeyman mcp train --server "$(SERVER)" --home "$(RUNS)" $(ARGS)

study: setup  ## all studies, a row a run, resumable (STUDY=yes_no_maybe|mcp|recipes|export SEEDS="1 2 3" ARGS="--jobs 2", --show)
	@$(ACTIVE) $(ONE_THREAD) python -m benchmarks.study $(STUDY) --seeds $(SEEDS) --home "$(RUNS)/studies" $(ARGS)

test: setup  ## the tests (JOBS=2 processes of one thread each)
	@$(ACTIVE) $(ONE_THREAD) python -m pytest -n $(JOBS) $(ARGS)

bench: setup  ## the benchmark of judges, quick (all benchmarks: ls benchmarks; python -m benchmarks.NAME --help)
	@$(ACTIVE) $(ONE_THREAD) python -m benchmarks.judge --quick $(ARGS)

check: $(STAMP)  ## lint, format, types, import rows, house rules
	@$(ACTIVE) ruff check .
	@$(ACTIVE) ruff format --check .
	@$(ACTIVE) mypy
	@$(ACTIVE) lint-imports
	@$(ACTIVE) $(ONE_THREAD) python -m pytest -p no:cacheprovider tests/test_house_rules.py tests/test_imports.py

format:  ## rewrite the code in the house format
	@$(ACTIVE) ruff check --fix-only . && $(ACTIVE) ruff format .

clean:  ## remove .venv and caches (keeps runs and the model cache)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
