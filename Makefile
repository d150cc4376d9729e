# Everything from nothing: the first target that needs it makes .venv from a lock file, once.

PYTHON ?= python3
TIER ?= demo
BUDGET ?= test
JOBS ?= 2
VENV := .venv
RUN := $(VENV)/bin/python
PEERS := .venv-peers
OPTIONS = $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ROWS),--rows $(ROWS)) $(if $(DEVICE),--device $(DEVICE)) \
  $(if $(RESULTS),--results $(RESULTS)) $(if $(ALLOW_DIRTY),--allow-dirty)

.DEFAULT_GOAL := help
.PHONY: help reproduce-table1 publish landscape sensitivity method notebooks docs test torture licences lint unit theory-tests theory calibration alarms regime network-rate certificate counts proofs clusters mutants slow long coverage bench bench-training gpu lock dist clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# What the table needs, and all the rest. TORCH=cpu or cuda: which build of torch; by default cpu where no NVIDIA driver is.
$(VENV)/main $(VENV)/dev: $(VENV)/%: requirements/%.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not found: make PYTHON=/path/to/python3 ..." >&2; exit 2; }
	@TORCH=$(TORCH) $(PYTHON) requirements/install.py $*
	@touch $(VENV)/main $@

reproduce-table1: $(VENV)/main  ## the paper's table, rerun: TIER=demo|cpu|paper|... DATA=dir SEEDS=n TABLE=name
#   also: JOBS=n DEVICE=cuda ROWS="maml both" RESULTS=dir ALLOW_DIRTY=1 (records of uncommitted code, labelled so), and TORCH
	$(RUN) -m reproductions.tables --tier $(TIER) $(if $(TABLE),--table $(TABLE)) --jobs $(JOBS) $(OPTIONS)

publish: $(VENV)/dev  ## write all that is printed from records/: CHECK=1 only names it; fresh ones first: RESULTS=dir ONLY="tables/demo ..." NETWORKS=1
	OMP_NUM_THREADS=1 $(RUN) -m publish $(if $(CHECK),--check) $(if $(RESULTS),--from $(RESULTS)) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(NETWORKS),--networks)

landscape: $(VENV)/main  ## is the landscape smoother? trains what is missing, measures, draws: TIER=... TABLE=its networks DATA=dir SEEDS=n
	$(RUN) -m reproductions.tables --tier $(TIER) --table $(or $(TABLE),landscape) --jobs $(JOBS) $(OPTIONS)
	$(RUN) -m reproductions.landscape --tier $(TIER) --jobs $(JOBS) $(if $(DATA),--data $(DATA)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(RESULTS),--results $(RESULTS))

sensitivity: $(VENV)/main  ## how far choices of the protocol move the accuracy of trained networks: TIER=... DATA=dir SEEDS=n RESULTS=dir
	$(RUN) -m reproductions.sensitivity --tier $(TIER) $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(RESULTS),--results $(RESULTS))

method: $(VENV)/main  ## the algorithm on two-dimensional tasks, and its lower level against the exact one
	OMP_NUM_THREADS=1 $(RUN) -m reproductions.method $(if $(RESULTS),--output $(RESULTS)/method.json)

notebooks: $(VENV)/dev  ## the appendix as HTML, PDF and LaTeX fragment, from tracked records, or RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m notebooks $(if $(RESULTS),--results $(RESULTS) --output $(RESULTS)/appendix)

docs: $(VENV)/dev  ## the documentation site with the appendix, in results/docs, looked at by a browser where one is found
	rm -rf results/docs
	$(RUN) -m sphinx -W --keep-going --quiet -b html docs results/docs
	OMP_NUM_THREADS=1 $(RUN) -m notebooks --output results/docs/appendix
	SITE=results/docs $(RUN) -m pytest -m slow tests/docs/test_site.py
	@echo results/docs/index.html

test: lint unit theory-tests  ## everything that can be checked in minutes: style, types, unit tests, claims

lint: $(VENV)/dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# One thread a process: on a busy machine two make small steps many times slower.
unit: $(VENV)/dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal

# A file a process: the claims are measured once, in processes of their own.
theory-tests: $(VENV)/dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m theory -n $(JOBS) --dist loadfile

theory: $(VENV)/dev  ## all claims and their controls, with report and figures: BUDGET=smoke|test|full ONLY="claim ..."
	OMP_NUM_THREADS=1 $(RUN) -m theory --budget $(BUDGET) $(if $(ONLY),--only $(ONLY)) $(if $(RESULTS),--output $(RESULTS)/theory)

calibration: $(VENV)/dev  ## how often the claims' rules err, under planted truths and their own noise: BUDGET=test|full
	OMP_NUM_THREADS=1 $(RUN) -m theory.check.calibration --budget $(BUDGET) $(if $(RESULTS),--output $(RESULTS)/theory)

alarms: $(VENV)/dev  ## how often a claim comes out wrong over twenty base seeds: RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m theory.check.alarms --jobs $(JOBS) $(if $(RESULTS),--output $(RESULTS)/theory/alarms.json)

certificate: $(VENV)/dev  ## what the generalization bound says of trained networks: trains what is missing of the demo tier: RESULTS=dir
	$(RUN) -m reproductions.tables --rows maml low up both --seeds 1 --jobs $(JOBS) $(if $(RESULTS),--results $(RESULTS))
	OMP_NUM_THREADS=1 $(RUN) -m theory.networks.certificate \
	  $(foreach row,maml low up both,$(or $(RESULTS),results)/demo/$(row)/seed0/best.safetensors) \
	  --data $(or $(RESULTS),results)/data/synthetic-images-16-100 --output $(or $(RESULTS),results)/theory

numbers = $(shell seq 0 $$(($(or $(SEEDS),3) - 1)))
runs = $(foreach row,$(2),$(foreach seed,$(numbers),$(or $(RESULTS),results)/$(1)/$(row)/seed$(seed)/))
finished = $(dir $(wildcard $(addsuffix record.json,$(runs))))
define measure-regime
$(RUN) -m reproductions.tables.early $(addsuffix best.safetensors,$(1)) --data $(2)
OMP_NUM_THREADS=1 $(RUN) -m theory.networks.regime $(foreach run,$(1),$(run)early.safetensors $(run)best.safetensors) --data $(2) \
  --output $(or $(RESULTS),results)/theory
endef

# With DATA also at those networks of the tier cpu that have records; it is not trained here.
regime: $(VENV)/dev  ## is the rate's theorem about trained networks? trains what is missing of the demo tier: SEEDS=n RESULTS=dir DATA=miniimagenet
	$(RUN) -m reproductions.tables --rows maml low up both --seeds $(or $(SEEDS),3) --jobs $(JOBS) $(if $(RESULTS),--results $(RESULTS))
	for seed in $(numbers); do $(RUN) -m sharp_maml train theory/networks/regime.toml seed=$$seed \
	  data=$(or $(RESULTS),results)/data/synthetic-images-16-100 --directory $(or $(RESULTS),results)/demo/maml-sgd/seed$$seed || exit; done
	$(call measure-regime,$(call runs,demo,maml low up both maml-sgd),$(or $(RESULTS),results)/data/synthetic-images-16-100)
	$(if $(DATA),$(call measure-regime,$(call finished,cpu,maml low up both low-chosen up-chosen both-chosen),$(DATA)))

counts: $(VENV)/dev  ## stationary points of MAML and ERM on small networks, counted with proof (six minutes): RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m theory.networks.counts $(if $(RESULTS),--output $(RESULTS)/theory)

proofs: $(VENV)/dev  ## certificates of the rate and the algebra of both theorems, as data, and their verification: RESULTS=dir
	$(RUN) -m theory.proofs.make $(if $(RESULTS),--output $(RESULTS)/theory)
	$(RUN) -I -S theory/proofs/check.py $(or $(RESULTS),results)/theory/proofs.json

network-rate: $(VENV)/dev  ## does the rate hold on a network? SGD at the prescribed steps on images made on the spot, 20 minutes: RESULTS=dir
	$(RUN) -m synthetic.images $(or $(RESULTS),results)/data/synthetic-images-16-100 --size 16
	OMP_NUM_THREADS=1 $(RUN) -m theory.networks.rate --data $(or $(RESULTS),results)/data/synthetic-images-16-100 \
	  --output $(or $(RESULTS),results)/theory

clusters: $(VENV)/dev  ## what handing cells to Ray costs, on a cluster of this machine (needs `pip install ray`): RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m reproductions.tables.overhead $(if $(RESULTS),--output $(RESULTS))

mutants: $(VENV)/dev  ## mistakes seeded into the sources, one at a time, and who notices (a quarter of an hour): RESULTS=dir
	$(RUN) -m tests.theory.mutants $(if $(RESULTS),--output $(RESULTS)/theory)

torture: $(VENV)/dev  ## damaged inputs, kills, numbers under stress (an hour): INPUTS=n KILLS=n CASES="cell ..." ITERATIONS=n RESULTS=dir
	OMP_NUM_THREADS=1 $(RUN) -m tests.torture.fuzz $(if $(INPUTS),--inputs $(INPUTS)) $(if $(RESULTS),--output $(RESULTS))
	OMP_NUM_THREADS=1 $(RUN) -m tests.torture.kills $(if $(KILLS),--kills $(KILLS)) $(if $(CASES),--only $(CASES)) $(if $(RESULTS),--output $(RESULTS))
	OMP_NUM_THREADS=1 $(RUN) -m tests.torture.numbers $(if $(ITERATIONS),--iterations $(ITERATIONS)) $(if $(RESULTS),--output $(RESULTS))

licences: $(VENV)/dev  ## the licence of everything that is installed, as its own metadata say
	@$(RUN) requirements/licences.py

slow: $(VENV)/dev  ## the slow tests, and with DATA=dir those on real data
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "(slow or data) and not long" -n $(JOBS) --dist worksteal $(if $(DATA),--data=$(DATA) --require=data)

long: $(VENV)/dev  ## tests that take minutes each: kills of a real run, the paper tier's first iterations, DATA=dir
	OMP_NUM_THREADS=$(JOBS) $(RUN) -m pytest -m long --data=$(or $(DATA),$(error name miniImageNet with DATA=dir)) --require=data

coverage: $(VENV)/dev  ## line and branch coverage of the core by the unit tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal --cov --cov-report=term --cov-fail-under=95

$(PEERS)/installed: benchmarks/peers.txt requirements/dev.lock
	$(PYTHON) -m venv $(PEERS)
	@sed -n '/^[a-z]/s/ \\$$//p' requirements/dev.lock > $(PEERS)/constraints.txt  # versions only: peers have no hashes
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers.txt --constraint $(PEERS)/constraints.txt
	@touch $@

bench: $(VENV)/dev $(if $(QUICK),,$(PEERS)/installed)  ## speed against a plain loop, higher, torchopt and JAX, an hour: QUICK=1 for a minute
	$(RUN) -m benchmarks.bench $(if $(QUICK),--quick,--peers $(PEERS)/bin/python)

bench-training: $(VENV)/dev  ## does the fast path train as well as the plain loop? DATA=dir (an hour on two cores)
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.training $(or $(DATA),$(error name miniImageNet with DATA=dir)) --jobs $(JOBS)

gpu: $(VENV)/dev  ## on a GPU: its tests, graphs against single operations, speed, the paper tier's first iterations, DATA=dir (an hour, by estimate)
	$(RUN) -m benchmarks.gpu $(or $(DATA),$(error name miniImageNet with DATA=dir))

lock: $(VENV)/dev  ## the two lock files anew from pyproject.toml, versions kept where they can be: UPGRADE=1 for the newest
	for extra in dev table; do \
	  name=$$([ $$extra = dev ] && echo dev || echo main); \
	  UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --no-emit-index-url $(if $(UPGRADE),--upgrade) --extra $$extra pyproject.toml --output-file requirements/$$name.lock \
	    $$([ $$extra = dev ] || echo --constraint requirements/dev.lock) || exit; \
	done

dist: $(VENV)/dev  ## wheel and source distribution in dist/, checked as the package index would (fetches twine): URL=address of the repository
	rm -rf dist
	URL=$(URL) $(RUN) -m hatchling build --directory dist
	$(VENV)/bin/uv tool run --python $(VENV)/bin/python "twine>=6" check --strict dist/*

clean:  ## empty results/; never records/
	rm -rf results
