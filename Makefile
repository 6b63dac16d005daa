# A fresh machine needs Python 3.10 or later, make and git; `make demo` does the rest.
# Another interpreter: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) -m pip
READY := $(VENV)/.ready
UNFINISHED := $(VENV)/.unfinished

.DEFAULT_GOAL := help
.PHONY: help setup demo test constraints clean

help:
	@echo 'make setup        create $(VENV) and install everything in it'
	@echo 'make demo         set up, then distil three teachers into one small student'
	@echo 'make test         set up, then ruff, mypy and pytest (PYTEST="-k store" narrows it down)'
	@echo 'make constraints  resolve constraints.txt anew (UPGRADE=--upgrade moves every pin)'
	@echo 'make clean        remove $(VENV), caches and builds; runs and the store stay'

setup: $(READY)

# A killed pip leaves half a package behind and later takes it for installed, so an environment that
# still carries the mark of unfinished work is made anew.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo 'make: $(PYTHON) not found; install Python 3.10 or later or give one: make setup PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "make: Python 3.10 or later is needed, got $$($(PYTHON) --version 2>&1); give one: make setup PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo 'make: $(PYTHON) cannot create environments; on Debian and Ubuntu install python3-venv' >&2; exit 1; }
	@if [ -e $(UNFINISHED) ] || ! $(RUN) -c '' 2>/dev/null; then \
		echo 'creating $(VENV)'; rm -rf $(VENV); mkdir $(VENV); touch $(UNFINISHED); \
		$(PYTHON) -m venv $(VENV); fi
	@echo 'installing into $(VENV), about two minutes the first time'
	@touch $(UNFINISHED)
	@$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'; \
		status=$$?; rm -f $(UNFINISHED); exit $$status
	@touch $(READY)

demo: setup
	$(RUN) -m ensemble_kd teacher=ensemble3 strategy=assistant

# A process for each core, with one thread: the networks of the tests are too small to share.
test: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n auto --dist worksteal $(PYTEST)

# One resolution for every supported Python; pins that still fit stay as they are.
constraints: setup
	$(PIP) install -qq uv
	UV_PYTHON_DOWNLOADS=never $(RUN) -m uv pip compile --quiet --universal --python-version 3.10 \
		--extra dev --extra timm --extra xgboost --no-annotate --no-header $(UPGRADE) \
		--output-file constraints.txt pyproject.toml
	{ echo '# Every version that `make setup` installs, on Python 3.10 to 3.13; written by `make constraints`.'; \
		echo '# Installed and tested on Python 3.11; on the others the command line and the wheel, without torch.'; \
		cat constraints.txt; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
