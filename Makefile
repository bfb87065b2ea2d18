PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The releases that were tested; the network fails now and then: one more try before giving up.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e

PINS = import json, sys; found = [item["metadata"] for item in json.load(sys.stdin)["install"]]; \
    print("\# The releases that were tested, made by: make constraints"); \
    print(*sorted(m["name"].lower() + "==" + m["version"] for m in found if m["name"] != "recon-posterior"), sep="\n")

.PHONY: demo test full lint format constraints clean

demo: $(VENV)/.recon  ## reconstruct the input that ships, with what ships
	$(BIN)/recon demo

test: lint  ## everything that must hold
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

full: lint  ## and every solver with every sampler
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --full

lint: $(VENV)/.recon-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(VENV)/.recon-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## constraints.txt anew: the newest releases that pip may take here; run make test before you commit it
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --disable-pip-version-check -q --dry-run --ignore-installed \
	    --report build/constraints/report.json '.[dev]'
	$(PYTHON) -c '$(PINS)' < build/constraints/report.json > constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis recon_out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "recon needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: the environment is brought up to date only when pyproject.toml or constraints.txt changes. The one for tests serves the demo too.
$(VENV)/.recon: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) . || $(INSTALL) .
	@touch $@

$(VENV)/.recon-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]' || $(INSTALL) '.[dev]'
	@touch $(VENV)/.recon $@
