# diffuse: `make run` does the main job on a fresh machine, `make test` tests it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run setup setup-dev test test-all lint smoke bench docs clean

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: setup ## install, get Fashion-MNIST, train for 4 minutes, evaluate
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/main_job.sh

setup: $(VENV)/installed ## install diffuse into .venv

setup-dev: $(VENV)/installed-dev ## the same, with what tests and benchmarks need

$(VENV)/installed: pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	    { echo "no venv: on Debian, apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

test: setup-dev ## the tests, in five to eleven minutes on two cores
	$(BIN)/python -m pytest

test-all: setup-dev ## the slow tests too
	$(BIN)/python -m pytest -m 'slow or not slow'

lint: setup-dev ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

smoke: setup ## train, sample and evaluate in seconds, on real Fashion-MNIST
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/smoke.sh

bench: setup-dev ## speed and quality against diffusers, metrics against torchmetrics
	$(BIN)/python scripts/bench_train.py
	$(BIN)/python scripts/bench_samplers.py
	$(BIN)/python scripts/bench_metrics.py
	$(BIN)/python scripts/bench_quality.py

docs: setup-dev ## rebuild what docs/ takes from the code
	$(BIN)/python scripts/make_reference.py

clean: ## delete the environment and caches; outputs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
