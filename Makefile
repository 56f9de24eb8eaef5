# make demo: the main job on real data.  make test: everything the library promises.  Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
INSTALLED := $(VENV)/installed.stamp
CORE_INSTALLED := $(CORE)/installed.stamp
DEMO_ARGS ?=
# Labelled data sets that are not part of the project; tests that need them skip, with a reason, where it is empty.
export NUDGE_RAG_DATA ?= $(abspath $(wildcard ../shared/data))

.PHONY: setup demo test bench bench-accuracy bench-faults lint format clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The core must work with numpy alone: its tests run once more where nothing else is installed.
$(CORE_INSTALLED): pyproject.toml
	test -x $(CORE)/bin/python || $(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet -e . 'pytest>=8.3' 'pytest-asyncio>=0.24' 'pytest-timeout>=2.3' 'hypothesis>=6.100'
	touch $@

demo: $(INSTALLED)
	$(BIN)/nudge-rag demo $(DEMO_ARGS)

test: $(INSTALLED) $(CORE_INSTALLED)
	$(CORE)/bin/python -m pytest tests/core -q
	$(BIN)/python -m pytest -q

bench: $(INSTALLED)
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/pushdown.py

bench-accuracy: $(INSTALLED)
	$(BIN)/python benchmarks/accuracy.py

bench-faults: $(INSTALLED)
	$(BIN)/python benchmarks/faults.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(CORE) .mypy_cache .ruff_cache .pytest_cache .hypothesis
