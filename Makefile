# Two commands: `make serve` and `make test`. Both prepare .venv first, from hash-pinned packages; `make setup` does
# that alone. A machine needs Python 3.11 or newer, make and a C++ compiler (hnswlib comes as source).
.DEFAULT_GOAL := help
.PHONY: help setup serve test check unit loadtest loadtest-smoke stubs clients test-clients lock sbom clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LOADTEST_READY := $(VENV)/loadtest-ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## Prepare .venv: about two minutes the first time

$(READY): requirements/build.txt requirements/dev.txt pyproject.toml clients/python/pyproject.toml
	@PYTHON='$(PYTHON)' sh scripts/check_machine.sh
	@echo "Preparing $(VENV) (hnswlib is compiled: about two minutes the first time)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes --no-deps -r requirements/build.txt
	@$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e . -e clients/python
	@touch $@

serve: $(READY)  ## Train on the bundled data if there is no snapshot yet, then serve on 127.0.0.1:50051
	@exec $(BIN)/annserve serve --demo

test: check unit  ## Run every check and test

check: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@# Each folder of tests has a conftest.py and siblings of its own: one run for each keeps their names apart. Bytecode is none.
	@for room in tests/[!_]*/ clients/python/tests/ clients/tests/; do MYPYPATH=tests:$$room:loadtest:clients/python $(BIN)/mypy --no-error-summary $$room || exit 1; done
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m pip --disable-pip-version-check check > $(VENV)/pip-check.log || { cat $(VENV)/pip-check.log; exit 1; }
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/buf breaking --against proto/released.binpb
	@$(BIN)/python scripts/generate.py --check
	@$(BIN)/python scripts/clients.py --check
	@$(BIN)/python scripts/reference.py --check
	@echo "checks passed: ruff, mypy, import-linter, hadolint, pip check, buf lint, format and breaking, stubs, clients and reference current"

unit: $(READY)
	@$(BIN)/python -m pytest -q

$(LOADTEST_READY): $(READY) requirements/loadtest.txt
	@$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements/loadtest.txt
	@touch $@

loadtest: $(LOADTEST_READY)  ## Load an instance with the demo's snapshot: a table in five minutes, reports in loadtest-report
	@$(BIN)/python loadtest/load.py --seconds 8 --step-seconds 3

loadtest-smoke: $(LOADTEST_READY)
	@$(BIN)/python loadtest/load.py --seconds 2 --rate 50 --search zipf --step-seconds 0.5 --out $(VENV)/loadtest-smoke

stubs: $(READY)  ## Generate the stubs and the API reference after a change of proto/
	@$(BIN)/python scripts/generate.py
	@$(BIN)/python scripts/reference.py

clients: $(READY)  ## Generate the TypeScript, Go and Java clients' part of proto/; installs their toolchains (Debian, root)
	@sh scripts/client_toolchains.sh
	@$(BIN)/python scripts/clients.py

test-clients: $(READY)  ## Build and test the TypeScript, Go and Java clients against a live server; installs as make clients
	@sh scripts/client_toolchains.sh
	@$(BIN)/python -m pytest -q clients/tests

lock: $(READY)  ## Pin the newest allowed versions of every package, with hashes
	@sh scripts/lock.sh

sbom: $(READY)  ## List what an installation holds, in CycloneDX, as sbom.json
	@$(BIN)/cyclonedx-py requirements --output-format JSON --output-file sbom.json requirements/runtime.txt

clean:  ## Remove .venv and everything built; snapshots stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@cd clients/typescript && rm -rf node_modules dist build
