# Two commands matter: `make optimizers` (or any name in experiments/) and `make test`. Each sets up what it needs.
# Options for a comparison: make optimizers ARGS="-P epochs=5 -P dataset=digits"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
export MLFLOW_DISABLE_TELEMETRY ?= true
# `mlflow run` makes its run before it asks the project, in MLflow's Default where nobody names another experiment.
ifndef MLFLOW_EXPERIMENT_ID
export MLFLOW_EXPERIMENT_NAME ?= mlplab
endif
# For `mlflow run --env-manager local`, which takes the first python it finds.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

EXPERIMENTS := $(basename $(notdir $(wildcard experiments/*.py)))

SECRETS := admin_password database_password flask_secret_key postgres_password serving_password trainer_password

.PHONY: help test check docs bench soak ui secrets stack clean report $(EXPERIMENTS)

help:
	@echo "make NAME    run a comparison: $(EXPERIMENTS)"
	@echo "make report  run every experiment that is not on record, and write the report"
	@echo "make test    run the tests"
	@echo "make check   lint, format check and types"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   measure training against Keras, PyTorch and JAX, and the tracking overhead"
	@echo "make soak    an hour of comparisons while all around them breaks: make soak SECONDS=1800 SEED=7"
	@echo "make ui      open the MLflow UI on the local store"
	@echo "make stack   tracking server with accounts, and model server, on the local store, until Ctrl-C"

.venv/ready: requirements.lock
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "mlplab needs Python 3.11, but found '$(PYTHON)'; install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch .venv/ready

$(EXPERIMENTS) report: .venv/ready
	mlflow run . -e $@ --env-manager local $(ARGS)

# Two tests at a time, for most keep one core busy; tests/conftest.py says which go to one process.
test: .venv/ready
	python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=25 $(ARGS)

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy

# A dead link is an error.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench: .venv/ready
	python -m pip install --quiet --disable-pip-version-check torch==2.13.0 jax==0.10.2
	python benchmarks/training.py
	-python benchmarks/zoo.py
	python benchmarks/memory.py
	python benchmarks/seeds.py
	python benchmarks/search.py
	python benchmarks/tuning.py
	python benchmarks/tracking.py
	python benchmarks/rest.py
	python benchmarks/startup.py
	python benchmarks/serving.py
	python benchmarks/attacks.py
	python benchmarks/store.py
	python benchmarks/scaling.py

# For a night, not for CI. A seed strikes at the same moments again.
soak: .venv/ready
	python tests/soak.py --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds $(KINDS))

ui: .venv/ready
	mlflow ui

# 48 random hexadecimal digits for each secret of docker-compose.yml that there is not yet. Containers of whatever user can
# read the files; on this machine the folder lets nobody but you to them.
secrets:
	@mkdir -p -m 700 secrets
	@cd secrets && for name in $(SECRETS); do test -s $$name || { \
	  "$(PYTHON)" -c 'import os; print(end=os.urandom(24).hex())' > $$name.new && chmod 444 $$name.new && mv -f $$name.new $$name; \
	} || exit 1; done

stack: .venv/ready secrets
	@python stack/local.py

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
