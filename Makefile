# make book    the site, every notebook executed live
# make test    style, tangle, every notebook and every test
# make site    the built site in a real browser (needs Chromium)
# make lab     Jupyter Lab on the book
# make refresh run the notebooks and store their outputs in them
# make bench   how fast, and in how much memory
# make pdf     the site as one PDF (needs Chromium)
# make practice  the notebooks with the answers taken out, in practice/
# make clean   remove what was built, keep .venv and weights

PYTHON ?= python3
BIN := .venv/bin
IN_A_BROWSER := tests/test_site.py tests/test_site_figures.py tests/test_pdf.py tests/test_lab.py
CHECKPOINTS := smollm2-135m llama-3.2-1b-twin
# Before a kernel starts: its debugger's warning would be in the way of the output.
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.PHONY: help setup book test site lab refresh bench pdf practice clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# What pip did is remembered by this file's date: nothing is set up twice.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

setup: .venv/.installed
	@for name in $(CHECKPOINTS); do $(BIN)/nanoserve download $$name || exit 1; done

book: setup
	rm -rf _build
	$(BIN)/jupyter-book build . -W -n --keep-going
	@echo
	@echo "The book is built. Open _build/html/index.html"

test: setup
	$(BIN)/ruff check .
	$(BIN)/python book/tangle.py --check
	$(BIN)/python -m pytest --nbval -n 2 --dist loadscope $(addprefix --ignore ,$(IN_A_BROWSER))

site: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope $(IN_A_BROWSER)

lab: setup
	$(BIN)/python book/lab.py

refresh: setup
	$(BIN)/python book/refresh.py

bench: setup
	TQDM_DISABLE=1 $(BIN)/python book/bench.py

pdf: book
	$(BIN)/python book/pdf.py

practice: setup
	$(BIN)/python book/practice.py

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
