# Each target creates its own environment on a fresh machine: `.venv`, from python3 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo

TORCHVISION := $(VENV)/.torchvision
TIMM := $(VENV)/.timm
EXTRAS := $(VENV)/.extras

.PHONY: help demo test test-slow figures reliability zoo clean

help:
	@echo "make demo       convert the ResNet-50 example, export it, check it in ONNX Runtime"
	@echo "make test       lint, types, unit tests, doctests"
	@echo "make test-slow  the tests marked slow, torchvision's models among them"
	@echo "make figures    convert the examples and torchvision's models; cost of an analysis"
	@echo "make reliability  hostile files and requests by the thousand; writes docs/RELIABILITY.md"
	@echo "make zoo        convert torchvision's and timm's models; writes docs/COVERAGE.md (hours)"
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

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/cerewrite convert examples/resnet50/model.py --budget params --onnx --out $(DEMO) -v

test: $(STAMP)
	$(BIN)/python -m pytest -q

# a second engine and the example server: their tests are skipped where these are missing
$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[engines,serve]'
	@touch $@

test-slow: $(TORCHVISION) $(EXTRAS)
	$(BIN)/python -m pytest -q -m slow

figures: $(TORCHVISION)
	$(BIN)/python -m benchmarks.tracing
	$(BIN)/python -m benchmarks.conversion

reliability: $(STAMP)
	$(BIN)/python -m benchmarks.reliability

# hours; picks up where it stopped
zoo: $(TIMM)
	$(BIN)/python -m benchmarks.zoo
	$(BIN)/python -m benchmarks.zoo --onnx

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
