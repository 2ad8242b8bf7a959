# Every target creates the environment it needs when there is none; stamps say what is already installed.
# Another Python has another environment beside it: PYTHON=python3.13 works in .venv-3.13.
PYTHON ?= python3
PYTHON_MINOR := $(patsubst python%,%,$(filter python3.%,$(notdir $(PYTHON))))
VENV := .venv$(addprefix -,$(PYTHON_MINOR))
BIN := $(VENV)/bin
PYTEST_JOBS ?= 2
BENCH ?= speed hold recovery truth real_counts real_tissue external
DEMO_OUT ?= demo_output

# real sections and prior tables, where there are any beside the checkout
ifndef SPACETRAVLR_DATA
ifneq ($(wildcard ../shared/data/.),)
export SPACETRAVLR_DATA := $(abspath ../shared/data)
endif
endif

# the constraints are those of Python 3.11; later versions take the newest of everything
CONSTRAINTS = $(shell $(BIN)/python -c "import sys; print('-c constraints.txt' * (sys.version_info[:2] == (3, 11)))")
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint format types docs notebooks notebooks-check bench bench-speed bench-hold bench-recovery bench-truth bench-real_counts bench-real_tissue bench-external constraints build clean
.SECONDARY:

help:
	@echo "make demo [DATA=section.h5ad] [DEMO_OUT=folder]   the whole pipeline, with figures"
	@echo "make coverage | lint | types | docs | build       what continuous integration checks"
	@echo "make test [PYTHON=python3.13] [PYTEST_ARGS=...]   the tests alone; another Python has its own environment"
	@echo "make notebooks                                    execute the tutorials and keep their outputs"
	@echo "make bench [BENCH='speed hold recovery truth real_counts real_tissue external']   time and memory, interrupted fits, recovery, counts against the truth, real sections, perturbed cells"

# where pyenv rules, it runs a version that is not the active one only when told to
$(BIN)/python:
	$(addprefix PYENV_VERSION=,$(PYTHON_MINOR)) $(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that the constraint decides its build before anything else asks for it;
# dependency groups need pip 25.1
$(VENV)/.stamp-base: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(INSTALL) torch
	$(INSTALL) -e .
	@touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-base
	$(INSTALL) --group $*
	@touch $@

demo: $(VENV)/.stamp-base
	$(BIN)/python demo/run.py $(if $(DATA),--data "$(DATA)") --out "$(DEMO_OUT)"

# one BLAS thread each: the tests themselves run side by side
test: $(VENV)/.stamp-test
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(PYTEST_JOBS) --dist loadfile --durations 15 $(PYTEST_ARGS)

# and which lines they run, of those that Python runs
coverage: override PYTEST_ARGS += --cov
coverage: test

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.stamp-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.stamp-typecheck
	$(BIN)/mypy

docs: $(VENV)/.stamp-doc
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

notebooks: $(VENV)/.stamp-doc
	$(BIN)/python tutorials/execute.py --inplace

notebooks-check: $(VENV)/.stamp-doc
	$(BIN)/python tutorials/execute.py

bench: $(addprefix bench-,$(BENCH))

bench-speed: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks --out docs/_tables/speed.md --json docs/_tables/speed.json --figure docs/_static/speed.png $(BENCH_ARGS)

bench-hold: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks --only hold

bench-recovery: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks.recovery --out docs/_tables/recovery.md

bench-truth: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks.truth --results docs/_tables/truth.csv --out docs/_tables/truth.md --figure docs/_static/truth.png
	$(BIN)/python -m benchmarks.truth --nulls --results docs/_tables/truth_nulls.csv --out docs/_tables/truth_nulls.md
	$(BIN)/python -m benchmarks.truth --baselines --results docs/_tables/baselines.csv --out docs/_tables/baselines.md
	$(BIN)/python -m benchmarks.truth --inference --results docs/_tables/inference.csv --out docs/_tables/inference.md --figure docs/_static/inference.png

bench-real_tissue: $(VENV)/.stamp-test
	$(if $(SPACETRAVLR_DATA),$(BIN)/python -m benchmarks.real_tissue --out docs/_tables/real_tissue.md --figures docs/_static/real)

bench-real_counts: $(VENV)/.stamp-test
	$(if $(SPACETRAVLR_DATA),$(BIN)/python -m benchmarks.real_counts --out docs/_tables/real_counts.md)

bench-external: $(VENV)/.stamp-test
	$(if $(wildcard $(SPACETRAVLR_DATA)/external/.),$(BIN)/python -m benchmarks.external --out docs/_tables/external.md)

# the source distribution, and the wheel made from it
build: $(VENV)/.stamp-build
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m zipfile --list dist/*.whl | grep spacetravlr/py.typed

# rewrite constraints.txt from what the environment holds now
constraints: $(VENV)/.stamp-dev
	$(BIN)/python .ci/constraints.py > constraints.tmp && mv constraints.tmp constraints.txt

clean:
	rm -rf build dist docs/_build docs/api/generated $(DEMO_OUT) .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
