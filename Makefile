# Everything runs in .venv, made here with the versions and hashes of the lock files.

PYTHON ?= $(shell for name in python3 python3.12 python3.11 python3.13 python3.14; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$name; break; fi; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links --allow-unsafe --strip-extras

.DEFAULT_GOAL := help
.PHONY: help demo dev test check format bench soak migrate lock clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-8s %s\n' "$$name" "$$text"; done

demo: .venv/.project  ## the main job, once, on real servers; KEEP=1 leaves everything running
	@exec $(BIN)/millrace demo $(if $(filter-out 0,$(KEEP)),--keep)

dev: .venv/.project  ## everything on this machine until Ctrl-C
	@exec $(BIN)/millrace dev

migrate: .venv/.project  ## bring the database of MILLRACE_DATABASE__URL up to date
	@exec $(BIN)/millrace migrate

test: .venv/.dev  ## every test, on real servers, two files at a time; AT_ONCE=0 one by one
	@$(BIN)/python -m compileall -q engine app workflows activities millrace worker.py
	@exec $(BIN)/python -m pytest --numprocesses $(or $(AT_ONCE),2) --dist loadfile

check: .venv/.dev  ## style, types, who imports whom, sizes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest tests/test_architecture.py

format: .venv/.dev  ## put the code into its format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: .venv/.dev bench/.venv/.ready  ## the figures of bench/README.md, measured here
	@exec $(BIN)/python -m bench

soak: .venv/.dev  ## minutes of faults, and of very long and wide runs; ONLY="kills steps" chooses
	@exec $(BIN)/python -m tests.soak $(ONLY)

lock: .venv/.dev  ## choose versions anew and write the lock files
	@$(COMPILE) --upgrade --extra build --output-file requirements.txt pyproject.toml
	@$(COMPILE) --upgrade --extra build --extra s3 --extra dev --constraint requirements.txt \
		--output-file requirements-dev.txt pyproject.toml

bench/.venv/.ready: bench/requirements.txt .venv/.python
	@$(PYTHON) -m venv bench/.venv
	@bench/.venv/bin/python -m pip --disable-pip-version-check --quiet --quiet install --require-hashes -r bench/requirements.txt
	@touch $@

clean:  ## remove what was built; the data in .millrace stays
	@rm -rf .venv bench/.venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed. Set PYTHON=/path/to/python." >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: requirements.txt .venv/.python
	@echo "Installing the pinned packages into .venv (once) ..."
	@$(PIP) install --require-hashes -r requirements.txt
	@touch $@

.venv/.project: pyproject.toml .venv/.run
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.project
	@echo "Installing the pinned development packages into .venv (once) ..."
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@
