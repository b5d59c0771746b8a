# Needs Python >= 3.11 with pip and venv, and GNU make. Everything else goes into .venv.
#
# A target that needs the environment depends on a stamp, named after what was asked for: the
# contents of pyproject.toml and constraints.txt, and this folder. Nothing changed: nothing is
# installed. A broken-off installation has no stamp and is made again.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
# Worker processes of the tests; each computes with one thread.
JOBS ?= 2
# Arguments for pytest, such as ARGS="tests/corpus -k dedup".
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
WANTED := $(firstword $(shell { cat pyproject.toml constraints.txt; pwd; } | cksum))
DEV_STAMP := $(VENV)/.installed-dev-$(WANTED)
DEMO_STAMP := $(VENV)/.installed-demo-$(WANTED)
# A .venv whose interpreter is gone is as good as none.
$(shell test -x $(BIN)/python || rm -f $(VENV)/.installed-*)

PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(JOBS)

.PHONY: help
help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(DEV_STAMP) ## Make .venv with all that is needed to work on luthier
	@echo "Ready: $(BIN)/luthier --help"

.PHONY: demo
demo: $(if $(wildcard $(DEV_STAMP)),,$(DEMO_STAMP)) ## Fine-tune, check and try a small model on this machine
	@$(BIN)/luthier demo

.PHONY: test
test: $(DEV_STAMP) ## Run the tests, without the slow ones and those for a GPU
	@$(PYTEST) -m "not slow and not gpu" $(ARGS)

.PHONY: test-all
test-all: $(DEV_STAMP) ## Run all tests; those for a GPU skip themselves where there is none
	@$(PYTEST) $(ARGS)

.PHONY: check
check: $(DEV_STAMP) ## Format, lint, types, import layers, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_house.py

.PHONY: format
format: $(DEV_STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove .venv, caches and build outputs; runs and data stay
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV_STAMP): EXTRAS := dev,demo
$(DEMO_STAMP): EXTRAS := demo

# torch goes first and alone, at the version of constraints.txt: asked for as an open range it
# would be the newest release, with gigabytes of CUDA libraries that a machine without a GPU
# can't use.
$(DEV_STAMP) $(DEMO_STAMP):
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || { $(CHECK_PYTHON); \
	  echo "Making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(VENV)/.installed-*
	@echo "Installing torch (1 of 2; a minute or two the first time)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "Installing luthier and the rest (2 of 2)"
	@$(PIP) -e '.[$(EXTRAS)]'
	@touch $@

# A .venv that is broken or too old fails this too, and is made anew.
NEW_ENOUGH := import pip, sys; sys.exit(sys.version_info < (3, 11))

define CHECK_PYTHON
{ command -v $(PYTHON) >/dev/null || { \
    echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }; \
  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
    echo "luthier needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "$(PYTHON) can't make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
endef
