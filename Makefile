# make demo: the main job on real data.  make test: everything the library promises.  Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
INSTALLED := $(VENV)/installed.stamp
CORE_INSTALLED := $(CORE)/installed.stamp
# Stores that the main environment must test, and those whose packages do not fit into it: each of these has an
# environment .venv-<job> of its own, made from the extra test-<job>.
STORES := chroma duckdb faiss in-memory lance milvus postgres qdrant simple sqlite-vec
JOBS := redis-langchain redis-llama-index
# Stores whose databases cannot be run here; their clients hold grpcio and protobuf back, hence an environment of their own.
EXPERIMENTAL := elasticsearch opensearch pinecone weaviate
REPORTS := .stores-tested
DEMO_ARGS ?=
# Labelled data sets that are not part of the project; tests that need them skip, with a reason, where it is empty.
export NUDGE_RAG_DATA ?= $(abspath $(wildcard ../shared/data))

.PHONY: setup demo test bench bench-accuracy bench-faults docs lint format clean $(JOBS:%=test-%) test-experimental

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
	rm -rf $(REPORTS)
	$(CORE)/bin/python -m pytest tests/unit -q
	NUDGE_RAG_STORES="$(STORES)" NUDGE_RAG_STORES_REPORT=$(REPORTS)/main.json $(BIN)/python -m pytest -q
	$(foreach job,$(JOBS) experimental,$(MAKE) test-$(job) &&) $(BIN)/python tests/support/stores_tested.py $(REPORTS)

.venv-%/installed.stamp: pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.[test-$*]'
	touch $@

# One store: the contract, the retrievers, and its own tests in tests/stores/test_<database>.py.
$(JOBS:%=test-%): test-%: .venv-%/installed.stamp
	NUDGE_RAG_STORES=$* NUDGE_RAG_STORES_REPORT=$(REPORTS)/$*.json .venv-$*/bin/python -m pytest -q \
		tests/stores/test_contract.py tests/stores/test_catalog_table.py $(wildcard tests/stores/test_$(firstword $(subst -, ,$*)).py) \
		tests/integrations/test_langchain.py tests/integrations/test_llama_index.py \
		-k "$* or test_$(firstword $(subst -, ,$*))"

# A store named in NUDGE_RAG_STORES that cannot be tested is an error.
test-experimental: .venv-experimental/installed.stamp
	NUDGE_RAG_STORES="$(EXPERIMENTAL)" NUDGE_RAG_STORES_REPORT=$(REPORTS)/experimental.json $(<D)/bin/python -m pytest -q \
		tests/stores/experimental

bench: $(INSTALLED)
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/contrastive_speed.py
	$(BIN)/python benchmarks/pushdown.py

bench-accuracy: $(INSTALLED)
	$(BIN)/python benchmarks/accuracy.py

bench-faults: $(INSTALLED)
	$(BIN)/python benchmarks/faults.py

# The README's table of stores.
docs: $(INSTALLED)
	$(BIN)/python -m scripts.stores_table README.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(CORE) .venv-* $(REPORTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis
