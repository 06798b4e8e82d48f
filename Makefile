# make demo | test | check | fmt | lock | bench | bench-quick       (what they need is installed into .venv first)
PYTHON ?= python3
PORT = 8000
VENV := .venv
UV_VERSION := 0.13.9
# modules of a relative python, not scripts: their first lines and the shell stumble over odd names of the checkout's folder
RUN := $(VENV)/bin/python
UV := $(RUN) -m uv
PYTEST := $(RUN) -m pytest --numprocesses=2 --dist=loadfile
# versions and hashes are those of the lock; compiled once, so that the first start is not slower
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(RUN) --constraint constraints.txt
export RESIGHT_HOME ?= $(CURDIR)/.resight
# where it is set, each of some hundred processes would compile the same files again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo down test check fmt lock bench bench-quick clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.user ## install, start Ray, serve the shipped model, reprocess the sample archive
	@$(RUN) -m examples.demo --port $(PORT)

down: ## stop the cluster of the demo
	@$(RUN) -m resight down

test: $(VENV)/.dev ## install, check, and pass every test; those that need a cluster mostly wait, so they run beside the others
	@test -x "$${RESIGHT_CHROMIUM:-/usr/bin/chromium}" || echo "no browser: tests/browser is skipped (apt-get install chromium)"
	@set -u; log=$$(mktemp); \
	echo "tests/cluster runs beside the others; its output comes last"; \
	$(RUN) -m pytest tests/cluster >$$log 2>&1 & beside=$$!; \
	trap 'kill $$beside; wait $$beside; rm -f $$log; exit 130' INT TERM; \
	$(MAKE) --no-print-directory check || failed="check"; \
	$(PYTEST) --ignore=tests/cluster || failed="$${failed-} tests"; \
	$(PYTEST) -c tests/browser/pytest.ini tests/browser || failed="$${failed-} tests/browser"; \
	wait $$beside || failed="$${failed-} tests/cluster"; cat $$log; rm -f $$log; \
	test -z "$${failed-}" || { echo "failed: $$failed"; exit 1; }

check: $(VENV)/.dev ## format, lint, types, layers, spelling, declared dependencies
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m pyright
	$(RUN) -c 'from importlinter.cli import lint_imports_command as main; main()'
	$(RUN) -m codespell_lib
	$(RUN) -m deptry .
	$(RUN) -m deptry client --config client/pyproject.toml

fmt: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: $(VENV)/.bench ## most benchmarks, peers too, on this machine: benchmarks/report/index.html (75 minutes on two cores)
	$(RUN) benchmarks/bench.py

bench-quick: $(VENV)/.bench ## the same in under 5 minutes, to see that it works
	$(RUN) benchmarks/bench.py --quick

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1)
	$(PYTHON) -m venv $(VENV)

$(VENV)/bin/uv: $(VENV)/bin/python
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.user: $(VENV)/bin/uv pyproject.toml constraints.txt
	@echo "installing (about a minute the first time) …"
	@$(INSTALL) --editable '.[cpu,s3]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/uv pyproject.toml constraints.txt
	@echo "installing with benchmark tools (about a minute the first time) …"
	@$(INSTALL) --group bench --editable '.[cpu,s3]'
	@touch $@ $(VENV)/.user

# torch by pip: its build for CPUs is not on the index that uv reads, and the other one has gigabytes
$(VENV)/.dev: $(VENV)/bin/uv pyproject.toml constraints.txt
	@echo "installing with development tools (a few minutes the first time) …"
	@$(RUN) -m pip install --quiet --disable-pip-version-check "$$(grep -o '^torch==[0-9.]*' constraints.txt)"
	@$(INSTALL) --group dev --editable '.[cpu,s3,torch,video,index]'
	@touch $@ $(VENV)/.user

lock: $(VENV)/bin/uv ## resolve pyproject.toml again; versions that still fit stay
	@$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --all-extras \
		--group pyproject.toml:dev --group pyproject.toml:bench pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info
