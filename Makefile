# All commands of the project; `make` alone lists them.

# The Python that makes .venv; by default the first of CANDIDATES that is one of PYTHONS.
PYTHON ?=
CANDIDATES := python3.11 python3.12 python3.13 python3 python
PYTHONS := 3.11, 3.12 or 3.13
IS_ONE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# More words for pip, such as another index or a folder of wheels.
PIP_FLAGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
# One file for each group of packages in pyproject.toml, written when the group is installed.
SERVE := $(VENV)/.installed-serve
TRAIN := $(VENV)/.installed-train
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
STUBS := client/generated/__init__.py
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# The last stage of the pipeline, or of that of EXPERIMENT.
LAST_STAGE = $(if $(filter-out scenes,$(EXPERIMENT)),training/conf/dvc.yaml:archive@$(EXPERIMENT),archive)
NEEDS_REMOTE = @test -n "$$($(RUN) -m dvc config core.remote)" || { echo 'error: no DVC remote is set; to set one: .venv/bin/dvc remote add --default storage s3://BUCKET/dvc (docs/remote-storage.md)' >&2; exit 1; }

.DEFAULT_GOAL := help
# Targets share .venv and build/, so one runs at a time, even with -j.
.NOTPARALLEL:
.PHONY: help install serve swap canary promote rollback stop status key caption train archive push pull profile test check format loadtest chaos docs upgrade clean

# The values that a user gives (CHECKPOINT=, FILE=, ...) reach the shell as environment variables,
# where make puts them; written "$$NAME", they may hold blanks and quotes.

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(SERVE) $(TRAIN) $(DEV) $(STUBS) ## Create .venv with all packages (each target below installs what it needs)

serve: $(SERVE) $(STUBS) ## Serve the captioner trained here, or the shipped one (CHECKPOINT=DIR MODEL=NAME PRECISION=P SAMPLE=FILE NO_GATEWAY=1 GATEWAY_PORT=N)
	@$(RUN) -m deploy.serve start $${CHECKPOINT:+--checkpoint "$$CHECKPOINT"} \
		$${MODEL:+--model "$$MODEL"} $${PRECISION:+--precision "$$PRECISION"} \
		$${SAMPLE:+--sample "$$SAMPLE"} $${CONFIG:+--config "$$CONFIG"} \
		$${NO_GATEWAY:+--no-gateway}

swap: $(SERVE) $(STUBS) ## Serve another captioner without a lost request (CHECKPOINT=DIR MODEL=NAME PRECISION=P CONFIG=FILE)
	@$(RUN) -m deploy.swap $${CHECKPOINT:+--checkpoint "$$CHECKPOINT"} \
		$${MODEL:+--model "$$MODEL"} $${PRECISION:+--precision "$$PRECISION"} \
		$${CONFIG:+--config "$$CONFIG"}

canary: $(SERVE) $(STUBS) ## Try another captioner out beside the one served (CHECKPOINT=DIR MODEL=NAME PRECISION=P SHARE=PERCENT SHADOW=1)
	@$(RUN) -m deploy.canary start $${CHECKPOINT:+--checkpoint "$$CHECKPOINT"} \
		$${MODEL:+--model "$$MODEL"} $${PRECISION:+--precision "$$PRECISION"} \
		$${SHARE:+--share "$$SHARE"} $${SHADOW:+--shadow "$$SHADOW"} $${CONFIG:+--config "$$CONFIG"}

promote: $(SERVE) ## Serve the captioner that is tried out, without a lost request
	@$(RUN) -m deploy.canary promote

rollback: $(SERVE) ## End the trial of another captioner, without a lost request
	@$(RUN) -m deploy.canary rollback

stop: $(SERVE) ## Stop TorchServe and the gateway
	@$(RUN) -m deploy.serve stop

status: $(SERVE) ## Show what is served, the ready workers and the gateway (CONFIG=FILE)
	@$(RUN) -m deploy.serve status $${CONFIG:+--config "$$CONFIG"}

key: $(SERVE) ## Make an API key for the gateway; its hash goes into gateway-keys (NAME=laptop RATE=PICTURES_A_SECOND FILE=FILE)
	@test -n "$$NAME" || { echo 'error: a key is for a person or program; write make key NAME=laptop' >&2; exit 1; }
	@$(RUN) -m gateway.key $${FILE:+--file "$$FILE"} $${RATE:+--rate "$$RATE"} -- "$$NAME"

caption: $(SERVE) $(STUBS) ## Caption FILE with the running server (ADDRESS=http://HOST:PORT)
	@test -n "$$FILE" || { echo 'error: no picture given; write make caption FILE=photo.jpg' >&2; exit 1; }
	@$(RUN) -m client $${ADDRESS:+--address "$$ADDRESS"} "$$FILE"

train: $(SERVE) $(TRAIN) ## Run the pipeline: prepare, features, train, quality, ood, evaluate, export, archive (EXPERIMENT=NAME)
	$(RUN) -m dvc repro $(if $(filter-out scenes,$(EXPERIMENT)),training/conf/dvc.yaml:archive@$(EXPERIMENT))

push: $(SERVE) $(TRAIN) ## Copy data and models of the pipeline to the DVC remote (EXPERIMENT=NAME)
	$(NEEDS_REMOTE)
	$(RUN) -m dvc push --with-deps $(LAST_STAGE)

pull: $(SERVE) $(TRAIN) ## Fetch data and models of the pipeline from the DVC remote instead of making them (EXPERIMENT=NAME)
	$(NEEDS_REMOTE)
	$(RUN) -m dvc pull --with-deps $(LAST_STAGE)

archive: $(SERVE) $(TRAIN) ## Run the pipeline as far as model_store/clipcap.mar needs it
	$(RUN) -m dvc repro archive

test: $(SERVE) $(TRAIN) $(DEV) $(STUBS) ## Run all tests, against a real TorchServe too (WORKERS=2 for two at a time)
	$(RUN) -m pytest $(if $(WORKERS),-n $(WORKERS) --dist loadfile) --cov --cov-report=term:skip-covered

check: $(SERVE) $(TRAIN) $(DEV) $(STUBS) ## Lint, check types, run all tests
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	@$(MAKE) --no-print-directory test

format: $(DEV) ## Format the code
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

profile: $(SERVE) $(TRAIN) $(DEV) ## Where the time of training, features and serving goes; traces and tables in reports/profile/ (ONLY=NAME)
	@$(RUN) -m benchmarks.profile $${ONLY:+"$$ONLY"}

loadtest: $(SERVE) $(TRAIN) $(DEV) $(STUBS) ## Load servers of its own, TorchServe for a minute or PROFILE=NAME; report in reports/loadtest/
	$(RUN) -m loadtests $${PROFILE:+"$$PROFILE"}

chaos: $(SERVE) $(TRAIN) $(DEV) $(STUBS) ## Break a server of its own in every way and check what becomes of requests (ONLY=NAME); report in reports/chaos/
	@$(RUN) -m loadtests.chaos $${ONLY:+--only "$$ONLY"}

docs: $(SERVE) $(DOCS) ## Build the site of docs/ into build/site; a broken link fails (npm fetches the script for diagrams)
	@$(RUN) -m website.written_pages
	@$(RUN) -m website.mermaid
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

upgrade: $(RUN) ## Write constraints.txt anew: the newest packages that pyproject.toml allows
	$(RUN) .ci/upgrade.py $(PIP_FLAGS)

clean: ## Remove caches and what was built for serving; data and models stay
	@if [ -e $(SERVE) ]; then $(RUN) -m deploy.serve idle; fi
	rm -rf build reports/loadtest reports/chaos model_store/served .pytest_cache .mypy_cache .ruff_cache .coverage
	rm -rf client/generated
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# `mkdir` is the lock: of two commands one makes it, on any system.
$(RUN):
	@mkdir $(VENV) || { echo 'error: $(VENV) is there without a Python: another make may be creating it; if none is: rm -r $(VENV)' >&2; exit 1; }
	@set -- $(CANDIDATES); if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; fi; found=; \
	for python; do \
		if "$$python" -c '$(IS_ONE)' 2>/dev/null; then \
			"$$python" -m venv $(VENV) && exit; \
			rm -rf $(VENV); exit 1; \
		fi; \
		version=$$("$$python" --version 2>/dev/null) && found="$$found$${found:+, }$$python is $$version"; \
	done; \
	rm -rf $(VENV); \
	echo "error: Python $(PYTHONS) is needed; found: $${found:-none}; to name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(RUN)
	@mkdir $(VENV)/.installing 2>/dev/null || { echo 'error: another make installs into $(VENV); wait until it ends (if none does: rmdir $(VENV)/.installing)' >&2; exit 1; }
	@trap 'rmdir $(VENV)/.installing' EXIT; trap 'exit 130' INT TERM; \
	echo 'installing the packages of the group $* ...'; \
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[$*]'
	@touch $@

# Made again when packages changed: stubs of one protobuf do not run with another.
$(STUBS): client/stubs.py $(SERVE) $(wildcard $(VENV)/.installed-*)
	@$(RUN) -m client.stubs
	@touch $@
