# One command does all: `make demo`, `make test`. The virtual environment is made from hashed requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

CYCLES ?= 500
ACTS ?= 10
SEEDS ?= 200
CASES ?= 10000
EXAMPLES ?= 120
STORE ?= sqlite
MINUTES ?= 10
RATE ?= 300
CUTS ?= 20000
SCHEDULES ?= 200000
SCENARIOS ?= 5000
SECONDS ?= 600
PARSERS ?=
MODULES ?=
SEED ?=

.PHONY: demo cluster test lint types layers tests test-cluster crash simulate bugs nightly-api nightly-power nightly-io \
	nightly-fuzz nightly-mutants nightly-load nightly-network nightly-schedules nightly-signatures bench docs requirements clean

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@

# Those of one purpose each: .venv-bench, .venv-fuzz, .venv-mutants.
.venv-%/.ready: requirements/%.txt pyproject.toml
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< >&2
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/headwater demo $(ARGS)

cluster: $(VENV)/.ready
	@$(BIN)/python tests/cluster/chaos.py $(ARGS)

test: lint types layers tests test-cluster

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py

layers: $(VENV)/.ready
	$(BIN)/lint-imports --no-cache

tests: $(VENV)/.ready
	$(BIN)/pytest -n 2 $(ARGS)

test-cluster: $(VENV)/.ready
	$(BIN)/python tests/cluster/chaos.py --acts $(ACTS) $(ARGS)

crash: $(VENV)/.ready
	$(BIN)/python tests/crash/cycles.py --store $(STORE) --cycles $(CYCLES) $(ARGS)

simulate: $(VENV)/.ready
	$(BIN)/python tests/simulation/two_accounts.py $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

nightly-schedules: $(VENV)/.ready
	$(BIN)/python tests/simulation/one_shop.py $(if $(SEED),--seed $(SEED),--seeds $(SCHEDULES)) $(ARGS)

bugs: $(VENV)/.ready
	$(BIN)/python tests/simulation/bugs.py $(ARGS)

nightly-api: $(VENV)/.ready
	EXAMPLES=$(EXAMPLES) $(BIN)/pytest -q -o faulthandler_timeout=0 tests/test_openapi.py

nightly-power: $(VENV)/.ready
	$(BIN)/python tests/power/cuts.py $(if $(SEED),--seed $(SEED),--cuts $(CUTS)) $(ARGS)

nightly-io: $(VENV)/.ready
	$(BIN)/python tests/io/faults.py $(ARGS)

nightly-signatures: $(VENV)/.ready
	PROPERTY_EXPLORE=1 PROPERTY_EXAMPLES=$(CASES) $(BIN)/pytest -n 2 tests/test_signature_properties.py $(ARGS)

nightly-network: $(VENV)/.ready
	$(BIN)/python tests/network/scenarios.py $(if $(SEED),--first $(SEED) --scenarios 1,--scenarios $(SCENARIOS)) $(ARGS)

nightly-mutants: .venv-mutants/.ready
	.venv-mutants/bin/python tests/mutants/score.py $(MODULES) $(ARGS)

nightly-fuzz: .venv-fuzz/.ready
	.venv-fuzz/bin/python tests/fuzz/fuzz.py --seconds $(SECONDS) $(PARSERS) $(ARGS)

nightly-load: $(VENV)/.ready
	$(BIN)/python tests/load/verified.py --store $(STORE) --minutes $(MINUTES) --rate $(RATE) $(ARGS)

bench: .venv-bench/.ready
	.venv-bench/bin/python bench/run.py $(ARGS)

docs: $(VENV)/.ready
	$(BIN)/python tools/made.py

.PHONY: site screenshots

site: $(VENV)/.ready
	$(BIN)/zensical build --strict --clean

screenshots: $(VENV)/.ready
	$(BIN)/python tools/screenshots.py

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--upgrade pyproject.toml
EXTRAS := --extra parquet --extra postgres --extra otel

requirements: $(VENV)/.ready
	$(COMPILE) -o requirements/run.txt
	$(COMPILE) $(EXTRAS) --group dev -o requirements/dev.txt
	$(COMPILE) $(EXTRAS) --group dev --group mutants -o requirements/mutants.txt
	$(COMPILE) --group bench -o requirements/bench.txt
	$(COMPILE) --group fuzz -o requirements/fuzz.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
