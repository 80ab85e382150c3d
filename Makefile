# One way to run each thing. `make setup` needs a Python with venv and pip, and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VENV := .cache/uv

SUPPORTED := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})
# The first supported Python on the PATH, or that pyenv has; `make setup PYTHON=...` chooses another.
PYTHON ?= $(shell for name in python3.12 python3.11 python3 python $(wildcard $(HOME)/.pyenv/versions/3.1[12].*/bin/python3); do \
	if $$name -c '$(SUPPORTED)' >/dev/null 2>&1; then command -v $$name; break; fi; done)

.PHONY: help setup demo test chaos check bench audit format

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything locked, and fetch the embedded Kafka
	@if [ -z "$${KAFKA_BOOTSTRAP_SERVERS:-}" ]; then $(BIN)/python -m local fetch; fi

demo: $(READY) ## Run the pipeline on this machine with a live view; DURATION=60 ends it after 60 s
	@$(BIN)/python -m local demo $(if $(DURATION),--duration $(DURATION))

test: $(READY) ## Run the whole test suite; ARGS='-k windows' for a part of it
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

chaos: $(READY) ## Hurt a pipeline 200 times in an hour, and print what was lost; FAULTS=20 MINUTES=6 for less
	@$(BIN)/python -m pytest tests/faults --chaos $(if $(FAULTS),--chaos-faults $(FAULTS)) \
		$(if $(MINUTES),--chaos-minutes $(MINUTES)) $(ARGS)

check: $(READY) ## Lint, format, types, imports
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports

audit: $(READY) ## Ask PyPI's advisories for known vulnerabilities of what is locked
	@$(BIN)/pip-audit --disable-pip --require-hashes --requirement requirements.lock

format: $(READY) ## Format the code, and fix what ruff can fix
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

bench: $(READY) ## Measure throughput beside consuming and doing nothing
	@$(BIN)/python -m benchmarks $(ARGS)

# Everything above waits for this file, and it is newer than what it was made from: a second run costs nothing.
$(READY): requirements.lock pyproject.toml
	@python='$(PYTHON)'; \
	if [ -x $(BIN)/python ] && $(BIN)/python -c '$(SUPPORTED)' >/dev/null 2>&1; then \
		python=; \
	elif [ -z "$$python" ]; then \
		$(MAKE) --silent $(UV_VENV)/bin/uv; \
		export UV_PYTHON_INSTALL_DIR="$$PWD/.cache/python"; \
		python=$$($(UV_VENV)/bin/uv python find '>=3.11,<3.13' 2>/dev/null) || { \
			echo 'setup: neither Python 3.11 nor 3.12 is here: uv fetches one to .cache/python'; \
			$(UV_VENV)/bin/uv python install --no-bin --no-progress 3.12 || { \
				echo 'setup: uv could not fetch Python 3.12, see above; install 3.11 or 3.12, then make setup' >&2; \
				exit 1; }; \
			python=$$($(UV_VENV)/bin/uv python find 3.12); }; \
	fi; \
	if [ -n "$$python" ]; then \
		echo "setup: $$("$$python" --version) at $$python makes $(VENV)"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo 'setup: installs requirements.lock'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --only-binary :all: --no-deps -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(UV_VENV)/bin/uv:
	@for name in python3 python; do \
		if $$name -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$name; break; fi; done; \
	if [ -z "$${python:-}" ]; then \
		echo 'setup: needs a Python with venv and pip, and finds none; on Debian: apt-get install python3-venv' >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv --clear $(UV_VENV)
	@$(UV_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: uv
