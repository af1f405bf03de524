# SPDX-License-Identifier: GPL-2.0-or-later
#
# The habits of the house. Every target that needs the environment makes it first
# (tools/bootstrap: host packages, .venv, the C core) and is quiet when it is there.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

# ARGS go to viotest, PYTEST_ARGS to pytest.
# What boots guests and builds with sanitizers has both processors for itself; the rest
# goes side by side. pytest says 5 if it has chosen no test.
ARGS ?=
PYTEST_ARGS ?=

.PHONY: help env run test test-quick nightly bench check check-% format lock clean distclean

help: ## this list
	@echo 'make TARGET [ARGS="--kernel debian:trixie"] [PYTEST_ARGS="-k viot -x"]'
	@echo
	@sed -n 's/^\([a-z][a-z %-]*\):.*## /  \1	/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo 'PYTHON names the Python to build on, VIOTEST_CACHE the folder of what is fetched.'

env: ## the environment only: host packages, .venv, the C core
	@tools/bootstrap

run: env ## boot a guest on our virtio-iommu, pass a device through, judge it
	@$(BIN)/viotest run $(ARGS)

test: env ## the project's tests, those that boot guests included
	@none=0; \
	for part in 'tests/unit -n 2' 'tests/core tests/functional'; do \
		$(PYTEST) $$part -m "not nightly" $(PYTEST_ARGS); status=$$?; \
		case $$status in 0) ;; 5) none=$$((none + 1)) ;; *) exit $$status ;; esac; \
	done; \
	[ $$none -lt 2 ] || exit 5

test-quick: env ## the tests that boot no guest
	@$(PYTEST) tests -m "not nightly and not functional" $(PYTEST_ARGS)

nightly: env ## the long tests
	@$(PYTEST) tests -m nightly $(PYTEST_ARGS)

bench: env ## how fast it is, beside QEMU and memcpy: a table; JSON and SVG in build/bench
	@$(BIN)/viotest bench all --out build/bench $(ARGS)

check: env ## every gate: linters, types, imports, lengths, C tests with sanitizers
	@$(BIN)/python tools/gates.py

check-%: env
	@$(BIN)/python tools/gates.py $*

format: env ## let ruff and clang-format rewrite the sources
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@git ls-files -co --exclude-standard '*.[ch]' | xargs -r $(BIN)/clang-format -i

lock: env ## write requirements.txt anew from pyproject.toml
	@$(BIN)/python tools/lock.py requirements.txt

clean: ## remove what was built, keep .venv and the cache
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@rm -rf device/core/build guest-images/probe/build device/viotest_device/_core.c device/viotest_device/_core.*.so
	@find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv too; the cache outside of the checkout stays
	@rm -rf .venv ./*.egg-info
