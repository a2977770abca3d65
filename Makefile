# make run: environment, then the whole study of config/config.yaml.   make test: the tests.   make lint: all linters.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := workflow/scripts tests benchmarks docs/pages.py

.DELETE_ON_ERROR:
.PHONY: run controls test saes docs lint format bench bench-gpu config-docs lock clean

run: $(READY)
	$(BIN)/snakemake --cores all

# The studies whose truth is known: a model taught to think, one taught its words in random places, one taught nothing.
controls: run
	$(BIN)/snakemake --cores all --configfile config/config.yaml config/sham.yaml
	$(BIN)/snakemake --cores all --configfile config/config.yaml config/untaught.yaml
	PYTHONPATH=workflow/scripts $(BIN)/python -m thoughtscope.report.controls config/config.yaml config/sham.yaml config/untaught.yaml

test: $(READY)
	$(BIN)/python -m pytest

# SAELens and dictionary_learning over that environment, for the tests of their formats, which are skipped without.
SAES := .venv-saes
saes: $(SAES)/.ready

$(SAES)/.ready: requirements-saes.lock $(READY)
	$(PYTHON) -m venv $(SAES)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(ls -d $(SAES)/lib/python3*/site-packages)/beside.pth
	$(SAES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-saes.lock
	touch $@

# The documentation as pages, in site/; those of docstrings need the environment, too.
DOCS := .venv-docs
docs: $(DOCS)/.ready
	$(DOCS)/bin/python docs/pages.py build/docs
	$(DOCS)/bin/sphinx-build -q -W --keep-going -b html build/docs site

$(DOCS)/.ready: requirements-docs.lock $(READY)
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(ls -d $(DOCS)/lib/python3*/site-packages)/beside.pth
	touch $@

lint: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/snakefmt Snakefile workflow/rules

# All claims about speed and size, and whether this machine meets them, into benchmarks/README.md. BENCH=quick takes
# smaller sizes and at most 8 minutes. bench-gpu measures a GPU alone, into benchmarks/gpu.md.
BENCH ?= full
bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(BENCH)

bench-gpu: $(READY)
	$(BIN)/python benchmarks/bench.py gpu

# config/README.md from the schema; a test fails when it lags behind.
config-docs: $(READY)
	PYTHONPATH=workflow/scripts $(BIN)/python -m thoughtscope.docs

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, $(PYTHON) is $$($(PYTHON) --version); try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Installing the environment into $(VENV) (once, some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

# All versions anew, from the newest that requirements.in admits. A local build tag such as torch's +cpu is dropped, so
# that each machine takes the build made for it.
lock:
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.in
	{ echo "# Every package of the environment, exactly. Made from requirements.in by 'make lock'."; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude pip --exclude setuptools | sed 's/+cpu$$//'; } > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(SAES) $(DOCS) build site
