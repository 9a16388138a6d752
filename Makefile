# Each target creates its own environment on a fresh machine: `.venv`, from python3 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo

.PHONY: help demo test test-slow clean

help:
	@echo "make demo       convert the ResNet-50 example, export it, check it in ONNX Runtime"
	@echo "make test       lint, types, unit tests, doctests"
	@echo "make test-slow  the tests marked slow"
	@echo "make clean      remove the environment and everything that was built"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/cerewrite convert examples/resnet50/model.py --budget params --onnx --out $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
