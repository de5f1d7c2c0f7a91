# One target for each thing a person does here; `make help` lists them. Every target that needs .venv makes it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
# Bytecode is half of the import time; a shell may have switched it off.
unexport PYTHONDONTWRITEBYTECODE

-include sam/deploy.mk

PY := .venv/bin/python
ENDPOINT ?=
PROFILE ?= smoke
N ?= 4
PORT ?= 8000

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z.]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready ## .venv from the pins (every other target calls it)

.venv/.ready: requirements/dev.txt requirements/uv.txt requirements/setup.sh
	@sh requirements/setup.sh

.PHONY: pins
pins: .venv/.ready ## compile requirements/*.txt anew from the *.in files
	.tools/uv/bin/uv pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header requirements/dev.in -o requirements/dev.txt
	.tools/uv/bin/uv pip compile -q --universal --python-version 3.9 --generate-hashes --no-emit-index-url --no-header requirements/uv.in -o requirements/uv.txt
	for tool in sam checkov ministack pyarrow; do \
	  .tools/uv/bin/uv pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header requirements/$$tool.in -o requirements/$$tool.txt || exit; \
	done
	.tools/uv/bin/uv pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt sam/dependencies/requirements.in -o sam/dependencies/requirements.txt

.PHONY: check
check: .venv/.ready ## the main job: local stack, conformance, load, logs, one page (ENDPOINT=URL: a deployed one)
	@$(PY) -m check $(ENDPOINT)

.PHONY: test
test: .venv/.ready lint ## the project's own tests
	$(PY) -m pytest -n 2 --dist loadfile -m "not alone" tests
	$(PY) -m pytest -m alone tests

.PHONY: lint
lint: .venv/.ready ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	cd function && MYPYPATH=. ../$(PY) -m mypy --config-file ../pyproject.toml .
	$(PY) -m mypy -p sam -p conformance -p load -p ops -p check -p lambda_code_interpreter
	$(PY) -m mypy simple_test_client.py
	MYPYPATH=function $(PY) -m mypy tests/bench/fuzzing tests/bench/__main__.py tests/bench/rows.py

.PHONY: serve
serve: .venv/.ready ## the local stack in the foreground, with a console at http://127.0.0.1:8000/ (PORT=N: another)
	@$(PY) -m sam.local --port $(PORT)

.PHONY: conformance
conformance: .venv/.ready ## the suite on an endpoint: make conformance ENDPOINT=URL
	@$(PY) -m conformance $(ENDPOINT) -n $(N)

.PHONY: smoke
smoke: .venv/.ready ## the three checks of the deployment test: make smoke ENDPOINT=URL
	@$(PY) -m conformance $(ENDPOINT) --smoke

.PHONY: gate
gate: .venv/.ready ## judge the newest code beside the version that serves, then promote it: make gate FUNCTION=NAME
	@$(PY) -m check gate --function "$(FUNCTION)"

.PHONY: load
load: .venv/.ready ## a load run: make load ENDPOINT=URL PROFILE=smoke
	@$(PY) -m load run $(PROFILE) $(ENDPOINT)

.PHONY: coldstart
coldstart: .venv/.ready ## a burst of cold starts: make coldstart ENDPOINT=URL
	@$(PY) -m load coldstart $(ENDPOINT)

.PHONY: report
report: .venv/.ready ## what the logs say: invocations, cold starts, percentiles, memory, errors, cost
	@$(PY) -m ops report

.PHONY: logs
logs: .venv/.ready ## follow the function's logs
	@$(PY) -m ops logs tail --follow

.PHONY: doctor
doctor: .venv/.ready ## what is wrong with the endpoint and its function, and the command that mends it
	@$(PY) -m ops doctor

.PHONY: tune
tune: .venv/.ready ## memory from a few measured sizes (python -m ops tune --help: timeout, concurrency)
	@$(PY) -m ops tune memory

.PHONY: mutants
mutants: .venv/.ready ## every check of the suite against a server broken in just that way
	@$(PY) -m tests.broken_servers.matrix

.PHONY: bench
bench: .venv/.ready ## the performance figures, each against a peer in the same run
	@$(PY) -m tests.bench

.PHONY: clean
clean: ## remove what the other targets made, but not the configuration
	rm -rf .venv .tools out .aws-sam .pytest_cache .mypy_cache .ruff_cache
