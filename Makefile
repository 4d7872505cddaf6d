# `make demo` and `make test` are all a newcomer needs: each target sets up what it uses by itself.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
STAMP := $(VENV)/.installed
TRAIN := $(VENV)/.installed-train
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/bin/python -m pip
BENCHMARKS := pipeline replay latency store memory snapshot verify models serve drift loop retrain

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench results picture screenshots recording lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install into .venv, once

demo: $(STAMP) ## replay MovieLens live through the closed loop, a minute or two
	@$(VENV)/bin/streamlens demo

test: $(TRAIN) ## run the tests; ARGS=tests/streams: some of them
	@$(VENV)/bin/python -m pytest $(ARGS)

check: $(TRAIN) ## formatting, lint and types, of the containers too: what CI checks
	@$(VENV)/bin/ruff format --check --quiet . || { echo 'formatting differs: run `make format`' >&2; exit 1; }
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/hadolint Dockerfile
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(STAMP) ## format the code and mend what the linter can
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

bench: $(TRAIN) ## measure throughput, latency and memory
	@set -e; for name in $(BENCHMARKS); do $(VENV)/bin/streamlens bench $$name; done

results: $(TRAIN) ## measure the models and write docs/results.md: an hour, goes on where it stopped
	@$(VENV)/bin/python docs/write_results.py

picture: $(STAMP) ## record docs/images/demo.svg from a demo
	@$(VENV)/bin/python docs/record_demo.py

screenshots: $(TRAIN) ## take docs/images/*.png of the live pages from a demo
	@$(VENV)/bin/python docs/record_pages.py

recording: $(STAMP) ## record streams/mini_stream.jsonl, the stream that tests are given
	@$(VENV)/bin/python docs/record_stream.py

lock: ## pin the newest versions that pyproject.toml allows
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/pip install -qq --upgrade 'pip>=25.1' && build/lock/bin/pip install -qq --group dev -e .
	@build/lock/bin/pip freeze --exclude-editable > build/lock/run
	@build/lock/bin/pip install -qq -c build/lock/run -e '.[train]'
	@build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -vxFf build/lock/run > build/lock/train
	@sed -i '2,$$d' requirements.lock requirements-train.lock
	@cat build/lock/run >> requirements.lock
	@cat build/lock/train >> requirements-train.lock

clean: ## remove what was installed, built and replayed
	@rm -rf $(VENV) build dist var *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# -qq leaves errors visible and hides warnings about a machine's own pip configuration.
$(STAMP): requirements.lock pyproject.toml
	@test -n '$(PYTHON)' || { echo 'StreamLens needs Python 3.11 or newer with venv, and found none: install it from' \
		'https://www.python.org/downloads/ (Debian, Ubuntu: apt install python3-venv), or name one: make PYTHON=/path/to/python' >&2; exit 2; }
	@test -x $(VENV)/bin/pip || { echo 'Setting up $(VENV) with $(PYTHON), once ...'; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install -qq -r requirements.lock
	@$(PIP) install -qq --no-deps -e .
	@touch $@

# What trains models is large, and of no use to the demo. No hash is pinned: builds of torch for CPU and CUDA differ.
$(TRAIN): $(STAMP) requirements-train.lock
	@$(PIP) install -qq -r requirements-train.lock
	@touch $@
