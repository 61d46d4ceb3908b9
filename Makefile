# `make` alone says what there is. Every target makes the virtual environment it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := outputs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format slow bench faults camvid wheel clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp is newer than what decides the environment's content, so a second call costs nothing.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "segtrain needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[offline,dev]'
	@touch $@

install: $(VENV)/.installed ## .venv with segtrain and all that its tests need

demo: install ## train a small U-Net on built-in data, score it, predict, and show a contact sheet
	$(BIN)/python scripts/demo.py

test: install ## the tests, under 15 minutes on two cores
	$(BIN)/python -m pytest

slow: install ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow --timeout=3600

lint: install ## style and unused code
	$(BIN)/ruff check segtrain conf scripts tests
	$(BIN)/ruff format --check segtrain conf scripts tests

format: install ## put the code into its standard form
	$(BIN)/ruff check --fix segtrain conf scripts tests
	$(BIN)/ruff format segtrain conf scripts tests

bench: install ## speed beside named peers, both sides printed
	$(BIN)/python scripts/bench.py

faults: install ## inject faults into whole runs: kills, full disks, signals …
	$(BIN)/python scripts/faults.py

wheel: install ## dist/segtrain-*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what the tools left behind; outputs/ stays
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
