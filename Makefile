# make demo: the main job on real data.  make test: everything the library promises.  Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
INSTALLED := $(VENV)/installed.stamp
CORE_INSTALLED := $(CORE)/installed.stamp
# Stores whose databases cannot be run here; their clients hold grpcio and protobuf back, hence an environment of their own.
EXPERIMENTAL := elasticsearch opensearch pinecone weaviate
EXPERIMENTAL_INSTALLED := .venv-experimental/installed.stamp
DEMO_ARGS ?=
# Labelled data sets that are not part of the project; tests that need them skip, with a reason, where it is empty.
export NUDGE_RAG_DATA ?= $(abspath $(wildcard ../shared/data))

.PHONY: setup demo test test-experimental bench bench-accuracy docs lint format clean

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

$(EXPERIMENTAL_INSTALLED): pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.[test-experimental]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/nudge-rag demo $(DEMO_ARGS)

test: $(INSTALLED) $(CORE_INSTALLED)
	$(CORE)/bin/python -m pytest tests/core -q
	$(BIN)/python -m pytest -q
	$(MAKE) test-experimental

# A store named in NUDGE_RAG_STORES that cannot be tested is an error.
test-experimental: $(EXPERIMENTAL_INSTALLED)
	NUDGE_RAG_STORES="$(EXPERIMENTAL)" $(<D)/bin/python -m pytest -q tests/experimental

bench: $(INSTALLED)
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/pushdown.py

bench-accuracy: $(INSTALLED)
	$(BIN)/python benchmarks/accuracy.py

# The README's table of stores.
docs: $(INSTALLED)
	$(BIN)/python -m nudge_rag.stores.table README.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(CORE) .venv-experimental .mypy_cache .ruff_cache .pytest_cache .hypothesis
