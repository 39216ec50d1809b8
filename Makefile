# make demo    install into .venv and run the main job on the bundled world
# make test    install into .venv and run the tests
# make check   format, lint, types, layers, generated docs
# make docs    write the generated parts of the docs again, and what the commands in them print
# make bench   speed, as ratios to bare loops
# make slow    the tests that take minutes: kills at 50 instants, a Ray cluster, 50,000 images
# make peers   compare with other attack libraries, and run mteb's check of a model
# make clean   remove what these made
#
# PYTHON=python3.12 chooses the interpreter of a new .venv; OUT=folder the demo's; TESTS="-k index" some tests.

SHELL := /bin/sh
SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
OUT ?= demo
## uv is quick; pip takes minutes, and knows what uv does not read: pip's own settings of indexes and certificates
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
UV := UV_SYSTEM_CERTS=1 $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt
install = @echo "installing $(1)"; ($(PIP) --quiet uv && $(UV) $(1)) || \
	{ echo "uv could not install; pip tries" >&2; $(PIP) $(1); }
TESTS ?= -n auto --dist loadfile

.PHONY: help demo test check docs bench slow peers clean
help:
	@sed -n 's/^# //p' Makefile

demo: $(STAMP)
	$(BIN)/morgana demo --out $(OUT)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(TESTS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py
	$(BIN)/python docs/regenerate.py --check

docs: $(STAMP)
	$(BIN)/python docs/regenerate.py
	$(BIN)/python docs/replay.py docs/index.md docs/interop.md

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

slow: $(STAMP)
	$(call install,ray)
	$(BIN)/python -m pytest -q -m slow

peers: $(STAMP)
	$(call install,foolbox mteb)
	$(call install,--no-deps torchattacks)
	$(BIN)/python -m pytest -q -m peers

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist $(OUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUPPORTED)' || { \
		echo "Morgana needs Python 3.11 or newer, and found $$($(or $(PYTHON),python3) -V 2>&1 || echo none);" >&2; \
		echo "install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,-e '.[dev]')
	@touch $@
