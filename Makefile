# Two commands set everything up on a fresh machine with python3, make and a compiler:
#   make demo    the main job, on embedded data, without a network or a GPU
#   make test    the tests
#
# PYTHON=python3.12 makes the environment with another interpreter (3.10 or newer).
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch from there (on Linux, PyPI's build carries CUDA).

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test faults check lock clean

help: ## show this
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 10

install: $(STAMP) ## make .venv with the pinned versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 10) and "luthier needs Python 3.10 or newer: make install PYTHON=…")'
	$(if $(TORCH_INDEX),$(BIN)/pip install -c constraints.txt --index-url $(TORCH_INDEX) --extra-index-url https://pypi.org/simple torch)
	$(BIN)/pip install -c constraints.txt -e ".[all,dev]"
	touch $@

demo: install ## check data, score the base, tune, score again, merge, chat; results in out/demo
	$(BIN)/luthier demo --out out/demo

test: install ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest

faults: install ## kill, fill, flip and poison trainings at length; figures in tests/faults/results.json
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m faults.run

check: install ## lint, format, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lock: ## write constraints.txt anew: the newest versions that fit together, for every Python and platform
	tools/lock

clean: ## delete what the other targets made, .venv included
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
