# Everything a newcomer types. Needs python3 (3.11 or newer), make and git; the rest is installed by it.
.DEFAULT_GOAL := help
.PHONY: help setup up test lint bench stubs clean

PY := .venv/bin/python
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: .venv/ready stubs  ## prepare .venv with what uv.lock names, and build the stubs

.venv/ready: pyproject.toml uv.lock infra/bootstrap.sh
	@sh infra/bootstrap.sh sync --frozen --extra local $(if $(wildcard .venv/bin/python),,--python python3)
	@touch .venv/ready

stubs: .venv/ready  ## build the Python stubs and kehu.client when a proto has changed
	@made=client/kehu/client/services/__init__.py; if [ ! -f $$made ] || [ -z "$$(find proto -name '*_pb2.py' | head -n 1)" ] \
	   || [ -n "$$(find proto client/*.py -name '*.p*[oy]' ! -name '*_pb2*' -newer $$made)" ]; then $(PY) hatch_build.py; fi

up: setup  ## start the whole platform here; DATA=folder PORT=number to choose (data, 8080)
	@exec .venv/bin/kehu up --data "$(or $(DATA),data)" --port "$(or $(PORT),8080)"

test: setup  ## run the tests; those of missing servers are skipped, saying what to install
	@$(PY) -m pytest $(ARGS)

lint: setup  ## ruff, mypy, import-linter and buf, without a network
	@$(PY) -m ruff check .
	@$(PY) -m mypy services gateway infra client/kehu
	@.venv/bin/lint-imports --config pyproject.toml --no-cache
	@$(PY) -m infra.protolint

bench: setup  ## measure against the named references and print a table; SHORT=1 for a quick look
	@$(PY) -m tests.bench $(if $(SHORT),--short)

clean:  ## remove what was built; data stays
	@rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache
	@find proto -name '*_pb2*.py*' -delete
	@rm -rf client/kehu/client/services
