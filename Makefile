# Everything starts here; `make` alone lists what there is.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# More words for pip, such as another index or a folder of wheels.
PIP_FLAGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
STUBS := client/generated/__init__.py
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install serve stop status caption train archive test check format loadtest clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) $(STUBS) ## Create .venv with everything in it (done once)

serve: install ## Build what is missing, serve it, caption a sample (CHECKPOINT=DIR PRECISION=P SAMPLE=FILE)
	@$(RUN) -m deploy.serve start $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) \
		$(if $(PRECISION),--precision $(PRECISION)) \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(CONFIG),--config $(CONFIG))

stop: install ## End the server
	@$(RUN) -m deploy.serve stop

status: install ## Say whether the server is up
	@$(RUN) -m deploy.serve status $(if $(CONFIG),--config $(CONFIG))

caption: install ## Caption FILE with the running server (ADDRESS=http://HOST:PORT)
	@$(RUN) -m client $(if $(ADDRESS),--address $(ADDRESS)) $(or $(FILE),$(error say which picture: make caption FILE=photo.jpg))

train: install ## Run the pipeline: prepare, features, train, evaluate, export, archive
	$(RUN) -m dvc repro

archive: install ## Pack model_store/clipcap.mar, and what it needs before
	$(RUN) -m dvc repro archive

test: install ## Run every test, against a real TorchServe too
	$(RUN) -m pytest --cov --cov-report=term:skip-covered

check: install ## Lint, types, tests
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	@$(MAKE) --no-print-directory test

format: install ## Put the code in its usual form
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

loadtest: install ## Load a server of its own for a minute; report in reports/loadtest/
	$(RUN) -m loadtests

clean: ## Remove caches and what was built for serving; data and models stay
	rm -rf build reports/loadtest model_store/custom .pytest_cache .mypy_cache .ruff_cache .coverage
	rm -rf client/generated
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo 'error: Python 3.11 is needed; say where it is: make install PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[serve,train,dev]'
	@touch $@

$(STUBS): client/stubs.py $(INSTALLED)
	@$(RUN) -m client.stubs
