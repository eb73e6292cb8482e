SHELL := bash
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
CORES ?= all

# where torch comes from; https://download.pytorch.org/whl/cpu has one without CUDA, a tenth as large
TORCH_INDEX ?=
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off

.PHONY: help tables env test long check parity benchmark gpu benchmark-video rehearsal campaign mutants resume track lock schemas store release crate croissant clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

tables: env  ## every results table of the demo edition, from nothing
	snakemake --quiet reason --cores $(CORES) $(ARGS)

env: .venv/.installed  ## the environment, in .venv; TORCH_INDEX=https://download.pytorch.org/whl/cpu for one without CUDA; EXTRAS="slurm s3 ssh postgres"
	@for extra in $(EXTRAS); do \
		pins=$$(awk -v wanted="# [$$extra]" '/^# \[/ { on = $$0 == wanted } on && /==/' requirements-extras.lock); \
		test -n "$$pins" || { echo "EXTRAS=$$extra: requirements-extras.lock has no such section" >&2; exit 1; }; \
		echo "$$extra: $$pins" && $(PIP) --quiet --no-deps $$pins || exit 1; done

# an environment knows the folder that it was made in: a copied or moved checkout needs another
COPIED := $(and $(wildcard .venv/.installed),$(filter-out $(CURDIR),$(shell cat .venv/.installed 2> /dev/null)))
ifneq ($(COPIED),)
.PHONY: .venv/.installed
endif

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null || \
		{ echo "$(PYTHON): expected Python 3.11, 3.12 or 3.13; name one: make env PYTHON=python3.12" >&2; exit 1; }
	@echo "the environment: $$(grep -c == requirements.lock) pinned packages into .venv, a few minutes," \
		"2.4 GB (several more where torch brings CUDA)"
	$(PYTHON) -m venv $(if $(COPIED),--clear) .venv
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) $$(grep ^torch== requirements.lock))
	@set -o pipefail; PYTHONUNBUFFERED=1 $(PIP) --requirement requirements.lock | awk -v all=$$(grep -c == requirements.lock) \
		'/^(Collecting|Processing|Requirement already)/ { n++; if (n % 20 == 0 || n == all) print n " of " all " packages found" } \
		/Downloading .*\(([0-9.]+ GB|[0-9][0-9]+[0-9.]* MB)\)/ { sub(/^ */, ""); print } \
		/^Installing/ { print "installing them: a minute or two" } { fflush() }'
	$(PIP) --quiet --no-deps --editable .
	@pwd -P > $@

test: env  ## the tests, but for the longest ones
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

long: env  ## the longest tests: kills, copies and repetitions of the whole workflow
	pytest -n 2 --dist loadfile -m long

check: env  ## linters, formatters, types, generated files
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff Snakefile workflow
	snakemake --lint
	snakemake --lint --config edition=paper
	mypy
	lint-imports --no-cache
	python tests/consistency.py

parity: env  ## write docs/parity.md: how far ours is from the published implementations
	python tests/parity.py

benchmark: env  ## write docs/performance.md: speed and memory against the published implementations
	python benchmarks/benchmark.py

gpu: env  ## on a machine with a CUDA GPU: its tests, then its section of docs/performance.md
	pytest -m gpu tests/test_devices.py
	python benchmarks/benchmark.py --only GPU

benchmark-video: env  ## into docs/performance.md: how fast videos are decoded and extracted, and in how much memory
	python benchmarks/video.py

rehearsal: env  ## the paper edition at published size, two epochs of 12 videos of every row; into docs/performance.md
	actionformer rehearse --videos 12 $(ARGS)
	snakemake --cores $(CORES) --config edition=rehearsal mirror=build/rehearsal-mirror \
		set=training.schedule_epochs=2,training.warmup_epochs=1
	actionformer status --edition paper --measure
	python benchmarks/rehearsal.py .

campaign: env  ## kill, damage, fill up and crowd everything; what held is docs/reliability.md (an hour)
	cd tests && python -m campaign $(ARGS)

mutants: env  ## put 600 faults into the code, one at a time: which ones do the tests not notice? (hours)
	$(BIN)/pip install --quiet --disable-pip-version-check --target build/cosmic-ray \
		--no-deps cosmic-ray==8.7.0 parso==0.8.7 stevedore==5.10.0 toml==0.10.2
	PYTHONPATH=build/cosmic-ray python tests/mutation.py $(ARGS)

resume: env  ## go on after a kill -9 or a power loss; ARGS="--config edition=paper" as in the call before
	snakemake --unlock $(ARGS)
	snakemake --cores $(CORES) $(ARGS)
	@planned=$$(snakemake --cores $(CORES) --dry-run $(ARGS) 2>&1) && grep 'Nothing to be done' <<< "$$planned" \
		|| { tail -n 30 <<< "$$planned" >&2; echo 'make resume: something is left to be done; run it again' >&2; exit 1; }

track: env  ## bring finished runs into MLflow, where it lacks them
	actionformer track

lock: env  ## write requirements.lock, requirements-extras.lock and environment.yml from what is installed, with all extras
	python tests/consistency.py --write

schemas: env  ## write workflow/schemas and report, and the tables of docs/
	actionformer params --schemas workflow/schemas
	python tests/consistency.py --table

store: env  ## make data/demo anew and put it into the repository's DVC store
	actionformer demo-data
	dvc add data/demo
	dvc push data/demo

EDITION ?= demo
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/actionformer/__init__.py)

release: env  ## wheel, sources and results archive of this version, in dist/ (docs/releasing.md); EDITION=paper
	@git diff --quiet HEAD || { echo 'make release: files differ from the commit; commit them first' >&2; exit 1; }
	@grep -q '^## $(VERSION)$$' CHANGELOG.md || { echo 'CHANGELOG.md: no section "## $(VERSION)"' >&2; exit 1; }
	@grep -q '^version: $(VERSION)$$' CITATION.cff || { echo 'CITATION.cff: expected version: $(VERSION)' >&2; exit 1; }
	actionformer verify --edition $(EDITION)
	rm -rf dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	git archive --prefix actionformer-$(VERSION)/ --output dist/actionformer-$(VERSION).tar.gz HEAD
	actionformer archive --edition $(EDITION) --out dist/results-$(EDITION)-$(VERSION).zip
	actionformer verify --archive dist/results-$(EDITION)-$(VERSION).zip
	cd dist && sha256sum -- *.whl *.tar.gz *.zip > SHA256SUMS
	@ls -l dist

crate: env  ## does roc-validator take the demo edition's archive for a Workflow Run Crate? In an environment of its own
	test -x build/roc/bin/rocrate-validator || { $(PYTHON) -m venv build/roc && build/roc/bin/pip install --quiet \
		--disable-pip-version-check 'rich<14' roc-validator==0.13.0; }
	actionformer archive --edition $(EDITION) --out build/crate.zip
	python tests/crate.py build/crate.zip build/roc/bin/rocrate-validator

# one row of each data set
ROW_OF_EACH := activitynet_tsp charades_i3d_rgb ego4d_slowfast epic_noun_slowfast fineaction_videomae_h hacs_slowfast \
	multithumos_i3d thumos14_i3d

croissant: env  ## does mlcroissant read every data set's metadata, and its records? After make tables, in an environment of its own
	test -x build/mlcroissant/bin/mlcroissant || { $(PYTHON) -m venv build/mlcroissant && \
		build/mlcroissant/bin/pip install --quiet --disable-pip-version-check mlcroissant==1.1.1; }
	for row in $(ROW_OF_EACH); do \
		actionformer export croissant $$row --edition $(EDITION) --out build/croissant/$$row || exit 1; done
	build/mlcroissant/bin/python tests/croissant.py $(addprefix build/croissant/,$(ROW_OF_EACH))

clean:  ## remove results and intermediate files, not data
	rm -rf results build .snakemake
