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

# How fast it is: 'make bench', or 'make bench BENCH=quick' (two or three minutes); with CLASSIC=DIR, a checkout of the
# classic gitian-builder, side by side with it.
bench: setup
	.venv/bin/python -m benchmarks $(if $(filter quick,$(BENCH)),--quick) $(if $(CLASSIC),--classic '$(CLASSIC)') $(BENCHFLAGS)
	$(if $(filter quick,$(BENCH)),,.venv/bin/python benchmarks/verifying.py || [ $$? = 2 ])

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
