# make demo    hear the zoo: music into out/, with one page to see and play it
# make test    the whole test suite
# make lint    style and types
# make readme  the tables of README.md again, from cards and measurements
#
# Each makes its environment in .venv first. It needs Python 3.11, 3.12 or 3.13; to choose one: make demo PYTHON=python3.12

SUITABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(name) -c '$(SUITABLE)' >/dev/null 2>&1 && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint readme clean

demo: $(VENV)/installed
	$(BIN)/zoo generate --interpolate 9 --out out

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

readme: $(VENV)/installed
	$(BIN)/python -m zoo.readme README.md
	$(BIN)/python -m benchmarks.table README.md

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c '$(SUITABLE)' >/dev/null 2>&1 || { echo "This needs Python 3.11, 3.12 or 3.13 with its venv module\
	(Debian, Ubuntu: apt-get install python3-venv). Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed
