# make demo   the main job on real data, embedded
# make test   every test
# make test-long  the tests of chance, with four times as many draws
# make test-lowest  the core tests with the oldest versions that pyproject.toml allows
# make check  linters and the type checker
# make docs   the documentation as a site, in build/site; its links and anchors are checked
# make coverage  whether plain tests take as many branches of the rules as before
# make promtool  fetch Prometheus's promtool from Debian into .cache, where the tests of the alert rules look for it
# make mutants  small faults that the tests should notice; see CONTRIBUTING.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
CORE := tests/semantics tests/query tests/push tests/training tests/durable/test_parquet.py tests/serving tests/online/test_online_conformance.py \
	tests/sources/test_log.py tests/test_oracle.py tests/test_push.py tests/test_online.py tests/test_windows_online.py tests/test_bounds.py
STAMP := $(VENV)/.installed

.PHONY: demo test test-long test-lowest check docs format bench coverage mutants promtool constraints clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m feature_repo.demo

test: $(STAMP)
	$(BIN)/python -m pytest

# DRAWS_PERCENT is what tests/draws.py takes
test-long: $(STAMP)
	DRAWS_PERCENT=200 $(BIN)/python -m pytest $$(grep -rl "tests.draws" tests --include='test_*.py')

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	touch $@

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(CORE)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/zensical build --strict --clean
	$(BIN)/python -m tests.site build/site

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# MISSED=1 prints each branch that nothing takes
coverage: $(STAMP)
	$(BIN)/python -m tests.branches $(if $(MISSED),--missed)

# ONLY="semantics/time.py:Timing.as_of compile/"  SAMPLE=10 (of each module; 0: all)  SEED=0
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(ONLY) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

# Unpacked, not installed: it needs no rights.
promtool:
	mkdir -p .cache/prometheus
	cd .cache/prometheus && apt-get download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb

# Run in a fresh virtual environment after changing pyproject.toml.
constraints: $(STAMP)
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache
