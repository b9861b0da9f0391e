# One door for every task. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS ?= 2
SOAK_KILLS ?= 500
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --upgrade --quiet

.DEFAULT_GOAL := help
.PHONY: help demo demo-real kafka test lint bench soak lock clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1|\2/' | column -t -s '|'

# Each environment is made once, from pinned and hashed requirements, and again when they change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("transom needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 cannot make virtual environments here; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing pinned requirements into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.runtime  ## a hub and three regions on this machine; Ctrl-C ends it
	@exec $(BIN)/transom up --demo

demo-real: kafka  ## the same on Kafka and PostgreSQL, started for it; needs Java and Maven
	@exec $(BIN)/python -m engines.demo

kafka: $(VENV)/.dev  ## fetch Apache Kafka and Debezium for tests and benchmarks, once; needs Java and Maven
	@$(BIN)/python -m engines.jars

test: kafka  ## everything a change should pass, JOBS=2 files at a time
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev  ## style, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-cache

bench: kafka  ## every figure, one JSON line each, then the table
	@$(BIN)/python -m benchmarks

soak: kafka  ## the long tests: SOAK_KILLS=500 random kills
	@TRANSOM_SOAK_KILLS=$(SOAK_KILLS) $(BIN)/python -m pytest -m soak -o addopts='' --timeout=0

lock: $(VENV)/.dev  ## pin the newest allowed requirements, with hashes
	@$(PIP) uv
	@echo hatchling | $(COMPILE) - -o requirements/build.txt
	@$(COMPILE) pyproject.toml -c requirements/build.txt -o requirements/runtime.txt
	@$(COMPILE) pyproject.toml --group dev -c requirements/build.txt -c requirements/runtime.txt -o requirements/dev.txt

clean:  ## remove the environment and every cache
	rm -rf $(VENV) engines/.jars .pytest_cache .ruff_cache .hypothesis
