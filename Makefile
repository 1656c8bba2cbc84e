# `make demo` and `make test` are all that a newcomer needs. Both make a virtual environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test soak deepspeed families browser lint types format bench clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# pip, not uv or poetry: with the upper bound on torch, pip takes a CPU build where its index offers one.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch>=2.11,<2.14"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(INSTALLED)  ## train the tiny demo world and write runs/demo/report.html
	$(BIN)/innerlingua demo --output-dir runs/demo

test: $(INSTALLED)  ## the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not families and not slow"

# Absolute, because some tests work in a folder of their own. What passed is written into the page although something failed.
SOAK := $(CURDIR)/runs/soak
soak: $(INSTALLED)  ## what takes minutes: kills, fuzzing, mutations; writes docs/reliability.md
	rm -rf $(SOAK)
	code=0; INNERLINGUA_SOAK=$(SOAK) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow || code=$$?; \
		PYTHONPATH=tests $(BIN)/python -m trust.page $(SOAK) --write; exit $$code

# Without dependencies and without isolation: its setup looks for the torch that is there, and must not bring another.
# The trajectories of `make soak` then run with it, too. Needs g++.
deepspeed: $(INSTALLED)  ## DeepSpeed for tests of ZeRO-2 and ZeRO-3 on CPUs
	$(BIN)/python -m pip install --quiet setuptools wheel einops hjson msgpack ninja packaging psutil py-cpuinfo pydantic tqdm
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps "deepspeed>=0.19.8,<0.20"

# `make families TRANSFORMERS=5.17.0` runs the other end of the supported range, in an environment of its own, and leaves the page.
ifdef TRANSFORMERS
families: VENV := .venv-$(TRANSFORMERS)
families: PAGE :=
.venv-$(TRANSFORMERS)/.installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet "torch>=2.11,<2.14"
	$(@D)/bin/python -m pip install --quiet --editable ".[dev]" "transformers==$(TRANSFORMERS)"
	touch $@
families: .venv-$(TRANSFORMERS)/.installed
else
families: PAGE := --write
families: $(INSTALLED)
endif
families:  ## every model family of transformers through the matrix; writes docs/families.md
	rm -rf runs/families$(TRANSFORMERS)
	INNERLINGUA_FAMILIES=runs/families$(TRANSFORMERS) OMP_NUM_THREADS=1 \
		$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/families/test_matrix.py
	PYTHONPATH=tests $(VENV)/bin/python -m families.page runs/families$(TRANSFORMERS) $(PAGE)

browser: $(INSTALLED)  ## the tests of pages in a real Chromium (INNERLINGUA_CHROMIUM, or one on PATH)
	$(BIN)/python -m pytest -m browser

lint: $(INSTALLED)  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict
	$(BIN)/mypy

format: $(INSTALLED)  ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread, and an allocator that keeps what it has: else page faults are a good part of a step on a processor.
bench: export OMP_NUM_THREADS = 1
bench: export TOKENIZERS_PARALLELISM = false
bench: export MALLOC_MMAP_THRESHOLD_ = 4294967296
bench: export MALLOC_TRIM_THRESHOLD_ = 17179869184
bench: export MALLOC_TOP_PAD_ = 268435456
bench: $(INSTALLED)  ## what the alignment costs, in time and memory, and how that grows (an hour; benchmarks/gpu.py for a GPU)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/joint.py

clean:  ## remove the virtual environment and what runs have written
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
