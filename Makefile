# `make quickstart` and `make test` set themselves up: they need Python 3.11 or newer, make and a
# package registry, nothing else.

PYTHON ?= python3
NEWEST ?= python3.13
WORKDIR ?= runs/quickstart
ARGS ?=
bin := .venv/bin
run := $(bin)/python

.PHONY: help setup quickstart test test-thorough test-newest lint format tables bench lock lock-newest clean

help:
	@echo "make quickstart   train a small detector on synthetic shapes, six minutes on two cores"
	@echo "make setup        install the locked packages and jdet in .venv"
	@echo "make test         lint, types and the test suite"
	@echo "make test-thorough  the suite with the rows that repeat a check on further networks"
	@echo "make test-newest  the suite with NEWEST (python3.13) and the newest jax, flax, numpy, … for it"
	@echo "make lint         ruff and pyrefly"
	@echo "make format       let ruff rewrite the code"
	@echo "make tables       renew the table in experiments/README.md"
	@echo "make bench        all benchmarks (ARGS=… is passed on)"
	@echo "make lock         renew requirements.lock (needs uv)"
	@echo "make lock-newest  renew requirements-newest.lock (needs uv)"
	@echo "make clean        remove .venv, .venv-newest and caches"

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'jdet needs Python 3.11 or newer, $(PYTHON) is ' + sys.version)"
	$(PYTHON) -m venv .venv
	$(run) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(run) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: setup
	$(run) -m jdet.main --config=experiments/quickstart.py$(ARGS) --workdir=$(WORKDIR)
	@echo "Images: $(WORKDIR)/detections  Curves: $(WORKDIR)/curves.png  Numbers: $(WORKDIR)/report.json"

# Tests that train for long have their programs optimised. Exit code 5: ARGS picks no test of a part.
define suite
$(1) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not trains$(2)" $(ARGS) || [ $$? -eq 5 ]
XLA_FLAGS=--xla_backend_optimization_level=1 $(1) -m pytest -n 2 --dist loadfile -m "trains$(2)" $(ARGS) || [ $$? -eq 5 ]
endef

test: lint
	$(call suite,$(run), and not thorough)

test-thorough: lint
	$(call suite,$(run))

test-newest: .venv-newest/ready
	$(call suite,.venv-newest/bin/python)

.venv-newest/ready: requirements-newest.lock pyproject.toml
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-newest.lock
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyrefly check

format: setup
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

tables: setup
	$(run) -m experiments.studies.table

bench: setup
	for name in input_pipeline train_step inference nms roi_align; do \
		$(run) -m benchmarks.$$name $(ARGS) || exit 1; done

lock:
	echo hatchling | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --extra dev pyproject.toml - -o requirements.lock

lock-newest:
	echo hatchling | uv pip compile --universal --upgrade --python-version $(NEWEST:python%=%) --generate-hashes \
		--no-header --no-annotate --extra dev pyproject.toml - -o requirements-newest.lock

clean:
	rm -rf .venv .venv-newest .cache .pytest_cache .ruff_cache .hypothesis
