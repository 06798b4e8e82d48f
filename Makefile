# make demo | test | check | fmt | bench | bench-quick       (what they need is installed into .venv first)
PYTHON ?= python3
VENV := .venv
# modules of a relative python, not scripts: their first lines and the shell stumble over odd names of the checkout's folder
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export RESIGHT_HOME ?= $(CURDIR)/.resight

.PHONY: demo down test check fmt bench bench-quick clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.user ## install, start Ray, serve the shipped model, reprocess the sample archive
	@$(RUN) -m examples.demo

down: ## stop the cluster of the demo
	@$(RUN) -m resight down

test: check ## install and pass every test; those that need a cluster mostly wait, so they run beside the others
	@set -u; log=$$(mktemp); \
	echo "pytest -m cluster runs beside these; what it says comes after them"; \
	$(RUN) -m pytest -m cluster >$$log 2>&1 & beside=$$!; \
	trap 'kill $$beside; wait $$beside; rm -f $$log; exit 130' INT TERM; \
	$(RUN) -m pytest -m "not cluster"; first=$$?; \
	wait $$beside; second=$$?; cat $$log; rm -f $$log; \
	exit $$((first || second))

check: $(VENV)/.dev ## format, lint, types, layers, spelling
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m pyright
	$(RUN) -c 'from importlinter.cli import lint_imports_command as main; main()'
	$(RUN) -m codespell_lib

fmt: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: $(VENV)/.bench ## everything measured, peers too, on this machine: benchmarks/report/index.html (an hour and a quarter on two cores)
	$(RUN) benchmarks/bench.py

bench-quick: $(VENV)/.bench ## the same in under 5 minutes, to see that it works
	$(RUN) benchmarks/bench.py --quick

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing (a few minutes the first time) …"
	@$(PIP) --editable '.[cpu,s3]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing with benchmark tools (a few minutes the first time) …"
	@$(PIP) --editable '.[cpu,s3,bench]'
	@touch $@ $(VENV)/.user

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing with development tools (a few minutes the first time) …"
	@$(PIP) --editable '.[cpu,s3,torch,dev]'
	@touch $@ $(VENV)/.user

clean:
	rm -rf $(VENV) build *.egg-info
