# Every target makes .venv by itself when needed and may be run first, second and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS := 1

.PHONY: help demo test test-chapters test-machine check bench build verify book clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)  ## make a small class, grade it with the hidden suites, print the table, write the report
	$(BIN)/grader demo --chapter 06

# What the chapters must hold, and the machine: side by side, as most machines have two cores.
OF_CHAPTERS := $(addprefix grader/tests/,test_chapters.py test_both_forms.py test_book.py test_figures.py test_coverage.py)

test: check  ## everything that must hold: lint, types, generated files, chapters, the machine
	@$(MAKE) --no-print-directory --jobs=2 test-chapters test-machine

test-chapters: $(STAMP)
	$(BIN)/python -m pytest -q chapters $(OF_CHAPTERS)

test-machine: $(STAMP)
	$(BIN)/python -m pytest -q grader/tests $(addprefix --ignore=,$(OF_CHAPTERS))

check: $(STAMP)  ## lint, format, types, stale generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/grader build --check

verify: $(STAMP)  ## hold every chapter against the standard
	$(BIN)/grader verify

bench: $(STAMP)  ## measure, as ratios in one run; writes build/benchmarks.md
	$(BIN)/python -m grader.benchmarks

build: $(STAMP)  ## make stubs, notebooks and nbgrader's sources from solutions/
	$(BIN)/grader build

book: $(STAMP)  ## build the book into build/book; open its index.html
	$(BIN)/grader book

clean:  ## remove what was made, .venv too
	rm -rf $(VENV) build
