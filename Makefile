# HASite: `make` alone lists what there is. Everything below needs Debian 12 (or later) and root for the local world.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup test check scenarios databases sim format generate constraints warm e2e bench demo demo-drop demo-restore watch down

PY := .venv/bin/python
# More processes than cores: most of its time is waiting for servers that it starts.
FAST_SUITE = $(PY) -m pytest -q -n 4 --ignore=tests/scenarios --ignore=tests/databases \
	--deselect=tests/sim/test_simulation.py::test_each_broken_rule_is_caught
STEPS ?= 1000000
LOCATION ?= new-york
HOW ?= power
export PYTHONUNBUFFERED := 1
# Where it is set, every process of the suites compiles all libraries anew: minutes, and memory that is measured.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## once: system packages, Python environment (a second when it was done before)
	@scripts/setup.sh

test: setup ## the fast suite, seconds
	$(FAST_SUITE)

check: setup ## format, lint, types, layers, generated files, fast suite: under a minute
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --config pyproject.toml
	$(PY) tools/generate.py --check
	$(FAST_SUITE)

format: setup ## let ruff put the code in order
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

generate: setup ## CRDs, manifests and reference page from the typed models
	$(PY) tools/generate.py

constraints: setup ## move the tested versions of all libraries up
	.venv/bin/uv pip compile -q pyproject.toml --group dev --no-annotate --no-header --no-emit-index-url \
		--python-version 3.11 --universal --upgrade -o constraints.txt
	echo "uv==$$(.venv/bin/uv --version | cut -d' ' -f2)" >> constraints.txt

warm: setup ## once: control plane (ten minutes), machine image, package archive, side by side
	$(PY) -m e2e.demo warm

scenarios: setup ## whole stories and the crash matrix on simulators, minutes; HASITE_MATRIX=1: every point of it
	$(PY) -m pytest -q -n 2 tests/scenarios

databases: setup ## the drivers on real PostgreSQL and MariaDB servers, the guard's program as processes: minutes
	$(PY) -m pytest -q -n 2 tests/databases

sim: setup ## the guard's protocol: a million steps of simulated disasters (STEPS=…), all mutations of it caught
	$(PY) -m pytest -q -n 2 tests/sim
	$(PY) -m tests.sim --steps $(STEPS)

# Two worlds side by side: much of the time of both is waiting.
e2e: warm ## scenarios in the local world: real API server, machines, HAProxy, DNS
	mkdir -p build
	$(PY) -m pytest -q --durations 20 e2e/scenarios >build/e2e-scenarios.log 2>&1 & sites=$$!; \
	$(PY) -m pytest -q --durations 20 --ignore=e2e/scenarios e2e; rest=$$?; \
	wait $$sites; sites=$$?; cat build/e2e-scenarios.log; exit $$((sites | rest))

bench: warm ## the figures of docs/performance.md
	$(PY) -m e2e.bench

demo: warm ## a site at two datacentres of the local world, ready to be broken
	$(PY) -m e2e.demo up

demo-drop: ## LOCATION=new-york [HOW=power|cut|in|out]: a datacentre goes dark
	$(PY) -m e2e.world drop $(LOCATION) --how $(HOW)

demo-restore: ## everything that was broken is mended
	$(PY) -m e2e.world restore

watch: ## live view: requests by location, DNS answers, decisions
	$(PY) -m e2e.demo watch

down: ## end the local world, also one that crashed; nothing stays behind
	$(PY) -m e2e.world down
