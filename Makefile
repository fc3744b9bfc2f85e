# Every target runs `setup` if needed. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Targets that call AWS use the caller's credentials, including an instance's role, and the region in AWS_REGION; boto3,
# and so SAM, reads a different variable. All other targets must not call AWS, nor wait for an instance metadata service
# that does not exist.
AWS_TARGETS := deploy release logs output e2e
ifeq ($(filter $(AWS_TARGETS),$(MAKECMDGOALS)),)
export AWS_EC2_METADATA_DISABLED = true
else ifneq ($(or $(AWS_REGION),$(AWS_DEFAULT_REGION)),)
export AWS_REGION := $(or $(AWS_REGION),$(AWS_DEFAULT_REGION))
export AWS_DEFAULT_REGION := $(AWS_REGION)
endif

# The suite starts thousands of processes, which would otherwise compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test coverage bench bench-operators torture mutations prove test-extra test-lambda-python test-built openapi settings pictures lint format lock migrate migration downgrade check-schema adopt clean \
	build build-host validate rehearse costs deploy release output logs samples invoke e2e ca-bundle pin-ca-bundle

help: ## list the targets
	@awk -F ':.*## ' '/^[a-zA-Z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv with everything that tests, local stack and CLI need

# The three packages of this repository are installed editable, so that functions, tests and Lambda import them by the
# same names.
$(VENV)/.installed: VERSION requirements/dev.txt pyproject.toml layers/nexmdm/pyproject.toml cli/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"Python 3.11 to 3.14 is needed, {sys.executable} is {v[0]}.{v[1]}; say which one with: make PYTHON=python3.12 setup")'
	@echo "setup: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: installing the pinned packages (a minute on a cold cache)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e layers/nexmdm -e cli -e .
	@touch $@
	@echo "setup: done"

run: setup ## the whole system on this machine, with a simulated fleet (DEVICES=20)
	@$(BIN)/python -m local.run --devices $(or $(DEVICES),20)

test: setup ## the suite on real PostgreSQL, with parallel workers (WORKERS=4)
	@$(BIN)/python -m pytest -n $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder -m "not long"

coverage: setup ## the suite with coverage of functions and layer; fails below the floor (WORKERS=4)
	@mkdir -p .nexmdm
	@$(BIN)/python -m pytest -n $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

torture: setup ## faults, races, secrets, fuzz and access, ten times as many as the suite; then each protection removed in turn
	@TORTURE=$(or $(TORTURE),10) $(BIN)/python -m pytest --quiet tests/system/torture tests/system/test_malformed_secrets.py
	@FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),50) $(BIN)/python -m pytest --quiet tests/system/fuzz tests/system/access
	@$(BIN)/python -m tests.system.torture.mutations

mutations: setup ## remove each protection in turn and check that tests fail: make mutations ONLY="D1"
	@$(BIN)/python -m tests.system.torture.mutations $(ONLY)

test-extra: setup $(VENV)/.extra ## the longest tests, and those that need Debian packages: chromium, pgbouncer, aapt, apksigner, zipalign, shellcheck, spin (APK_MUTATIONS=5000)
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/system/extra
	@$(BIN)/python -m pytest -n $(or $(WORKERS),4) --dist loadfile -m long
	@$(BIN)/python -m model.prove $(if $(CI),--quick)

$(VENV)/.extra: $(VENV)/.installed requirements/extra.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements/extra.txt
	@touch $@

test-lambda-python: ## the APK tests on Lambda's Python 3.13 (BUILD_PYTHON names it)
	@$(BUILD_PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 13) else "Python 3.13 is needed; name it with BUILD_PYTHON=")'
	@$(MAKE) --no-print-directory setup VENV=.venv-lambda PYTHON=$(BUILD_PYTHON)
	@.venv-lambda/bin/python -m pytest -q tests/functions/test_apk_manifest.py tests/functions/test_apk_signature.py

test-built: build-host ## run the built artifacts as Lambda does; check sizes, cold starts and memory
	@BUILT_PYTHON=$(BUILD)/bin/python $(BIN)/python -m pytest -q tests/system/built

bench: setup build-host ## benchmarks as ratios to a floor in the same run; .nexmdm/bench.json (COMPARE=ref.json BENCH=--strict)
	@BUILT_PYTHON=$(BUILD)/bin/python $(BIN)/python -m bench $(BENCH) $(if $(COMPARE),--compare $(COMPARE))

bench-operators: setup ## benchmark of every operator route with 100,000 devices, 2 M heartbeats, 1 M commands and events; .nexmdm/operators.json
	@$(BIN)/python -m bench.operators

# The simulations record the AWS calls of functions; the rehearsal compares the functions' roles with them.
AWS_CALLS := $(CURDIR)/.nexmdm/aws-calls
rehearse: build-host ## simulate a deploy without an account or Docker, and list what only AWS can tell
	@mkdir -p .nexmdm && rm -f $(AWS_CALLS)
	@AWS_CALLS=$(AWS_CALLS) BUILT_PYTHON=$(BUILD)/bin/python $(BIN)/python -m pytest -q -p tests.support.aws_calls.sitecustomize \
		tests/system/built tests/functions/test_apk_builds.py tests/functions/test_apk_download.py \
		tests/functions/test_cleanup.py tests/functions/test_archive.py
	@$(BIN)/python -m local.rehearse --calls $(AWS_CALLS)

costs: setup ## print the tables of docs/costs.md from bench/prices.toml
	@$(BIN)/python -m bench.costs

e2e: setup ## test a stack as device and operator: make e2e STACK_URL=https://... (default: a gateway of its own)
	@STACK_URL="$(STACK_URL)" $(BIN)/python -m pytest tests/system/e2e

prove: setup ## check the dispatch model with SPIN, and the code against the model (QUICK=1, MUTATE=1, WRITE=1)
	@$(BIN)/python -m model.prove $(if $(QUICK),--quick) $(if $(MUTATE),--mutate) $(if $(WRITE),--write)

openapi: setup ## write the API's reference: docs/openapi.json, and the console's copy
	@$(BIN)/python -m local.openapi

settings: setup ## write docs/settings.md
	@$(BIN)/python -m local.settings_page

pictures: setup $(VENV)/.extra ## generate the README's pictures from a running stack (needs Debian's chromium)
	@$(BIN)/python -m local.pictures

lint: setup ## ruff: errors, imports, security, format; mypy: types; bandit: security
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive functions layers cli migrations

format: setup ## format the code with ruff
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

migrate: setup ## upgrade the schema of DATABASE_URL (or of the local server) to head
	@$(BIN)/python -m alembic upgrade head

migration: setup ## write a new revision from the models: make migration m="what it does"
	@test -n "$(m)" || { echo 'say what it does: make migration m="add devices.site"'; exit 2; }
	@$(BIN)/python -m alembic revision --autogenerate -m "$(m)"

downgrade: setup ## revert the last revision (or down to: make downgrade TO=base)
	@$(BIN)/python -m alembic downgrade $(or $(TO),-1)

check-schema: setup ## compare the database with the models, one line per difference
	@$(BIN)/python -m local.check_schema

adopt: setup ## adopt a database of the old server (DRY_RUN=1 only inspects)
	@$(BIN)/python -m migrations.adoption $(if $(filter-out 0,$(DRY_RUN)),--dry-run)

# --- release

ENV ?= dev
# The CA certificates for Aurora: a build input that is downloaded once and not in git; its hash is pinned in
# requirements/.
RDS_CA_BUNDLE ?= .aws-sam/rds-ca-bundle.pem
# `make build-host` sets it to `host`: artifacts for the local processor and Python, to be run locally.
NEXMDM_BUILD ?= lambda
BUILD := .venv-build
CHECKOV := .venv-checkov
SAM = SAM_CLI_TELEMETRY=0 $(BUILD)/bin/sam
# Lambda's Python if it is installed, so that the built artifacts run as in Lambda.
BUILD_PYTHON ?= $(shell python3.13 -c 'import sys; print(sys.executable)' 2>/dev/null \
	|| ls "$$(pyenv root 2>/dev/null)"/versions/3.13.*/bin/python3.13 2>/dev/null || echo $(PYTHON))

build: $(BUILD)/.installed ## the artifacts for Lambda (arm64, python3.13) in .aws-sam/build, no container needed
	@$(SAM) build

build-host: setup $(BUILD)/.installed
	@NEXMDM_BUILD=host $(SAM) build --build-dir .aws-sam/host --template template.yaml
	@sed -i.arm64 "s/- arm64$$/- $$(uname -m | sed s/aarch64/arm64/)/" .aws-sam/host/template.yaml

validate: setup $(BUILD)/.installed $(CHECKOV)/.installed ## SAM's lint, cfn-lint, checkov, and the template rules of tests/template
	@$(SAM) validate --lint
	@$(BUILD)/bin/cfn-lint template.yaml
	@$(CHECKOV)/bin/checkov --config-file .checkov.yaml --file template.yaml
	@$(BIN)/python -m pytest -q tests/template

deploy: ca-bundle build release ## release to AWS: make deploy ENV=dev (or prod); asks before it changes anything (FIRST=yes: see docs/deploy.md)

release: $(BUILD)/.installed ca-bundle ## the last step of `deploy`: what `make build` has built
	@test -f .aws-sam/build/NexmdmLayer/rds-ca-bundle.pem || { echo "the layer was built without RDS's certificates: make ca-bundle build"; exit 2; }
	@$(SAM) deploy --config-env $(ENV) $(if $(filter no,$(CONFIRM)),--no-confirm-changeset) $(if $(filter yes,$(FIRST)),--disable-rollback)

STACK_OUTPUT = aws cloudformation describe-stacks --stack-name nexmdm-$(ENV) --output text --query "Stacks[0].Outputs[?OutputKey=='$(1)'].OutputValue"

output: ## print an output of a deployed stack: make output ENV=dev NAME=ApiUrl
	@$(call STACK_OUTPUT,$(NAME))

logs: $(BUILD)/.installed ## follow a deployed stack's logs: make logs ENV=dev
	@$(SAM) logs --config-env $(ENV) --tail --cw-log-group "$$($(call STACK_OUTPUT,FunctionLogGroup))"

samples: setup ## insert the device, tokens and command that events/ refer to into the database of DATABASE_URL (or the local one)
	@$(BIN)/python -m local.samples

invoke: setup ## run one function locally: make invoke FUNCTION=cleanup (its event: events/cleanup.json, or EVENT=...)
	@$(BIN)/python -m local.invoke $(FUNCTION) $(or $(EVENT),events/$(FUNCTION).json)

ca-bundle: ## download the CA certificates for Aurora and check their pinned hash (RDS_CA_BUNDLE names another file)
	@$(PYTHON) -m local.ca_bundle check $(RDS_CA_BUNDLE)

pin-ca-bundle: ## download them, print their thumbprints, and pin their hash: check, then commit it
	@$(PYTHON) -m local.ca_bundle pin $(RDS_CA_BUNDLE)

$(BUILD)/.installed: requirements/build.txt
	@echo "setup: making $(BUILD) with $$($(BUILD_PYTHON) --version) (SAM CLI, cfn-lint, Lambda's runtime client)"
	@$(BUILD_PYTHON) -m venv --clear $(BUILD)
	@$(BUILD)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r $<
	@touch $@

$(CHECKOV)/.installed: requirements/checkov.txt
	@echo "setup: making $(CHECKOV)"
	@$(PYTHON) -m venv --clear $(CHECKOV)
	@$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r $<
	@touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate
LOCKED := $(wildcard functions/*/requirements.in)

lock: ## pin all requirements again (needs uv); Lambda runs the same versions as the tests
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(foreach file,requirements/layer.in $(LOCKED),$(COMPILE) -c requirements/dev.txt $(file) -o $(file:.in=.txt) &&) true
	$(COMPILE) -c requirements/dev.txt requirements/extra.in -o requirements/extra.txt
	$(foreach name,build checkov,$(COMPILE) requirements/$(name).in -o requirements/$(name).txt &&) true

clean: ## remove the local database, builds and caches; keeps .venv
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local.postgres stop; fi
	rm -rf .nexmdm .aws-sam .pytest_cache .ruff_cache .mypy_cache .hypothesis

# --- targets that `sam build` calls for each function and layer, in a temporary copy of its folder; output goes to
# ARTIFACTS_DIR

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
HOST_PYTHON = $(ROOT)$(BUILD)/bin/python
PIP = $(HOST_PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --only-binary=:all:
ifeq ($(NEXMDM_BUILD),lambda)
# Amazon Linux 2023 has glibc 2.34. All tags are listed, because pip silently chooses an older release if it finds no
# wheel.
PIP += --implementation cp --python-version 3.13 --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 \
	--platform manylinux_2_28_aarch64 --platform manylinux_2_34_aarch64
endif
# Contains nothing that changes without its sources, because the layers' hashes decide what CloudFormation replaces.
TIDY = find "$(ARTIFACTS_DIR)" -depth \( -name __pycache__ -o -name RECORD -o -name direct_url.json \) -exec rm -rf {} + ; rm -rf "$(ARTIFACTS_DIR)/bin" "$(ARTIFACTS_DIR)/python/bin"

# Lambda's code is read-only, so without bytecode every cold start compiles it: 0.9 s instead of 0.2 s for the heartbeat function.
# Unchecked hash-based bytecode, so that the same sources give the same artifact. Only Lambda's own Python version can create it.
BYTECODE = if [ "$(NEXMDM_BUILD)" = host ] || $(HOST_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))'; \
	then $(HOST_PYTHON) -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$(ARTIFACTS_DIR)" "$(ARTIFACTS_DIR)"; \
	else echo "no python3.13 here: built without bytecode, cold starts will be slower"; fi

build-NexmdmLayer:
	@$(PIP) --target "$(ARTIFACTS_DIR)/python" -r "$(ROOT)requirements/layer.txt"
	@cp -R src/nexmdm "$(ARTIFACTS_DIR)/python/"
	@if [ -f "$(ROOT)$(RDS_CA_BUNDLE)" ]; then cp "$(ROOT)$(RDS_CA_BUNDLE)" "$(ARTIFACTS_DIR)/rds-ca-bundle.pem"; \
	else echo "no $(RDS_CA_BUNDLE): this layer cannot reach an RDS database (make ca-bundle fetches it, make deploy does too)"; fi
	@$(TIDY)
	@$(BYTECODE)

build-MigrationsLayer:
	@mkdir -p "$(ARTIFACTS_DIR)/python/migrations" && cp -R . "$(ARTIFACTS_DIR)/python/migrations/"
	@$(TIDY)

# HeartbeatFunction is functions/heartbeat, FcmDispatchFunction functions/fcm_dispatch; imported by these names in Lambda too.
build-%Function:
	@folder="$(ARTIFACTS_DIR)/functions/$$(echo $* | sed -E 's/([a-z])([A-Z])/\1_\2/g' | tr A-Z a-z)" && mkdir -p "$$folder" && cp -R . "$$folder/"
	@cp "$(ROOT)functions/__init__.py" "$(ARTIFACTS_DIR)/functions/"
	@if [ -f requirements.txt ]; then $(PIP) --target "$(ARTIFACTS_DIR)" -r requirements.txt; fi
	@$(TIDY)
	@$(BYTECODE)
