# Every target sets up what it needs: a virtual environment in .venv with pinned versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: accelerators check clean demo dist docs format interop reference slow test \
	test-solvers

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); the first time takes minutes"
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/.core  ## draw scenes and segment them; writes out/demo
	$(BIN)/python -m dslo_jax.demo --out out/demo

test: $(VENV)/.dev  ## the default tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(VENV)/.dev  ## the long tests
	XLA_FLAGS= $(BIN)/python -m pytest -m slow

interop: $(VENV)/.dev  ## other programs, large ones, read our results
	$(PIP) -e ".[dev,interop]"
	$(BIN)/python -m pytest -m interop

test-solvers: $(VENV)/.dev  ## the tests of the mathematics alone
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/solvers

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e ".[docs]"
	touch $@

docs: $(VENV)/.docs  ## the site, in out/site; a warning, a dead link or a failing cell ends it
	$(BIN)/sphinx-build -c docs -W --keep-going -q -d out/site-state . out/site

reference: $(VENV)/.core  ## the pages of docs/reference that are made from the code
	$(BIN)/python docs/_site/reference.py

dist: $(VENV)/.dev  ## wheel and sdist, each tried in a new environment
	$(PIP) build
	rm -rf dist
	$(BIN)/python -m build
	bash .ci/try-package dist/*.whl
	bash .ci/try-package dist/*.tar.gz

# JAX would look for TPUs and GPUs at every start, so their compilers are apart.
COMPILERS ?= .venv-compilers
TARGETS ?= v5e v6e h100 h200 a100
BATCH ?= 1 8

$(COMPILERS)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(COMPILERS)
	$(COMPILERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[tpu-aot,gpu-aot]"
	touch $@

accelerators: $(COMPILERS)/.done  ## compile all stages for TPUs and GPUs; takes hours
	for target in $(TARGETS); do \
		$(COMPILERS)/bin/dslo bench compile --targets $$target --batch $(BATCH) \
			--save benchmarks/results/compile-$$target.json || exit 1; \
	done
	$(COMPILERS)/bin/python benchmarks/tables.py

check: $(VENV)/.dev  ## linter, formatter and types, as pre-commit runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(COMPILERS) out
