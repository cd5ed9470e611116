# make run, make test and make check need Python 3.10 or newer with pip; everything is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
MODEL ?= my-model
PORT ?= 8000
ARGS ?=
PIDFILE ?=
TESTS ?= llmdsim

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help venv run test check news clean

help:
	@echo "make run     serve $(MODEL) on port $(PORT)   (MODEL=, PORT=, ARGS='--flag value ...')"
	@echo "make test    run the tests                 (TESTS=llmdsim.test.test_config)"
	@echo "make check   ruff and mypy"
	@echo "make news    show the news of the next release"
	@echo "make clean   remove the virtualenv and what the tools left"

venv: $(VENV)/.with-tls

# Without ensurepip (Debian's bare python3) the virtualenv gets its pip from the pip outside.
$(BIN)/python:
	$(PYTHON) -m venv --clear $(VENV) \
	|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }

# One stamp an extra: an unchanged setup.cfg costs nothing.
$(VENV)/.with-%: setup.cfg setup.py | $(BIN)/python
	$(PIP) install --use-pep517 --editable '.[$*]'
	@touch $@

# twistd stops in order and then ends by the signal that stopped it: 143 (SIGTERM) is a good end.
run: venv
	@$(BIN)/twistd -n --pidfile=$(PIDFILE) llmdsim --model $(MODEL) --port $(PORT) $(ARGS) || test $$? -eq 143

test: $(VENV)/.with-test
	$(BIN)/trial $(TESTS)

check: $(VENV)/.with-test $(VENV)/.with-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy llmdsim bench

news: $(VENV)/.with-dev
	$(BIN)/towncrier build --draft --version next

clean:
	rm -rf $(VENV) build *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis bench/out
