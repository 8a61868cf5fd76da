# `make demo` and `make test` each set up everything they need on a fresh machine, then do their job.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Compiled once here, the packages load twice as fast in each of the many processes that follow.
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
INSTALLED := $(VENV)/.installed
DEMO_INSTALLED := $(VENV)/.demo-installed

export OMP_NUM_THREADS ?= 1
# Processes that tests are shared among; each may need a few GB. The tests of one file stay together, as they share what is costly.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -q -rs -n $(TEST_PROCESSES) --dist loadfile
export MPLBACKEND := Agg

.PHONY: demo test test-unit faults lint format setup clean help

help:
	@echo "make demo       train and score Mask2Former on a real recording (about ten minutes on 2 cores)"
	@echo "make test       the whole test suite"
	@echo "make test-unit  the quick part of it"
	@echo "make faults     every fault of docs/reliability.md, injected as often as it says"
	@echo "make lint       style, imports and formatting"
	@echo "make setup      only the virtual environment $(VENV)"

setup: $(INSTALLED)

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(INSTALLED): $(BIN)/uv pyproject.toml setup.py constraints.txt
	@echo "Installing into $(VENV) (several GB the first time) ..."
	$(UV) --constraint constraints.txt --editable ".[dev]"
	@touch $@

# The recording is one file of this package; its dependencies are image viewers that the demonstration does not need.
$(DEMO_INSTALLED): $(INSTALLED)
	$(UV) --no-deps ndev-sampledata==0.0.3
	@touch $@

demo: export OMP_NUM_THREADS := $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() or 1, 8))")
demo: $(DEMO_INSTALLED)
	$(BIN)/python -m demo

test: $(INSTALLED)
	$(PYTEST)

test-unit: $(INSTALLED)
	$(PYTEST) -m "not slow and not integration"

faults: export FAULTS := whole
faults: $(INSTALLED)
	$(PYTEST) --timeout=3600 tests/faults

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output build dist *.egg-info
