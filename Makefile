# Everything a fresh machine needs: Python >= 3.11 and pip's index. `make setup` is the first step of the others and
# runs again only when the dependencies change.
#
# On Linux pip's own torch brings CUDA with it, gigabytes of it. Without an NVIDIA GPU the CPU build is enough:
#   make setup TORCH_INDEX=URL_OF_A_PACKAGE_INDEX_WITH_CPU_BUILDS

VENV := .venv
TORCH_INDEX ?=
PIP_FLAGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: setup demo test lint

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@python=$$(for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	    $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done); \
	if [ -z "$$python" ]; then \
	    echo "pansynth needs Python 3.11 or newer, and none was found; install one and make sure that python3 is it" >&2; \
	    exit 1; \
	fi; \
	$$python -m venv $(VENV) || { echo "$$python cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "installing pansynth and what it needs into $(VENV); this takes a few minutes ..."
	@$(VENV)/bin/pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[test]'
	@touch $@

demo: setup
	@$(VENV)/bin/pansynth demo

# Three processes for two cores: a third of the time a test waits for services that it started.
test: setup
	@$(VENV)/bin/pytest -n 3

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
