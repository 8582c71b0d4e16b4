# Nothing but Python >= 3.11 and make is needed: the first run makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: train test check lint clean

train: .venv/installed       ## train on simulated journal bearings, compare with a network, and write a report
	$(BIN)/whirl train --compare-with hybrid_pinn --epochs 1 --hop 32768

test: .venv/installed-dev    ## doctests and tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --quiet

lint: .venv/installed-dev    ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: lint test             ## all that is checked before a change lands

clean:
	rm -rf .venv runs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "whirl needs Python 3.11 or newer; name yours: make PYTHON=python3.12 train"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing whirl into .venv (once; PyTorch is large)"
	$(INSTALL) .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing whirl and what its tests need into .venv (once)"
	$(INSTALL) '.[dev]'
	@touch $@ .venv/installed
