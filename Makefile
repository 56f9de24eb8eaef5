# make demo: the main job on real data.  make test: everything the library promises.  Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
# Sets up an environment (.venv, .venv-NAME), unless it is up to date.
ENVIRONMENT := $(PYTHON) scripts/environment.py
# Stores that the main environment must test, and those whose packages do not fit into it: each of these has an
# environment of its own.
STORES := chroma duckdb faiss in-memory lance milvus parquet postgres qdrant simple sqlite-vec
JOBS := redis-langchain redis-llama-index
# What the store of Parquet files meets elsewhere: object storage, tables of other formats, clusters.
LAKE := lake
# Stores whose databases cannot be run here; their clients hold grpcio and protobuf back, hence an environment of their own.
EXPERIMENTAL := elasticsearch opensearch pinecone weaviate
REPORTS := .stores-tested
# Tests run in this many processes, each with servers, folders and ports of its own and one thread for linear algebra:
# two more than there are processors, since tests of databases wait for a quarter of their time, and one more if there is
# less than 12 GB of memory, of which each takes one or two.
WORKERS ?= $(shell $(PYTHON) -c "import os; size = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'); \
	print((os.cpu_count() or 1) + (2 if size > 12e9 else 1))")
PYTEST := -m pytest -q -n $(WORKERS) --dist worksteal
DEMO_ARGS ?=
# Rooms whose docstrings are as documentation tools read them, errors in sections of their own.
DOCUMENTED := $(addprefix nudge_rag/,common feedback evaluation solvers stores journal tuning demo cli) integrations scripts
# The main environment has all that the demo needs.
DEMO := $(if $(wildcard .venv/installed.stamp),main,demo)
# Labelled data sets that are not part of the project; tests that need them skip, with a reason, if it is empty.
export NUDGE_RAG_DATA ?= $(abspath $(wildcard ../shared/data))
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Tests start hundreds of processes, each of which would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

# What looks at reports in tests; it is installed with the system's packages if there is none.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

.PHONY: browser setup setup-all lock demo test test-quick test-core test-main test-experimental $(JOBS:%=test-%) \
	test-lake bench bench-accuracy bench-faults docs notebooks packages lint format clean

setup:
	$(ENVIRONMENT) main

browser:
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
		echo "tests of reports need a browser: installing Debian's chromium"; apt-get install -y -q chromium

setup-all:
	$(ENVIRONMENT) core main $(JOBS) $(LAKE) experimental

# Versions that are known to work together, one file for each environment in locks/: run it where make test is green.
lock:
	$(ENVIRONMENT) --lock core main demo $(JOBS) $(LAKE) experimental

demo:
	$(ENVIRONMENT) $(DEMO)
	$(if $(filter main,$(DEMO)),.venv,.venv-demo)/bin/nudge-rag demo $(DEMO_ARGS)

# Less than a minute, with numpy alone; `make test` runs the few slow ones of it as well. A test that is named at the end
# without having waited for a busy machine is to be made quicker, or marked slow.
test-quick:
	$(ENVIRONMENT) core
	$(ONE_THREAD) .venv-core/bin/python $(PYTEST) -m "not slow" --durations 5 --durations-min 2 tests/unit

test-core:
	$(ENVIRONMENT) core
	$(ONE_THREAD) .venv-core/bin/python $(PYTEST) tests/unit

# What passed on numpy alone is not run again in the main environment. The small jobs run beside the main one, in one
# process each, while its own wait for databases; what they print follows at the end.
test: setup-all browser
	rm -rf $(REPORTS)
	mkdir $(REPORTS)
	NUDGE_RAG_WRITE_PASSED=$(REPORTS)/passed-on-numpy $(MAKE) test-core
	$(MAKE) WORKERS=0 $(JOBS:%=test-%) test-lake test-experimental >$(REPORTS)/beside.log 2>&1 & beside=$$!; \
		status=0; NUDGE_RAG_PASSED_ELSEWHERE=$(REPORTS)/passed-on-numpy $(MAKE) test-main || status=$$?; \
		wait $$beside || status=$$?; cat $(REPORTS)/beside.log; exit $$status
	$(BIN)/python tests/support/stores_tested.py $(REPORTS)

# A store named in NUDGE_RAG_STORES that cannot be tested is an error.
test-main: setup browser
	$(ONE_THREAD) NUDGE_RAG_STORES="$(STORES)" NUDGE_RAG_STORES_REPORT=$(REPORTS)/main.json $(BIN)/python $(PYTEST)

# One store: the contract, the retrievers, and its own tests in tests/stores/test_<database>.py.
$(JOBS:%=test-%): test-%:
	$(ENVIRONMENT) $*
	$(ONE_THREAD) NUDGE_RAG_STORES=$* NUDGE_RAG_STORES_REPORT=$(REPORTS)/$*.json .venv-$*/bin/python $(PYTEST) \
		tests/stores/test_contract.py tests/stores/test_catalog_table.py tests/stores/test_impossible_ids.py $(wildcard tests/stores/test_$(firstword $(subst -, ,$*)).py) \
		tests/integrations/test_langchain.py tests/integrations/test_llama_index.py \
		tests/integrations/test_differential_langchain.py tests/integrations/test_differential_llama_index.py \
		-k "$* or test_$(firstword $(subst -, ,$*))"

test-lake:
	$(ENVIRONMENT) $(LAKE)
	$(ONE_THREAD) .venv-lake/bin/python $(PYTEST) tests/lake

test-experimental:
	$(ENVIRONMENT) experimental
	$(ONE_THREAD) NUDGE_RAG_STORES="$(EXPERIMENTAL)" NUDGE_RAG_STORES_REPORT=$(REPORTS)/experimental.json .venv-experimental/bin/python \
		$(PYTEST) tests/stores/experimental tests/integrations/test_experimental.py

bench: setup
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/contrastive_speed.py
	$(BIN)/python benchmarks/pushdown.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/fusion.py
	$(BIN)/python benchmarks/lake.py

bench-accuracy: setup
	$(BIN)/python benchmarks/accuracy.py

bench-faults: setup
	$(ENVIRONMENT) redis-langchain
	$(BIN)/python benchmarks/faults.py $(FAULTS)

# The table of stores in docs/guide/stores.md, the figures, and the site: docs/_build/index.html.
docs: setup
	$(BIN)/python -m scripts.stores_table docs/guide/stores.md
	$(BIN)/python -m scripts.draw_figures docs/guide
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# Stores the outputs of the notebooks.
notebooks: setup
	$(ONE_THREAD) $(BIN)/python scripts/run_notebooks.py

# Builds the packages into dist and tries them without the checkout; CONTRIBUTING says how with other Pythons.
packages:
	$(PYTHON) scripts/try_packages.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m scripts.stores_table --check docs/guide/stores.md
	$(BIN)/python scripts/check_docstrings.py $(DOCUMENTED)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-* $(REPORTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis
