# One environment, a few commands. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run test lint smoke ui serve image image-test reproduce tables clean

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
LAB ?= tp1
PORT ?= 5000
UI_PORT ?= 5001

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## Make .venv and install the locked versions (uv if it is there, else pip)

# An environment that was copied or moved with its folder runs the code of the other folder: it is
# made anew. The file holds the folder for which it was made.
ifneq ($(wildcard $(INSTALLED)),)
MADE_FOR := $(shell cat $(INSTALLED))
ifneq ($(MADE_FOR),$(CURDIR))
.PHONY: $(INSTALLED)
MOVED := $(if $(MADE_FOR),--clear)
endif
endif

# A new lab is a new package, which must be installed too.
$(INSTALLED): pyproject.toml requirements.txt constraints.txt $(wildcard tp*/__init__.py)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; name one: make setup PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -m venv --help >/dev/null 2>&1 && $(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "error: Python's venv is missing; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 2; }
	@$(if $(MOVED),echo "$(VENV) was made for another folder: it is made anew")
	$(PYTHON) -m venv $(MOVED) $(VENV)
	@if command -v uv >/dev/null 2>&1; then \
		set -x; VIRTUAL_ENV="$(CURDIR)/$(VENV)" uv pip install --compile-bytecode --constraint constraints.txt --requirement requirements.txt --editable '.[dev]'; \
	else \
		set -x; $(BIN)/python -m pip install --constraint constraints.txt --requirement requirements.txt --editable '.[dev]'; \
	fi
	@printf '%s\n' "$(CURDIR)" > $@

run: $(INSTALLED) ## Train, evaluate, export, serve and ask the MNIST model once
	$(BIN)/python tp1_mnist_api/train_model.py --resume
	$(BIN)/python tp1_mnist_api/evaluate.py
	$(BIN)/python tools/first_run.py

test: $(INSTALLED) ## The tests, every script's smoke run inside (on real data too when LABKIT_DATA is set)
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

smoke: $(INSTALLED) ## What every script promises: help, smoke run, resume, no leak from test data
	$(BIN)/python -m pytest tests/test_contract.py

ui: $(INSTALLED) ## Compare runs in MLflow, http://127.0.0.1:5001
	$(BIN)/python tools/ui.py --port $(UI_PORT)

serve: $(INSTALLED) ## Serve the champion on http://127.0.0.1:5000 (PORT=8080 for another port)
	$(BIN)/python tp1_mnist_api/app.py --port $(PORT)

image: ## Build the API's container image, mnist-api
	docker build -t mnist-api .

image-test: image $(INSTALLED) ## Run the image as strictly as possible and check its answers
	id=$$(docker run -d --read-only --cap-drop ALL --user 12345:12345 -p 127.0.0.1:$(PORT):5000 mnist-api) \
		&& { $(BIN)/python tools/check_api.py --url http://127.0.0.1:$(PORT); status=$$?; \
			docker stop $$id >/dev/null; docker rm $$id >/dev/null; exit $$status; }

reproduce: $(INSTALLED) ## Rerun a lab's reference figures over all seeds: make reproduce LAB=tp1
	$(BIN)/python tools/reproduce.py --lab $(LAB)
	$(BIN)/python tools/tables.py

tables: $(INSTALLED) ## Write the README tables from results/*.json
	$(BIN)/python tools/tables.py

clean: ## Remove the environment; outputs and the tracking store stay
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
