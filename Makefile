# Everything sets itself up: `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TABLES := plugins/flux/README.md docs/manifest.md docs/commands.md
SITE   := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: demo demo-model sim test test-long test-fast mutants families manifests fuzz chaos lint format docs bench wheels clean

demo: $(READY)
	$(BIN)/runner run manifests/demo.toml
	@ls runs/demo/outputs/*.png

# trains the packaged model anew, an hour or two; run it again to go on after an interruption
demo-model: $(READY)
	cd plugins/flux && ../../$(BIN)/python -m demo_model --work ../../.demo-model --out runner_flux/demo

# the simulated accelerator: compiled with g++ alone, installed beside runner, and tested
sim: $(READY)
	$(BIN)/python tests/sim/build.py
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e tests/sim
	$(BIN)/pytest -n 2 tests/sim

# compiled first: the tests start the command a thousand times, and it writes no byte code itself;
# the simulated accelerator is built where there is a compiler
test: $(READY)
	$(BIN)/python -m compileall -q runner plugins/flux/runner_flux plugins/diffusers/runner_diffusers
	! command -v g++ >/dev/null || $(BIN)/python tests/sim/build.py
	$(BIN)/pytest -n 4 --dist worksteal

# what takes long and has a quicker test beside it in `make test`: tests/long_tests.py
test-long: $(READY)
	$(BIN)/pytest -n 3 --dist worksteal --long

# the inner loop, within a minute on two idle cores: --fast skips tests that start the command, and the folders
# and files of SLOW compute much, or start processes of other kinds
SLOW := chaos fuzz packaging plugins sim test_manifests.py docs mutants runner/accelerator \
	runner/cli runner/plugin_check runner/placement runner/report runner/testing runner/machine/test_rates.py \
	runner/model/hub/test_headers.py runner/model/hub/test_headers_refused.py runner/plan/test_full_width.py \
	runner/stream/test_pipelines.py runner/stream/test_property.py runner/stream/test_device.py \
	runner/stream/test_attributes.py runner/stream/test_blocks.py runner/stream/test_transfer.py \
	runner/supervisor/test_memory.py runner/supervisor/test_simulated.py runner/worker/test_simulated.py \
	runner/plan/test_device_map.py runner/plan/test_refused.py runner/plan/test_remedies.py \
	runner/worker/test_check.py runner/worker/test_device_draws.py runner/model/hub/test_damage.py \
	runner/model/hub/test_fetched_models.py runner/supervisor/requests/test_model_check.py \
	runner/worker/test_device_timer.py test_accelerator_bench.py runner/model/test_layouts.py \
	runner/model/test_fingerprint.py runner/model/checks/test_classes.py runner/rundir/test_history.py \
	runner/model/test_bitsandbytes.py runner/model/test_quantize.py runner/model/test_weights.py \
	runner/pipeline/test_checkpoints.py runner/supervisor/requests/test_measuring.py \
	runner/supervisor/test_publication.py runner/work/test_adapters.py
test-fast: $(READY)
	$(BIN)/pytest -n 2 --fast $(SLOW:%=--ignore=tests/%)

# each fault of tests/mutants/*.toml in a copy of the tree must break one of its tests; WORDS choose some of them
WORDS ?=
mutants: $(READY)
	$(BIN)/python tests/mutants/run.py $(WORDS)

# SECONDS_EACH is for each kind of input: manifests, items, hand-offs, headers, models, commands
SECONDS_EACH ?= 60
fuzz: $(READY)
	FUZZ_SECONDS=$(SECONDS_EACH) $(BIN)/pytest -n 2 --timeout 0 tests/fuzz

# KILLS at random moments and writes, and what else may befall a run; the same SEED chooses the same
KILLS ?= 200
SEED ?= 0
chaos: $(READY)
	CHAOS_KILLS=$(KILLS) CHAOS_SEED=$(SEED) $(BIN)/pytest -n 2 --timeout 0 -rP tests/chaos

# every call of a tiny pipeline in each dtype, in one process and in processes of their own; `make test` has each once
families: $(READY)
	FAMILIES=all $(BIN)/pytest -n 2 --timeout 0 tests/plugins/diffusers/test_cases.py

# manifests/ of widely used models, and the table of docs/models.md; a quarter of an hour, or some NAMES of them
NAMES ?=
manifests: $(READY)
	$(BIN)/python tests/family_manifests.py $(NAMES)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/tables.py --check $(TABLES)
	$(SITE) --site-dir build/site

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/tables.py $(TABLES)

docs: $(READY)
	$(SITE)
	@echo "open site/index.html, or serve it: $(BIN)/mkdocs serve"

bench: $(READY)
	$(BIN)/python tests/bench/demo.py

wheels: $(READY)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist plugins/flux
	$(BIN)/python -m build --wheel --outdir dist plugins/diffusers
	$(BIN)/python -m build --wheel --outdir dist plugins/ray

clean:
	rm -rf dist build site runs .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml plugins/flux/pyproject.toml plugins/diffusers/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "runner needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,gguf,lora,torchao]' -e plugins/flux -e 'plugins/diffusers[video]'
	touch $(READY)
