# make demo   trains a small network with the native backward pass and draws the curves in demo.png
# make test   passes the tests, but for those marked slow, which .ci/run runs
# make bench-results   measures everything on this CPU and writes docs/performance.md's tables and pictures
# All make a virtual environment in .venv first, and build the library in it when its sources change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(wildcard kernels/*.h kernels/*/*.h kernels/*/*.cc)

.PHONY: demo test lint types docs bench-results clean

demo: $(VENV)/installed
	$(BIN)/python examples/train_digits.py --output demo.png

test: $(VENV)/installed
	JAX_MPS_NEURON_REQUIRE_NATIVE=1 $(BIN)/pytest --numprocesses auto -m 'not slow and not metal'

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typing

docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

RESULTS := benchmarks/results
BENCH := JAX_PLATFORMS=cpu $(BIN)/python -m jax_mps_neuron bench

bench-results: $(VENV)/installed
	$(BENCH) --dtypes float32 --json $(RESULTS)/cpu-float32.json $(BENCH_OPTIONS)
	$(BENCH) --dtypes float16 --modes chain --json $(RESULTS)/cpu-float16.json $(BENCH_OPTIONS)
	$(BENCH) --dtypes bfloat16 --modes chain step --json $(RESULTS)/cpu-bfloat16.json $(BENCH_OPTIONS)
	$(BENCH) --dtypes float32 float16 bfloat16 --modes chain --peers custom_call xla \
	  --shapes 8x8 64x128 1000003 17x100003 262144x32 512x512 --json $(RESULTS)/cpu-shapes.json $(BENCH_OPTIONS)
	$(BENCH) --dtypes float32 --modes 'chain of barriers' --peers custom_call xla \
	  --json $(RESULTS)/cpu-barriers.json $(BENCH_OPTIONS)
	$(BENCH) --latency --json $(RESULTS)/cpu-latency.json
	$(BENCH) --sweep $(SWEEP) --json $(RESULTS)/cpu-sweep.json $(BENCH_OPTIONS)
	$(BIN)/python benchmarks/write_performance.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --no-compile --editable '.[demo,test]'
	@touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site demo.png
