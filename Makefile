# make up    the main job, from nothing but Python 3.11+
# make test  the same installation, then the tests
# make test-compose  the tests of containers, where `docker info` answers
# Everything goes into .venv and runs/, both of which may be removed at any time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# The run file and its overrides: make up RUN=examples/quick.toml ARGS="--train.lr 1e-3"
RUN :=
ARGS :=
# Half of the time of a test is waiting, so processes pay even where cores are few.
TEST_PROCESSES := 2

.DEFAULT_GOAL := help
.PHONY: help install up test test-compose check bench clean

help:  ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## make .venv with everything that is needed

up: $(INSTALLED)  ## train an encoder on images generated as it trains
	@$(BIN)/python -m launcher up $(RUN) $(ARGS)

test: $(INSTALLED)  ## run every test that needs neither a GPU nor minutes
	@$(BIN)/python -m pytest -m "not gpu and not slow and not compose" -n $(TEST_PROCESSES) --dist worksteal $(ARGS)

test-compose: $(INSTALLED)  ## build the image and run the tests that need a container engine
	docker compose build trainer
	@$(BIN)/python -m pytest -m "compose and not slow" tests/compose $(ARGS)

check: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## list the benchmarks: make bench ARGS=stream runs one
	@$(BIN)/python -m launcher bench $(ARGS)

clean:  ## remove .venv and every cache; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without an NVIDIA driver a CPU build of torch is looked for first, since the default one brings gigabytes of
# CUDA libraries: in the package index that pip is set up for, then in PyTorch's own. Where neither has one the
# default build is taken, and if that can't be had either its error ends the installation.
$(INSTALLED): pyproject.toml constraints.txt
	@python=; \
	for name in python3 python3.13 python3.12 python3.11 python; do \
	  if "$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$name"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "streamrep needs Python 3.11 or newer with its venv module, and found none as python3" >&2; exit 2; \
	fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); \
	  echo "making $(VENV) with $$($$python --version)"; "$$python" -m venv $(VENV); }
	@if ! $(BIN)/python -c 'import torch; assert torch.__version__.split("+")[0] == "$(TORCH)"' >/dev/null 2>&1; then \
	  install="$(BIN)/python -m pip install -c constraints.txt"; \
	  if ! command -v nvidia-smi >/dev/null 2>&1 && [ "$$(uname -s)" = Linux ]; then \
	    echo "installing torch $(TORCH) for the CPU"; \
	    $$install 'torch==$(TORCH)+cpu' 2>/dev/null \
	      || $$install --timeout 15 --retries 0 --extra-index-url $(TORCH_CPU_INDEX) 'torch==$(TORCH)+cpu' 2>/dev/null \
	      || { echo "no CPU build in reach; installing the default build"; $$install 'torch==$(TORCH)'; }; \
	  else \
	    echo "installing torch $(TORCH)"; $$install 'torch==$(TORCH)'; \
	  fi; \
	fi
	@echo "installing streamrep and what it needs"
	@$(BIN)/python -m pip install -c constraints.txt --editable '.[dev]'
	@touch $@
