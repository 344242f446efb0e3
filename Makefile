# The whole surface for users and contributors: make demo, make test, make check, make format.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all check format schemas clean

demo: $(READY)
	$(BIN)/quantguard demo

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The JSON Schemas that are checked in, made again from the types.
schemas: $(READY)
	$(BIN)/quantguard policy schema > policies/policy.schema.json
	$(BIN)/python -c "from quantguard.report.json_report import report_schema_text as t; print(t(), end='')" > quantguard/report/report.schema.json

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) quantguard-demo quantguard-work .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
