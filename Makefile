# A thin wrapper around `python -m benchmark`; every target builds what it needs. Options: DATASET=cub LOSS=hpl_pa ...; see make help.
#
# Options are read from make's command line only, never from the environment, and each is one value whatever it contains: neither
# make nor a shell expands it; `benchmark/__main__.py` reads it from the environment as BENCHMARK_MAKE_<option>.
# Settings may also come from the environment.
override given := $(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $(v))),$(v)))
override OPTIONS := DATASET ROOT CSV NAME LOSS TRUNK TRAINING PROTOCOL PRESET TRIALS SEARCHES STUDY EXECUTOR WORKERS TRACKER A B CELL BUDGET MODEL QUERY EMBEDDINGS FORMAT OUT ARGS
override SETTINGS := TORCH PYTHON OMP_NUM_THREADS BENCHMARK_CACHE
override unknown := $(filter-out $(OPTIONS) $(SETTINGS) MAKEFLAGS MAKEOVERRIDES SHELL,$(given))
quoted = '$(subst ','\'',$(1))'
closest = $(shell python3 -c 'import difflib, sys; word, *known = sys.argv[1:]; \
	near = difflib.get_close_matches(word.rpartition(".")[2].upper(), known, 1); \
	print("Did you mean %s?" % near[0] if near else "")' $(call quoted,$(1)) $(OPTIONS) $(SETTINGS) 2>/dev/null)
$(foreach v,$(firstword $(unknown)),$(error There is no option $(v). $(call closest,$(v)) \
	Options: $(OPTIONS); also $(SETTINGS). Any other key goes into ARGS, as in ARGS="seed=7 trunk.width=128"))
$(foreach v,$(SETTINGS),$(if $(filter-out undefined,$(origin $(v))),$(eval override export $(v) := $$(value $(v)))))
$(foreach v,$(OPTIONS),$(eval unexport $(v) BENCHMARK_MAKE_$(v)))
$(foreach v,$(filter $(OPTIONS),$(given)),$(eval export BENCHMARK_MAKE_$(v) := $$(value $(v))))

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
TORCH ?= default
$(if $(filter 1default 1cpu,$(words $(TORCH))$(TORCH)),,$(error TORCH=$(TORCH): allowed are default and cpu))
override VENV := .venv
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.ready-$(TORCH)
export OMP_NUM_THREADS ?= 1

COMMANDS := bo final-eval traditional robustness experiment reproduce embed search export score status logs tables report experiments plan searches figures compare trace doctor data splits overlap check-loss bench bench-front bench-search bench-gpu
TARGETS := help setup $(COMMANDS) soak scale test test-all test-library lint docs audit lock clean
$(foreach t,$(firstword $(filter-out $(TARGETS) $(STAMP),$(MAKECMDGOALS))),$(error There is no target $(t). Targets: $(TARGETS). \
	An option takes a value, as in LOSS=hpl_pa))  # before the targets ahead of it run
.DEFAULT_GOAL := help
.NOTPARALLEL:  # make -j2 bo final-eval: one after the other
.PHONY: $(TARGETS)

help: ## list the targets
	@awk -F':.*## ' '/^##@ / { print "\n" substr($$0, 5) ":" } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo; echo 'Options: DATASET=glyphs LOSS=hpl_pa PROTOCOL=hpl TRIALS=20 EXECUTOR=local WORKERS=2 ARGS="seed=7 trunk.width=128"'
	@echo 'A stored study with all its options: STUDY=FOLDER'; echo 'All options: $(OPTIONS)'

$(COMMANDS): $(STAMP)
	@$(RUN) benchmark --from-make $@

##@ run
bo: ## search a loss's hyper-parameters by class-disjoint cross-validation
final-eval: ## retrain the best setting 10 times and score the test classes; without options, for every finished search
traditional: ## train on all training classes as the papers do, and score the test classes at every epoch
robustness: ## score the kept models of a study (keep=best) on corrupted test images; STUDY=FOLDER
experiment: ## run what an experiment (NAME=hpl_table_3) lacks, then write its tables, figures and page
reproduce: ## retrain a published cell from its published setting, and compare the numbers; default: ArcFace on CUB

##@ use
embed: ## embed the images of a folder with a trained model: MODEL=FOLDER ROOT=images FORMAT=npz
search: ## find the images of a folder that are nearest to a query: MODEL=FOLDER QUERY=image ROOT=images
export: ## write a trained model for other programs: MODEL=FOLDER FORMAT=onnx
score: ## score a model on test classes, or any embeddings: MODEL=FOLDER DATASET=cub or EMBEDDINGS=file.npz

##@ look
status: ## show the progress of all studies, what runs where and what failed
logs: ## show the newest log or that of ARGS=unit=trial_003/fold_1; on a terminal, follow it
tables: ## write the tables of all studies as CSV, LaTeX and Markdown
report: ## write a page with the tables and figures of all studies, or of an experiment (NAME=hpl_table_3)
searches: ## write and draw the best validation score against the number of trials
experiments: ## list the experiments, one for each table or figure of a paper: state, cost, what is missing
plan: ## show what an experiment (NAME=hpl_table_3) would train and cost
figures: ## draw retrieved images, embeddings and the learned hierarchy of a run: STUDY=FOLDER ARGS=figure=embeddings
compare: ## print how two studies differ, and the paired difference of their scores, or how far two folders of studies agree: A=FOLDER B=FOLDER
trace: ## print the records behind a cell of a table: CELL=TABLE/ROW/COLUMN

doctor: ## check this machine: GPU, libraries, driver, disk, data, weights, cluster; a fix for each problem

##@ data
data: ## find or download a data set and describe it; ROOT=FOLDER if it is elsewhere
splits: ## write a data set's split and folds to results/splits as CSV
overlap: ## report what a data set shares with a trunk's pretraining: class names, copies of images; ARGS=images=FOLDER

##@ develop
check-loss: ## check a loss against its contract in a minute, with a sentence for each mistake: LOSS=my_loss
bench: ## compare the speed of this code with other libraries
bench-front: ## measure score against cost of variants of the training on glyphs
bench-gpu: ## measure a GPU in 8 minutes, and how many folds it should train at once
bench-search: ## compare the searchers with chance on functions whose best value is known: BUDGET=small, TRIALS=20 SEARCHES=3

setup: $(STAMP) ## create the environment (.venv); TORCH=cpu omits the CUDA libraries

INSTALL := VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode
HASHED := --no-deps --require-hashes
# faiss-gpu brings a CUDA of its own (1.5 GB), which is of no use without an NVIDIA driver.
FAISS_CPU := awk '/^[A-Za-z0-9]/ { drop = /^(faiss-gpu|nvidia-[a-z0-9-]+-cu12)==/; if (/^faiss-cpu==/) sub(/ ;[^\\]*/, " ") } !drop'

$(STAMP): requirements.lock requirements-cpu.lock requirements-uv.lock
	@test -n $(call quoted,$(PYTHON)) || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name it: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(VENV)/bin/python || $(call quoted,$(PYTHON)) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet $(HASHED) -r requirements-uv.lock
ifeq ($(TORCH),cpu)
	@grep -q '^torch==' requirements-cpu.lock || { echo "PyTorch's CPU build is installed without a check of its hash: requirements-cpu.lock holds none." && \
		$(INSTALL) --torch-backend=cpu $$(grep -hoE '^torch(vision)?==[0-9.]+' requirements.lock); }
	@VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip uninstall --quiet faiss-gpu 2>/dev/null; $(INSTALL) --torch-backend=cpu $(HASHED) -r requirements-cpu.lock
else ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
	@echo "No NVIDIA driver on this machine: installing faiss-cpu in place of faiss-gpu."
	@VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip uninstall --quiet faiss-gpu 2>/dev/null; $(FAISS_CPU) requirements.lock | $(INSTALL) $(HASHED) -r -
else
	@VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip uninstall --quiet faiss-cpu 2>/dev/null; $(INSTALL) $(HASHED) -r requirements.lock
endif
	@touch $@

soak: $(STAMP) ## kill workers and drivers of a search every few seconds, and measure the cost
	$(RUN) tests.soak

scale: $(STAMP) ## run a thousand sleeping jobs on 32 Ray workers, and measure the driver's cost
	$(RUN) tests.scale

test: $(STAMP) ## run the fast tests
	$(RUN) pytest -q -n logical --dist loadfile -m "not slow and not gpu and not bad_input"

# One process more than cores, since many of these tests wait for the processes that they start.
test-all: $(STAMP) ## run all tests
	$(RUN) pytest -q -n $$($(VENV)/bin/python -c 'import os; print(os.cpu_count() + 1)') --dist loadfile --no-loadscope-reorder -m "not gpu"

test-library: $(STAMP) ## run the tests of the losses with other versions of pytorch-metric-learning that can be installed
	$(RUN) tests.library_versions

lint: $(STAMP) ## run ruff and mypy
	$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy

docs: $(STAMP) ## build the documentation into build/docs; a warning is an error
	@test -x $(VENV)/docs/bin/python || $(VENV)/bin/uv venv --quiet $(VENV)/docs
	@VIRTUAL_ENV=$(VENV)/docs $(VENV)/bin/uv pip sync --quiet --require-hashes requirements-docs.lock
	@NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --quiet --strict && echo build/docs/index.html

audit: $(STAMP) ## check the lock files against known vulnerabilities, list licences, and write an SBOM
	$(RUN) tests.audit

COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
lock: $(STAMP) ## resolve the dependencies of pyproject.toml and write the lock files
	echo uv | $(COMPILE) - -o requirements-uv.lock
	$(COMPILE) --extra dev pyproject.toml -o requirements.lock
	@$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' | \
		$(COMPILE) - -o requirements-docs.lock
	$(FAISS_CPU) requirements.lock | awk '/^[A-Za-z0-9]/ { drop = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)[=@ ]/ } !drop' > requirements-cpu.lock
	@grep -hoE '^torch(vision)?==[0-9.]+' requirements.lock | $(COMPILE) --torch-backend=cpu --no-deps - > $(VENV)/torch-cpu.lock; \
		if grep -q -- --hash= $(VENV)/torch-cpu.lock; then cat $(VENV)/torch-cpu.lock >> requirements-cpu.lock; \
		else echo "PyTorch's index of CPU builds cannot be read: requirements-cpu.lock has no hashes of torch and torchvision."; fi

clean: ## delete the environment, but not the results
	rm -rf $(VENV)
