# Everything a fresh machine needs: Python 3.11 or newer, make and git.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lint types unit docs web benchmark dist clean

# The core alone, without PyTorch, in an environment of its own.
.venv-demo/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e .
	touch $@

demo: .venv-demo/ready
	.venv-demo/bin/python examples/demo.py

$(BIN)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[dev]'
# spandrel asks for torchvision, which has no wheel that loads beside the CPU build of torch.
	$(PIP) --no-deps spandrel einops
	touch $@

test: lint types unit

lint: $(BIN)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/ready
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: $(BIN)/ready
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The documentation as a website, in build/site; a warning fails it.
docs: $(BIN)/ready
	$(BIN)/python tools/site.py --strict

# The page of paragonsr2 web, from web/ into src/paragonsr2/web/page. Needs Node.js with npm; its
# result is committed, so that nothing else does.
web:
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

benchmark: $(BIN)/ready
	$(BIN)/python benchmark/realtime_speed.py

# Source archive and wheel in dist/: the same bytes for the same commit, wherever they are built.
dist: $(BIN)/ready
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -d dist

clean:
	rm -rf .venv .venv-demo build dist .pytest_cache .ruff_cache .hypothesis
