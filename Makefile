# Each target creates its own environment on a fresh machine: `.venv`, from python3 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo

TORCHVISION := $(VENV)/.torchvision
TIMM := $(VENV)/.timm
TRANSFORMERS := $(VENV)/.transformers
EXTRAS := $(VENV)/.extras
DOCS := $(VENV)/.docs

# one process per core, each with one torch thread; what must not run side by side is in a group;
# compiled files are kept, since many tests start programs
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadgroup

.PHONY: help demo check docs test test-slow test-lowest format golden figures reliability zoo clean

help:
	@echo "make demo       convert the ResNet-50 example, export it, check it in ONNX Runtime"
	@echo "make check      lint, types, unit tests, doctests: three to four minutes"
	@echo "make test       these and the tests marked thorough: what continuous integration runs"
	@echo "make docs       the documentation site, into build/site; warnings are errors"
	@echo "make test-slow  the tests marked slow, torchvision's models among them"
	@echo "make format     format the code, and mend what ruff can mend"
	@echo "make golden     write every golden file of the tests anew"
	@echo "make test-lowest  the tests of exporting, with the lowest versions that are promised"
	@echo "make figures    convert the examples and torchvision's models; cost of an analysis"
	@echo "make reliability  hostile files and requests by the thousand; writes docs/RELIABILITY.md"
	@echo "make zoo        convert models of torchvision, timm and Hugging Face; writes docs/COVERAGE.md (hours)"
	@echo "make clean      remove the environment and everything that was built"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

# torchvision's Python models, without the torch build that its binary part would ask for
$(TORCHVISION): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps torchvision==0.28.0 pillow
	@touch $@

$(TIMM): $(TORCHVISION)
	$(BIN)/python -m pip install --quiet --no-deps timm==1.0.31
	$(BIN)/python -m pip install --quiet -c constraints.txt huggingface_hub pyyaml
	@touch $@

$(TRANSFORMERS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt transformers==5.24.0
	@touch $@

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/cerewrite convert examples/resnet50/model.py --budget params --onnx --out $(DEMO) -v

check: $(STAMP)
	$(PYTEST) -m "not slow and not thorough"

test: $(STAMP)
	$(PYTEST)

format: $(STAMP)
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .

# read the difference before committing it
golden: $(STAMP)
	$(BIN)/python -m pytest -q --golden

# a second engine and the example server: their tests are skipped where these are missing
$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[engines,serve]'
	@touch $@

test-slow: $(TORCHVISION) $(EXTRAS)
	$(PYTEST) -m slow --hypothesis-profile explore

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS)
	$(BIN)/python -m doctest docs/hooks/mathml.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# an environment of its own, with the lowest versions of everything but torch
LOWEST := .venv-lowest

$(LOWEST)/.installed: pyproject.toml constraints.txt constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet -c constraints.txt torch pytest hypothesis
	$(LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt -e .
	@touch $@

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -q tests/exporter tests/test_round_trip.py

figures: $(TORCHVISION)
	$(BIN)/python -m benchmarks.tracing
	$(BIN)/python -m benchmarks.conversion

reliability: $(STAMP)
	$(BIN)/python -m benchmarks.reliability

# hours; picks up where it stopped
zoo: $(TIMM) $(TRANSFORMERS)
	$(BIN)/python -m benchmarks.zoo
	$(BIN)/python -m benchmarks.zoo --onnx

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
