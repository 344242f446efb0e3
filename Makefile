# The whole surface for users and contributors: make demo, make test, make check, make format.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-containers test-image containers-setup test-all fuzz range check format schemas lock clean

demo: $(READY)
	$(BIN)/quantguard demo

# On all cores, four at most, each of which starts a registry of its own. A test is moved to a core that has run out of
# them; its models are small, and threads of torch would only wait for one another.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

# The image, built, and the action on a container engine that speaks Docker's API: as root, on Debian or Ubuntu.
test-containers: test-image
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m containers --timeout 1800 -n logical --maxprocesses 2 --dist loadfile tests/containers

# The image of those tests alone, which their workers then find built: its store is locked while it grows.
test-image: $(READY)
	$(BIN)/python -m tests.containers.engine

containers-setup:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    podman runc buildah debootstrap docker-registry catatonit python3 python3-venv >/dev/null

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 1800

# A hundred thousand hostile model directories, and the table of how they ended (docs/fuzzing.md): some three minutes.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz.run --inputs 100000 --jobs 2

# Every attacked and benign model, built where missing, and one table of what they do: about 40 minutes from nothing.
range: $(READY)
	$(BIN)/python benchmarks/range.py

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --strict-collection --persona regular . docs/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml action/check/action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml docs/workflows/*.yml
	$(BIN)/shellcheck action/bootstrap.sh action/check/check.sh image/*.sh docs/serving/*.sh

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The JSON Schemas and the words of transformers that are checked in, made again from the types.
schemas: $(READY)
	$(BIN)/quantguard policy schema > policies/policy.schema.json
	$(BIN)/quantguard policy manifest-schema > policies/manifest.schema.json
	$(BIN)/quantguard policy waivers-schema > policies/waivers.schema.json
	$(BIN)/python -c "from quantguard.report.json_report import report_schema_text as t; print(t(), end='')" > quantguard/report/report.schema.json
	$(BIN)/python -m tests.checkpoint.known_words > quantguard/checkpoint/known_words.json

# What starts on a runner: versions from constraints.txt, with the digest of every file of each.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	for d in action action/check; do $(BIN)/uv pip compile --quiet --python-platform linux --python-version 3.11 \
	    --generate-hashes --no-annotate --custom-compile-command 'make lock' --constraints constraints.txt \
	    --output-file $$d/requirements.txt $$d/requirements.in; done

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) quantguard-demo quantguard-work quantguard-range .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
