# Every target works from a bare clone: the first one makes .venv.
PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
WHEEL_BIN := .venv-wheel/bin
READY := .venv/.ready
WHEEL_READY := .venv-wheel/.ready
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# Beside other busy processes torch's threads would spin while they wait for a core: measured 1.6 times slower.
export OMP_WAIT_POLICY ?= PASSIVE

# Two workers, one core each; LangChain's suite brings benchmarks, which would warn that they are off.
TWO_AT_A_TIME := -n 2 --benchmark-disable

# An active environment of the caller's must not leak into ours.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

MIN_BIN := .venv-min/bin
MIN_READY := .venv-min/.ready
MAX_BIN := .venv-max/bin

.PHONY: chaos min-versions-test max-versions-test ray-test servers-test help setup pictures demo test test-slow lint format types mypy pyright release docs lock sbom perf results clean

help:
	@echo "make demo        route real questions between two small local models"
	@echo "make test        the test-suite"
	@echo "make test-slow   statistical proofs"
	@echo "make lint        ruff ('make format' repairs) and the imports' contracts"
	@echo "make types       mypy and pyright"
	@echo "make min-versions-test  the adapter against the oldest langchain-core"
	@echo "make max-versions-test  the adapter against the newest"
	@echo "make ray-test    the label pipeline on a Ray cluster of this machine"
	@echo "make servers-test  all hosts against real servers: llama.cpp and transformers serve"
	@echo "make pictures    draws the README's and the documentation's pictures anew"
	@echo "make release     wheel and source archive into build/release, checked and tested"
	@echo "make docs        the documentation's pages, into build/docs"
	@echo "make sbom        install what users do, by hash, and list it: build/sbom.cdx.json"
	@echo "make lock        make requirements.lock anew"
	@echo "make perf        benchmarks"
	@echo "make chaos       17,000 calls while edge and cloud fail, processes are killed and the disk is full, some six minutes"
	@echo "make results     the tables and plots of docs/results, from recorded data"
	@echo "make clean       remove environments, builds and caches, not the pulled models"

setup: $(READY)

# The stamp comes last: an interrupted set-up is gone through again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python {v[0]}.{v[1]}: expected 3.11 or newer; run make PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP_INSTALL) --editable '.[all,dev,docs]'
	@touch $@

demo: $(READY)
	@$(BIN)/confroute demo

test: $(READY)
	@for model in smollm2-135m all-minilm-l6-v2; do $(BIN)/confroute pull $$model >/dev/null || exit 1; done
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME) -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY)
	@for model in smollm2-135m all-minilm-l6-v2 qwen2.5-coder-0.5b qwen2.5-coder-1.5b; do $(BIN)/confroute pull $$model >/dev/null || exit 1; done
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME) -m slow --ignore=tests/servers --durations=15 $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(READY)
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

types: $(READY)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync mypy pyright

mypy: $(READY)
	@$(BIN)/python -m mypy

pyright: $(READY)
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python

$(WHEEL_READY): pyproject.toml constraints.txt
	@$(WHEEL_BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv-wheel
	rm -rf build/wheel && $(WHEEL_BIN)/python -m pip wheel -qq --no-deps --wheel-dir build/wheel .
	$(WHEEL_BIN)/python $(PIP_INSTALL) "$$(echo build/wheel/*.whl)[all,dev]"
	@touch $@

# The pins less the hosts' own, which these two choose themselves.
build/pins.txt: constraints.txt
	@mkdir -p build && grep -v '^lang' $< | grep -v '^pytest==' > $@

# The oldest langchain-core of pyproject.toml, alone: no `langchain`, whose versions that support it are older than ours.
# The suite of that time wants an older pytest.
$(MIN_READY): pyproject.toml build/pins.txt
	@$(MIN_BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv-min
	$(MIN_BIN)/python -m pip install -qq --disable-pip-version-check --constraint build/pins.txt --editable . \
		langchain-core==1.2.0 langchain-tests==1.1.0 pytest==8.4.2 hypothesis pytest-asyncio pytest-socket pytest-timeout pytest-xdist
	@touch $@

min-versions-test: $(MIN_READY)
	@$(MIN_BIN)/python -m pytest -p no:cacheprovider $(TWO_AT_A_TIME) -m "not slow" \
		$(addprefix tests/langchain/test_,$(addsuffix .py,chat context evidence failures fields prefix router standard))

# The newest hosts that the package index has, asked for at every run: what users get who install today.
max-versions-test: build/pins.txt
	@$(MAX_BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv-max
	$(MAX_BIN)/python -m pip install -qq --disable-pip-version-check --constraint build/pins.txt --editable . \
		--upgrade langchain-core langchain langgraph langchain-anthropic langchain-ollama langchain-openai langchain-tests \
		hypothesis pytest pytest-asyncio pytest-socket pytest-timeout pytest-xdist
	@$(MAX_BIN)/python -c 'import langchain_core; print("langchain-core", langchain_core.__version__)'
	@$(MAX_BIN)/python -m pytest -p no:cacheprovider $(TWO_AT_A_TIME) -m "not slow" tests/langchain

# `make pictures ASK=--ask` asks the front picture's two models again.
pictures: $(READY)
	@$(BIN)/python benchmarks/pictures.py $(ASK)

docs: $(READY)
	@rm -rf build/docs docs/api/*/
	@$(BIN)/python -m sphinx -q -W --keep-going --jobs auto -b html docs build/docs
	@echo build/docs/index.html

# What makes, checks and lists packages, apart from what is listed.
.venv-tools/.ready: constraints.txt Makefile
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) build check-wheel-contents cyclonedx-bom twine uv
	@touch $@

# The wheel is built from the source archive, as packagers of distributions do, and tested by the archive's own tests, of what a package
# can lack: modules, data files, commands, hosts. Run from an empty folder: from here the sources could be imported in its place.
release: $(WHEEL_READY) .venv-tools/.ready
	@rm -rf build/release && .venv-tools/bin/python -m build --outdir build/release . >/dev/null
	@.venv-tools/bin/twine check --strict build/release/*
	@.venv-tools/bin/check-wheel-contents --toplevel confroute,langchain_confroute,llama_index,llamaindex_confroute build/release/*.whl
	@tar -xzf build/release/*.tar.gz -C build/release
	@$(WHEEL_BIN)/python $(PIP_INSTALL) --no-deps --force-reinstall build/release/*.whl
	@mkdir build/release/empty && mv build/release/confroute-*/ build/release/source && cd build/release/empty && CONFROUTE_TEST_WHEEL=1 \
		../../../$(WHEEL_BIN)/python -m pytest -c ../source/pyproject.toml -p no:cacheprovider $(TWO_AT_A_TIME) -m "not slow and not local" \
		$(addprefix ../source/tests/,test_packaging.py cli hosts langchain llamaindex policy views) $(PYTEST_ARGS)
	@ls build/release/*.whl build/release/*.gz

# Every package that `confroute[all]` brings, for Python 3.11 and newer on every platform, by hash; all but torch, which has a build a
# device, from an index of one's own choice: constraints.txt has its version. `UPGRADE=--upgrade` takes newer releases.
lock: .venv-tools/.ready
	@mkdir -p build && echo 'torch; sys_platform == "none"' > build/no-torch.txt
	@.venv-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(UPGRADE) \
		--constraint constraints.txt --override build/no-torch.txt --no-emit-package torch --extra all \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

# Nothing else is in it, not even pip. The last line finds only what the lock brought: it fails where that lacks a package.
.venv-users/.ready: .venv-tools/.ready pyproject.toml requirements.lock
	@$(PYTHON) -m venv --clear --without-pip $(@D)
	@rm -rf build/users && .venv-tools/bin/python -m pip wheel -qq --no-deps --wheel-dir build/users .
	@.venv-tools/bin/python -m pip --python $(@D)/bin/python install -qq --no-compile --require-hashes --requirement requirements.lock
	@.venv-tools/bin/python -m pip --python $(@D)/bin/python install -qq --no-compile --constraint constraints.txt torch
	@.venv-tools/bin/python -m pip --python $(@D)/bin/python install -qq --no-index "$$(echo build/users/*.whl)[all]"
	@touch $@

sbom: .venv-users/.ready
	@.venv-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
		--output-file build/sbom.cdx.json .venv-users/bin/python
	@$(PYTHON) -c 'import json; parts = {one["name"]: one["version"] for one in json.load(open("build/sbom.cdx.json"))["components"]}; \
		print(len(parts), "packages in build/sbom.cdx.json:", *(f"{name} {parts[name]}" for name in ("torch", "langchain-core", "llama-index-core")))'

# These need an argument, data or hours, and have a target or a page of their own.
NOT_PERF := $(addprefix benchmarks/,chaos.py chaos_kills.py growth.py pictures.py real_edge.py recorded_rows.py results.py)

perf: $(READY)
	@for script in $(filter-out benchmarks/_% $(NOT_PERF),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: $(READY)
	@$(BIN)/python benchmarks/chaos.py
	@$(BIN)/python benchmarks/chaos_kills.py

# Environments that take the rest from .venv, for packages that no user of ours needs. Not as a plain path: what is editable
# there is found by its own .pth files.
define BORROWED
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -c 'import sys, sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "shared.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
endef

# Others' own code beside ours. RouteLLM names a server and a training stack among its needs; its routers use none of them.
# PEERS= leaves them out.
PEERS ?= routellm==0.2.0 cascadeflow==1.2.0 pandas==3.1.1

.venv-peers/.ready: $(READY)
	$(BORROWED)
	$(@D)/bin/python $(PIP_INSTALL) $(filter-out routellm%,$(PEERS))
	$(@D)/bin/python $(PIP_INSTALL) --no-deps $(filter routellm%,$(PEERS))
	@touch $@

.venv-ray/.ready: $(READY)
	$(BORROWED)
	$(@D)/bin/python $(PIP_INSTALL) 'ray[data]>=2.40'
	@touch $@

ray-test: .venv-ray/.ready
	@.venv-ray/bin/python -m pytest -p no:cacheprovider -m slow tests/labels/test_ray.py $(PYTEST_ARGS)

# Servers that others wrote, for the answers that no fake of ours can promise: llama.cpp, built, in the wheel of xllamacpp,
# and what `transformers serve` needs.
.venv-servers/.ready: $(READY)
	$(BORROWED)
	$(@D)/bin/python $(PIP_INSTALL) xllamacpp 'transformers[serving]'
	@touch $@

servers-test: .venv-servers/.ready
	@$(BIN)/confroute pull smollm2-135m >/dev/null
	@.venv-servers/bin/python -m pytest -p no:cacheprovider -m slow tests/servers $(PYTEST_ARGS)

# Needs RouteLLM's folder and the recorded training data; nothing of either is copied.
DATA ?= $(or $(CONFROUTE_DATA),../shared/data)
results: $(READY) $(if $(PEERS),.venv-peers/.ready)
	@$(BIN)/confroute pull all-minilm-l6-v2 >/dev/null
	@$(if $(PEERS),.venv-peers/bin,$(BIN))/python benchmarks/results.py --data $(DATA)

clean:
	rm -rf .venv .venv-wheel .venv-min .venv-max .venv-peers .venv-ray .venv-servers .venv-tools .venv-users build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
