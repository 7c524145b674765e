# Two commands, each complete on a machine with git, make and python3 only:
#   make demo    sets everything up and builds, signs and verifies a real program
#   make test    sets everything up and runs the whole test suite
.PHONY: demo test unit lint setup bench clean

# The images and guests of the tests are large: keep them out of a /tmp that may be memory.
export TMPDIR := /var/tmp

BACKEND ?= lxc

demo:
	@scripts/setup run
	@scripts/demo $(BACKEND)

test: lint
	.venv/bin/python -m pytest $(PYTEST)

unit: setup
	.venv/bin/python -m pytest tests/unit $(PYTEST)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

setup:
	@scripts/setup test

bench: setup
	.venv/bin/python benchmarks/overhead.py
	.venv/bin/python benchmarks/verifying.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
