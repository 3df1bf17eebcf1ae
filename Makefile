# Thin doors: each target is one command you could type yourself.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
COUNT := awk '/^Collecting/ && ++n % 20 == 0 {print "  " n " packages fetched"; fflush()} /^Installing/ {print "  installing them"; fflush()}'
# A file stays in one process, the long ones come first (tests/conftest.py).
SPREAD := --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Where it is set, every process of the stack compiles all of the code again: a third of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## this page
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.local: requirements/local.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is older than Python 3.11: name another, as in `make up PYTHON=python3.12`")'
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes -r requirements/local.txt | $(COUNT)
	@$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.local requirements/dev.txt
	@echo "adding the tools for tests (once, about half a minute)"
	@$(INSTALL) --require-hashes -r requirements/dev.txt | $(COUNT)
	@touch $@

.PHONY: setup up demo
setup: $(VENV)/.dev ## make .venv with everything, from hash-pinned requirements
up: $(VENV)/.local ## start the whole stack here; prints a ready line
	@exec $(BIN)/plumbline up $(ARGS)
demo: $(VENV)/.local ## one scene a promise, on the running stack or its own
	@exec $(BIN)/plumbline demo $(ARGS)

.PHONY: test test-long test-fast test-memory test-kafka test-faults test-slow
test: $(VENV)/.dev ## unit, integration and story tests on real servers (aim: 5 min on two quiet cores)
	$(RUN) tests/unit tests/budgets tests/integration -m "not slow and not real_kafka and not alone" -n 3 $(SPREAD)
	$(RUN) tests/stories -m "not slow and not real_kafka and not alone" -n 3 $(SPREAD)
test-long: $(VENV)/.dev ## what wants the machine for itself: overload, a dead collector, the cache's races, plans at 100,000 orders, the demo, the tour, a load run, the runbooks (aim: 4 min)
	$(RUN) tests/integration tests/stories -m "alone and not slow"
test-fast: $(VENV)/.dev ## what needs no server (aim: 20 s on two quiet cores)
	$(RUN) tests/unit tests/budgets -m "not slow and not longer" -n 2 --dist worksteal
test-memory: $(VENV)/.dev ## the stories on the in-memory broker: a part of `make test`
	PLUMBLINE_TEST_KAFKA=memory $(RUN) tests/stories -m "not slow"
test-kafka: $(VENV)/.dev ## integration and stories that touch the broker, on Apache Kafka: killed, stopped, rebalanced, away
	PLUMBLINE_TEST_KAFKA=real $(RUN) tests/integration tests/stories -m "(broker or real_kafka) and not memory_broker and not slow" -n 2 $(SPREAD)
test-faults: $(VENV)/.dev ## fault proxy, checker, and the failpoint sweep on real processes
	$(RUN) tests/faults -m "not slow"
test-slow: $(VENV)/.dev ## the long forms
	$(RUN) tests/unit tests/integration tests/stories tests/faults -m slow

.PHONY: torture torture-mutants
SECONDS ?= 60
KAFKA ?= memory
torture: $(VENV)/.dev ## random faults that overlap, on real processes, and a verdict: SEED= SECONDS= KAFKA=real
	@exec $(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED)) --seconds $(SECONDS) --kafka $(KAFKA)
torture-mutants: $(VENV)/.dev ## the judge judged: planted bugs, each to be found by one of five seeds (half an hour)
	@exec $(BIN)/python -m tests.torture.mutants $(ARGS)

.PHONY: bench bench-quick bench-growth bench-database profile
bench: $(VENV)/.dev ## costs as ratios to hand-written floors (≤ 5 min; exit 2: machine too busy)
	$(BIN)/python -m bench full
bench-quick: $(VENV)/.dev ## the HTTP ladder only (≤ 60 s)
	$(BIN)/python -m bench quick
bench-growth: $(VENV)/.dev ## a shop of a million orders against one of ten thousand, side by side (some minutes)
	$(BIN)/python -m bench.growth $(ARGS)
bench-database: $(VENV)/.dev ## the schema's choices as experiments; writes docs/database.md (≤ 5 min)
	$(BIN)/python -m bench.database $(ARGS)
profile: $(VENV)/.dev ## flame graphs of the API and of a worker under load
	$(BIN)/python -m bench profile

.PHONY: load test-load
test-load: $(VENV)/.dev ## load tests' own tests: generator, verdicts, planted defects, sharing behind haproxy
	$(RUN) tests/load tests/stories/test_a_load_run_ends_in_a_verdict.py
load: $(VENV)/.dev ## a load run of half a minute on a stack of its own; ends in a verdict (≤ 60 s)
	@exec $(BIN)/plumbline load smoke $(ARGS)

.PHONY: verify-deploy verify-deploy-full
verify-deploy: ## chart, policy, image files, Terraform, workflows, alert rules, dashboards, deploy docs: the fast checks
	$(PYTHON) deploy/verify/verify.py $(TARGETS)
verify-deploy-full: ## those, and what takes longer: mutants, an emulated AWS, containers, a real Kubernetes
	$(PYTHON) deploy/verify/verify.py --full

.PHONY: ci-full
ci-full: ## everything: the gates of a push, then the long forms, the torture's mutants, the load tests and the full deployment checks (hours)
	.ci/run
	$(MAKE) --no-print-directory test-faults test-slow test-load torture-mutants verify-deploy-full

.PHONY: check format requirements
check: $(VENV)/.dev ## formatter, linter, types, floors, budgets, schema drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(RUN) tests/budgets
format: $(VENV)/.dev ## let the formatter and linter repair what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
requirements: $(VENV)/.dev ## compile pyproject.toml into hash-pinned requirement files
	for set in "runtime" "local --extra embedded -c requirements/runtime.txt" "dev --extra dev -c requirements/local.txt" "load --extra load -c requirements/dev.txt"; do \
	  set -- $$set; name=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	    --no-emit-package plumbline --custom-compile-command 'make requirements' pyproject.toml "$$@" -o requirements/$$name.txt || exit 1; \
	done
