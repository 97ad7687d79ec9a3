# make demo   trains a small network with the native backward pass and draws the curves in demo.png
# make test   passes the tests
# Both make a virtual environment in .venv first, and build the library in it when its sources change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(wildcard kernels/*.h kernels/*/*.h kernels/*/*.cc)

.PHONY: demo test lint types docs clean

demo: $(VENV)/installed
	$(BIN)/python examples/train_digits.py --output demo.png

test: $(VENV)/installed
	JAX_MPS_NEURON_REQUIRE_NATIVE=1 $(BIN)/pytest --numprocesses auto

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy
	$(BIN)/mypy tests/typed_uses.py

docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --editable '.[demo,layers,test]'
	@touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site demo.png
