# Everything a fresh machine needs: Python 3.11 or newer, make and git.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lint types unit docs web benchmark vapoursynth dist oldest newest audit clean

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

# The pages of paragonsr2 app and paragonsr2 web, from web/ into src/paragonsr2/{app,web}/page. Needs
# Node.js with npm; its result is committed, so that nothing else does.
web:
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

benchmark: $(BIN)/ready
	$(BIN)/python benchmark/realtime_speed.py

# VapourSynth and its filters, which want Python 3.12, for the tests of integrations/vapoursynth.
VAPOURSYNTH_PYTHON ?= python3.12
vapoursynth: .venv-vapoursynth/ready
.venv-vapoursynth/ready: Makefile
	$(VAPOURSYNTH_PYTHON) -m venv .venv-vapoursynth
	.venv-vapoursynth/bin/python -m pip --disable-pip-version-check install --quiet numpy==2.4.6 \
		vapoursynth==81 vapoursynth-mlrt-ort==17.1.1 vapoursynth-mlrt-ov==17.1 \
		vapoursynth-mlrt-ncnn==17.1
	touch $@

# Tools of a release, which neither the package nor its tests need.
.venv-release/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		cyclonedx-bom hatchling pip-audit uv
	touch $@

# Source archive and wheel in dist/: the same bytes for the same commit, wherever they are built. The
# list of what the wheel brings along (CycloneDX) is made of an environment that holds nothing else.
dist: .venv-release/ready
	rm -rf dist build/bare
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv-release/bin/python -m hatchling build -d dist
	$(PYTHON) -m venv build/bare
	build/bare/bin/python -m pip --disable-pip-version-check install --quiet \
		-c constraints.txt dist/*.whl
	.venv-release/bin/cyclonedx-py environment build/bare/bin/python --pyproject pyproject.toml \
		--mc-type library --output-reproducible -o dist/paragonsr2.cdx.json
	rm -rf build/bare

# The tests with the oldest direct dependencies that pyproject.toml allows, or with the newest. For some
# of them alone: make oldest TESTS="tests/test_cli.py tests/test_weights.py"; where PyTorch's own index
# is out of reach: make oldest TORCH="--find-links FOLDER --constraint FILE"
TORCH ?= --torch-backend cpu
oldest: RESOLUTION := lowest-direct
newest: RESOLUTION := highest
oldest newest: .venv-release/ready
	rm -rf build/$@
	$(PYTHON) -m venv build/$@
	.venv-release/bin/uv pip install --quiet --python build/$@/bin/python --no-sources \
		--resolution $(RESOLUTION) $(TORCH) -e '.[dev]'
	build/$@/bin/python -m pytest --numprocesses auto --dist loadfile $(TESTS)

# Known vulnerabilities of what is pinned; asks the package index.
audit: .venv-release/ready
	.venv-release/bin/pip-audit -r constraints.txt --no-deps --disable-pip -f json \
		| $(PYTHON) tools/audit.py

clean:
	rm -rf .venv .venv-demo .venv-release build dist .pytest_cache .ruff_cache .hypothesis
