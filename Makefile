# One command each; what CI does is `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: env run test lint system bench soak clean

env: $(STAMP)

$(STAMP): pyproject.toml setup.py scripts/env.sh $(wildcard fungistor/zdb/daemon/_[a-z]*.p[xy]* fungistor/zdb/daemon/_*.h)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/env.sh
	@touch $(STAMP)

run: env
	@$(BIN)/python -m fungistor.node.sample

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

system:
	@bash scripts/system.sh

test: lint system
	$(BIN)/pytest -n 2 --dist worksteal -m "not soak"

bench: env
	$(BIN)/python -m benchmarks

soak: env
	$(BIN)/pytest -m soak -s

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
