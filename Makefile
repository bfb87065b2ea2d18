PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The network fails now and then: one more try before giving up.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -e

.PHONY: demo test lint format clean

demo: $(VENV)/.recon  ## reconstruct the input that ships, with what ships
	$(BIN)/recon demo

test: lint  ## everything that must hold
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.recon-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(VENV)/.recon-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis recon_out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "recon needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: the environment is made anew only when pyproject.toml changes. The one for tests serves the demo too.
$(VENV)/.recon: pyproject.toml | $(BIN)/python
	$(INSTALL) . || $(INSTALL) .
	@touch $@

$(VENV)/.recon-dev: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[dev]' || $(INSTALL) '.[dev]'
	@touch $(VENV)/.recon $@
