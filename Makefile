# Everything from nothing: the first target that needs it makes .venv from requirements.lock, once.

PYTHON ?= python3
TIER ?= demo
TABLE ?= table1
BUDGET ?= test
JOBS ?= 2
VENV := .venv
RUN := $(VENV)/bin/python
PEERS := .venv-peers
OPTIONS = $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ROWS),--rows $(ROWS)) $(if $(DEVICE),--device $(DEVICE)) \
  $(if $(RESULTS),--results $(RESULTS)) $(if $(ALLOW_DIRTY),--allow-dirty)

.DEFAULT_GOAL := help
.PHONY: help reproduce-table1 records readme landscape method notebooks docs test lint unit theory-tests theory slow coverage bench bench-training clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.lock
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

reproduce-table1: $(VENV)/installed  ## the paper's table, rerun: TIER=demo|cpu|paper DATA=dir SEEDS=n TABLE=table1|ablation|radii|landscape
#   also: JOBS=n DEVICE=cuda ROWS="maml both" RESULTS=dir ALLOW_DIRTY=1 (records of uncommitted code, labelled so)
	$(RUN) -m reproductions.table1 --tier $(TIER) --table $(TABLE) --jobs $(JOBS) $(OPTIONS)

records:  ## copy the records of TIER=... from results/ to the tracked ones
	@mkdir -p reproductions/records/$(TIER)
	@for file in results/$(TIER)/*/seed*/record.json; do \
	  seed=$$(dirname $$file); row=$$(dirname $$seed); \
	  cp -v $$file reproductions/records/$(TIER)/$$(basename $$row)-$$(basename $$seed).json; done

landscape: $(VENV)/installed  ## is the landscape smoother? trains what is missing, measures, draws: TIER=... DATA=dir SEEDS=n
	$(RUN) -m reproductions.table1 --tier $(TIER) --table landscape --jobs $(JOBS) $(OPTIONS)
	$(RUN) -m reproductions.landscape --tier $(TIER) --jobs $(JOBS) $(if $(DATA),--data $(DATA)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(RESULTS),--results $(RESULTS))

method: $(VENV)/installed  ## the algorithm on two-dimensional tasks, and its lower level against the exact one
	OMP_NUM_THREADS=1 $(RUN) -m reproductions.method $(if $(RESULTS),--output $(RESULTS)/method.json)

notebooks: $(VENV)/installed  ## the appendix: HTML, and LaTeX and PDF where found; from tracked records, or RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m notebooks $(if $(RESULTS),--results $(RESULTS) --output $(RESULTS)/appendix)

docs: $(VENV)/installed  ## the documentation site, in results/docs
	$(RUN) -m sphinx -W --keep-going --quiet -b html docs results/docs
	@echo results/docs/index.html

readme: $(VENV)/installed  ## the tables of README and docs/performance.md, from the tracked records
	$(RUN) -m reproductions.table1 --tier $(TIER) --tracked --readme
	$(RUN) -m tests.benchmarks.page

test: lint unit theory-tests  ## everything that can be checked in minutes: style, types, unit tests, claims

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# One thread a process: on a busy machine two make small steps many times slower.
unit: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest

theory-tests: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m theory

theory: $(VENV)/installed  ## all claims and their controls, with report and figures: BUDGET=smoke|test|full
	OMP_NUM_THREADS=1 $(RUN) -m theory --budget $(BUDGET) $(if $(RESULTS),--output $(RESULTS)/theory)

slow: $(VENV)/installed  ## the slow tests, and with DATA=dir those on real data
	$(RUN) -m pytest -m "slow or data" $(if $(DATA),--data=$(DATA) --require=data)

coverage: $(VENV)/installed  ## line and branch coverage of the core by the unit tests
	$(RUN) -m coverage erase
	OMP_NUM_THREADS=1 $(RUN) -m coverage run -m pytest
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report --fail-under=95

$(PEERS)/installed: tests/benchmarks/peers.txt requirements.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement tests/benchmarks/peers.txt --constraint requirements.lock
	@touch $@

bench: $(VENV)/installed $(if $(QUICK),,$(PEERS)/installed)  ## speed against a plain loop, higher and torchopt, half an hour: QUICK=1 for a minute
	$(RUN) -m tests.benchmarks.bench $(if $(QUICK),--quick,--peers $(PEERS)/bin/python)

bench-training: $(VENV)/installed  ## does the fast path train as well as the plain loop? DATA=dir (an hour on two cores)
	OMP_NUM_THREADS=1 $(RUN) -m tests.benchmarks.training $(or $(DATA),$(error name miniImageNet with DATA=dir)) --jobs $(JOBS)

clean:  ## empty results/; never reproductions/records/
	rm -rf results
