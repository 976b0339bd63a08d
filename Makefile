# Everything a clone needs: each target sets up what it uses first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test shim check chaos gpu lint docs setup clean

demo: setup  ## train a small model on this machine's own text and let it write
	@$(BIN)/gnano demo

# a file's tests stay together, for what they share, in the order of tests/conftest.py, not by
# their number; some wait more than they compute
test: setup  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# 2.5 GB; with it, `make test` also runs tests/gpu, which is skipped otherwise
shim: .venv-cuda/ready  ## a CUDA build of PyTorch, for tests of GPU code on a GPU that computes nothing

.venv-cuda/ready:
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet --disable-pip-version-check torch==2.11.0 'nvidia-cuda-crt<14' 'nvidia-cuda-cccl<14' numpy safetensors tokenizers tiktoken tyro tomli-w
	@touch $@

chaos: setup  ## kill, stop, damage and starve runs, in the long form; a short one is in the tests
	GNANO_CHAOS=20 $(BIN)/python -m pytest tests/chaos

gpu: setup  ## check this machine's GPU, test and time what runs there: gpu-report.txt, in 30 minutes
	@$(BIN)/python benchmarks/gpu_report.py

check: lint  ## style, types and the fast tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 -m 'not slow and not ranks and not compile'

lint: setup  ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: setup  ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

setup: .venv/ready  ## the virtual environment, with pinned packages and this one, editable

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"auto-g-nano needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:  ## remove the environment and caches; data/ and runs/ stay
	rm -rf .venv .venv-cuda .mypy_cache .pytest_cache .ruff_cache .hypothesis
