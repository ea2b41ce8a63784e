# Every target makes what it needs. Options: DATASET ROOT CSV NAME LOSS TRUNK TRAINING PRESET TRIALS EXECUTOR WORKERS PROTOCOL ARGS="any.key=value ..." TORCH=cpu
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
TORCH ?= default
VENV := .venv
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.ready-$(TORCH)
export OMP_NUM_THREADS ?= 1

overrides = $(if $(DATASET),dataset=$(DATASET)) $(if $(ROOT),'dataset.module.root="$(ROOT)"') $(if $(CSV),'dataset.module.path="$(CSV)"') \
	$(if $(NAME),dataset.name=$(NAME)) $(if $(LOSS),loss=$(LOSS)) $(if $(TRUNK),trunk=$(TRUNK)) $(if $(TRAINING),training=$(TRAINING)) \
	$(if $(PROTOCOL),protocol=$(PROTOCOL)) $(if $(PRESET),preset=$(PRESET)) \
	$(if $(TRIALS),trials=$(TRIALS)) $(if $(EXECUTOR),executor=$(EXECUTOR)) $(if $(WORKERS),executor.workers=$(WORKERS)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup data splits bo final-eval traditional tables status logs soak scale bench bench-gpu test test-all lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  options      DATASET=glyphs LOSS=hpl_pa PROTOCOL=hpl TRIALS=20 EXECUTOR=local WORKERS=2 ARGS="seed=7 trunk.width=64"'

setup: $(STAMP) ## make the environment (.venv); TORCH=cpu leaves the CUDA libraries out

$(STAMP): requirements.lock requirements-cpu.lock
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name it: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/bin/uv || $(VENV)/bin/python -m pip install --quiet uv
ifeq ($(TORCH),cpu)
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode --torch-backend=cpu $$(grep -hoE '^torch(vision)?==[0-9.]+' requirements.lock)
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode --no-deps --require-hashes -r requirements-cpu.lock
else
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
endif
	@touch $@

data: $(STAMP) ## find or fetch a data set and say what it holds; ROOT=folder where it lies elsewhere
	$(RUN) benchmark.data $(overrides)

splits: $(STAMP) ## write a data set's split and folds to results/splits as CSV
	$(RUN) benchmark.splits $(overrides)

bo: $(STAMP) ## search a loss's hyper-parameters by class-disjoint cross-validation
	$(RUN) benchmark.bo $(overrides)

final-eval: $(STAMP) ## retrain the best setting 10 times and score the unseen classes; without options: every finished search
	$(RUN) benchmark.final_eval $(overrides)

traditional: $(STAMP) ## train on all training classes as the papers do, and score the unseen ones at every epoch
	$(RUN) benchmark.traditional $(overrides)

tables: $(STAMP) ## write results/tables as CSV, LaTeX and Markdown
	$(RUN) benchmark.tables $(overrides)

status: $(STAMP) ## say how far the studies are, what runs where, and what is in trouble
	@$(RUN) benchmark.status $(overrides)

logs: $(STAMP) ## show the newest log, or that of ARGS=unit=trial_003/fold_1; on a terminal while it grows
	@$(RUN) benchmark.logs $(overrides)

soak: $(STAMP) ## kill workers and drivers of a search every few seconds, and count what that costs
	$(RUN) tests.soak

scale: $(STAMP) ## hand a thousand sleeping jobs to 32 Ray workers, and measure the driver
	$(RUN) tests.scale

bench: $(STAMP) ## measure speed, as ratios
	$(RUN) benchmark.perf.cpu $(overrides)

bench-gpu: $(STAMP) ## measure how many folds a GPU should train at once
	$(RUN) benchmark.perf.gpu $(overrides)

test: $(STAMP) ## run the fast tests
	$(RUN) pytest -q -n logical --dist loadfile -m "not slow and not gpu"

test-all: $(STAMP) ## run all tests
	$(RUN) pytest -q -n logical --dist loadfile --no-loadscope-reorder -m "not gpu"

lint: $(STAMP) ## ruff and mypy
	$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy

lock: $(STAMP) ## resolve the dependencies of pyproject.toml anew
	$(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --extra dev pyproject.toml -o requirements.lock
	awk '/^[A-Za-z0-9]/ { drop = ($$0 ~ /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+|faiss-gpu)[=@ ]/); \
		if ($$0 ~ /^faiss-cpu==/) sub(/ ;[^\\]*/, " ") } !drop' requirements.lock > requirements-cpu.lock

clean: ## delete the environment; results stay
	rm -rf $(VENV)
