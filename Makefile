# `make run` and `make test` need nothing but make and Python 3.11 or newer; what they fetch and write stays
# in this folder (`make clean` removes it), but for the data of a Kafka that lives only as long as a test.

# `python3`, unless another one that is new enough is clearly quicker: how an interpreter was compiled shows in every process
# (of one version, pyenv's without optimizations and Debian's, by turns: 1.51 and 1.37 ms of CPU per request).
PROBE = import ensurepip, sys, timeit; \
  sys.exit("too old") if sys.version_info < (3, 11) else print(min(timeit.repeat("[str(i) for i in range(9999)]", number=3)))
PYTHONS = python3 /usr/bin/python3 /usr/local/bin/python3
QUICKEST = $(shell for python in $(PYTHONS); do \
  took=$$($$python -c '$(PROBE)' 2>/dev/null) && echo "$$took $$python"; done | \
  awk 'NR == 1 || $$1 < 0.9 * best { best = $$1; name = $$2 } END { print name }')
ifeq ($(origin PYTHON), undefined)
PYTHON = $(eval PYTHON := $(or $(QUICKEST),python3))$(PYTHON)
endif
VENV   := .cache/venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
DATA   ?=
MODEL  ?=

.DEFAULT_GOAL := help
.PHONY: help run test check schemas chaos failover fleet scenarios gate judge bench bench-routing bench-pipelines bench-peers setup lock lock-check clean

help:         ## what can be made
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(READY) ## Kafka, all stages and a simulated provider on this machine, with sample requests and their answers
	@$(BIN)/baton up --demo $(ARGS)

test: check   ## everything that must hold: check, then all tests; or some: make test ARGS=tests/unit
	@$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests)

check: $(READY) ## lint, strict types, import contracts, generated files
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@report=$$($(BIN)/lint-imports --no-cache) || { echo "$$report"; exit 1; }
	@$(BIN)/python -m schemas.generate --check

schemas: $(READY) ## regenerate schemas/json, schemas/asyncapi.json and the README's picture
	@$(BIN)/python -m schemas.generate $(ARGS)

chaos: $(READY) ## kill and freeze processes of a running Baton, restart its broker, and check that every request got its one result; pipelines: make chaos ARGS="--pipelines --requests 5000 --rate 15 --faults 30"
	@$(BIN)/python -m tests.chaos $(ARGS)

failover: $(READY) ## break a backend under load, and time how the fleet leaves it and comes back to it
	@$(BIN)/python -m tests.failover

fleet: $(READY) ## what the fleet promises: circuits, balance, gates, hedges, lanes, overload
	@$(BIN)/python -m tests.fleet $(ARGS)

scenarios: $(READY) ## sixteen provider faults in three wire formats: whole answers or true errors, on time, and the books agree
	@$(BIN)/python -m tests.scenarios $(ARGS)

gate: $(READY) ## how often the quality gate's checks and scores are right about labelled answers, and where they are wrong
	@DATA=$(DATA) $(BIN)/python -m tests.gate $(ARGS)

judge: $(READY) ## what a model's grades are worth as a judge of answers, in a running Baton: make judge MODEL=name
	@$(BIN)/python -m tests.gate.judges '$(MODEL)' $(ARGS)

bench: $(READY) ## throughput, latency and CPU per request, on this machine
	@$(BIN)/python -m tests.bench $(ARGS)

bench-routing: $(READY) ## the router over recorded outcomes of models: make bench-routing DATA=folder
	@$(BIN)/python -m tests.bench.routing --data '$(DATA)' $(ARGS)

bench-pipelines: $(READY) ## what a further step of a pipeline adds beside a bare relay of its hops, and the lag of a gate at 500 completions/s
	@$(BIN)/python -m tests.bench.pipelines $(ARGS)

bench-peers: $(READY) ## the same figures of a LiteLLM proxy, side by side
	@$(BIN)/python -m tests.bench.peers $(ARGS)

setup: $(READY) ## only the Python environment

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Baton needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up the Python environment in $(VENV), once, about a minute, with $$($(PYTHON) --version) at $$(command -v $(PYTHON))"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Hashes and versions, no addresses: the exports install from whatever index the user has configured.
UV      := .cache/uv/bin/uv
COMPILE := $(UV) pip compile --quiet pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header
DEV     := --extra broker --group dev

$(UV):
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

lock: $(UV)   ## move all pinned dependencies to their newest allowed versions (needs the network)
	@$(COMPILE) --upgrade -o requirements/run.txt
	@$(COMPILE) --upgrade $(DEV) -o requirements/dev.txt

lock-check: $(UV) ## fail when requirements/ no longer follows from pyproject.toml (needs the network)
	@mkdir -p .cache/lock && cp requirements/*.txt .cache/lock
	@$(COMPILE) -o .cache/lock/run.txt && diff -u requirements/run.txt .cache/lock/run.txt
	@$(COMPILE) $(DEV) -o .cache/lock/dev.txt && diff -u requirements/dev.txt .cache/lock/dev.txt

clean:        ## remove everything that was fetched, built or written (a running Kafka must be stopped first)
	@rm -rf .cache .run build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
