# make serve reads, make test proves. Both need only git, make and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help serve build offline test test-slow parity lint check format clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

serve: $(VENV)/.site ## the site on http://127.0.0.1:8000, rebuilt as you write
	$(BIN)/mkdocs serve --livereload

build: $(VENV)/.site ## the static site in site/; a failing snippet fails the build
	$(BIN)/mkdocs build --strict

offline: $(VENV)/.site ## the site as a zip that opens without a server or a network: dist/papercode-site.zip
	$(BIN)/mkdocs build --strict --config-file offline.yml
	@$(BIN)/python -m papercode.site.offline build/papercode dist/papercode-site.zip

test: $(VENV)/.test ## every test: unit, parity, snippets, site build, browser
	$(BIN)/python -m pytest

test-slow: $(VENV)/.test ## what takes minutes of compiling: FlexAttention, Inductor, all kernels for a GPU
	$(BIN)/python -m pytest -m slow

parity: $(VENV)/.test ## what each model was held against, written anew to tests/parity.csv
	$(BIN)/python -m pytest -q tests --parity tests/parity.csv

check: $(VENV)/.site ## lint the notes: headings, citations, formulas, snippets
	$(BIN)/papercode check

lint: $(VENV)/.lint ## ruff, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.lint ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## delete the virtual environment, the caches and the site
	rm -rf $(VENV) .cache site build dist

# torch first and by name: asked for by another package it may come in another version, with gigabytes of CUDA
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "papercode needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch; the first time this takes some minutes"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.site $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: $(VENV)/.torch $(PINS)
	@echo "installing what 'make $*' needs"
	@$(PIP) --editable '.[$*]'
	@touch $@
