# Every target runs `setup` when it is needed. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export AWS_EC2_METADATA_DISABLED = true

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format lock migrate migration downgrade check-schema adopt clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-zA-Z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with everything that tests, local stack and command line need

# The two packages of this repository are installed editable: functions, tests and Lambda import them by the same names.
$(VENV)/.installed: requirements/dev.txt pyproject.toml layers/nexmdm/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"Python 3.11 to 3.14 is needed, {sys.executable} is {v[0]}.{v[1]}; say which one with: make PYTHON=python3.12 setup")'
	@echo "setup: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: installing the pinned packages (a minute on a cold cache)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e layers/nexmdm -e .
	@touch $@
	@echo "setup: done"

run: setup ## the whole system on this machine, with a simulated fleet (DEVICES=20)
	@$(BIN)/python -m local.run --devices $(or $(DEVICES),20)

test: setup ## the whole suite on real PostgreSQL
	@$(BIN)/python -m pytest

lint: setup ## ruff: errors, imports, security, format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## let ruff write the format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

migrate: setup ## bring the schema of DATABASE_URL (or of the local server) to head
	@$(BIN)/python -m alembic upgrade head

migration: setup ## write a new revision from the models: make migration m="what it does"
	@test -n "$(m)" || { echo 'say what it does: make migration m="add devices.site"'; exit 2; }
	@$(BIN)/python -m alembic revision --autogenerate -m "$(m)"

downgrade: setup ## take the last revision back (or down to: make downgrade TO=base)
	@$(BIN)/python -m alembic downgrade $(or $(TO),-1)

check-schema: setup ## compare the database with the models, one line per difference
	@$(BIN)/python -m local.check_schema

adopt: setup ## take over a database of the old server (DRY_RUN=1 only looks)
	@$(BIN)/python -m migrations.adoption $(if $(filter-out 0,$(DRY_RUN)),--dry-run)

lock: ## pin requirements/*.in again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate requirements/dev.in -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate -c requirements/dev.txt requirements/layer.in -o requirements/layer.txt

clean: ## remove the local database, builds and caches; keeps .venv
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local.postgres stop; fi
	rm -rf .nexmdm .aws-sam .pytest_cache .ruff_cache .hypothesis
