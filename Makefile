# make book    the site, every notebook executed live
# make test    style, tangle, every notebook and every test
# make bugs    every planted bug; make test does where code has changed, else a tenth
# make site    the built site in a real browser (needs Chromium)
# make lab     Jupyter Lab on the book
# make refresh run the notebooks and store their outputs in them
# make bench   how fast, and in how much memory
# make bench-gpu  the same of the kernels, on a GPU
# make pdf     the site as one PDF (needs Chromium)
# make practice  the notebooks with the answers taken out, in practice/
# make clean   remove what was built, keep .venv and weights

PYTHON ?= python3
# Whatever is set here, and wherever the folder was moved to: no script of .venv is run, its first
# line holds the old place.
RUN := .venv/bin/python -E book/environment.py
IN_A_BROWSER := $(addprefix tests/test_,site.py site_walk.py site_figures.py site_every_figure.py pdf.py lab.py)
# For kernels without a GPU; torch brings its own with one. Apart: nanoserve/kernels/__init__.py
TRITON := triton==3.9.0
CHECKPOINTS := smollm2-135m llama-3.2-1b-twin
# Says "moved" where .venv was set up in another folder, which packages in it know, or its Python
# is gone.
MOVED := $(shell [ -L .venv ] || [ ! -s .venv/.installed ] || \
	{ [ "$$(cat .venv/.installed)" = "$$(pwd -P)" ] && .venv/bin/python -Ec ""; } || echo moved)

.DEFAULT_GOAL := help
.PHONY: moved help setup book test bugs site lab refresh bench bench-gpu pdf practice clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# What pip did is remembered by this file's date, and where: nothing is set up twice.
.venv/.installed: requirements.txt pyproject.toml $(MOVED)
	$(PYTHON) -E book/environment.py -m venv $(if $(MOVED),--clear) .venv
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --disable-pip-version-check --no-deps -e .
	$(RUN) -c "import triton" 2>/dev/null || $(RUN) -m pip install --disable-pip-version-check \
		--no-deps --target .venv/triton $(TRITON) || echo "no Triton here: Week 5's kernels do not run"
	$(RUN) -m ipykernel install --sys-prefix --env PYTHONSAFEPATH ""
	@mkdir -p .venv/etc/ipython  # each kernel would warn that it is heard on this machine
	@echo 'c.IPKernelApp.log_level = "ERROR"' > .venv/etc/ipython/ipython_kernel_config.py
	@pwd -P > $@

setup: .venv/.installed
	@for name in $(CHECKPOINTS); do $(RUN) -m nanoserve download $$name || exit 1; done

book: setup
	rm -rf _build
	$(RUN) -c 'from jupyter_book.cli.main import main; main()' build . -W -n --keep-going
	@echo
	@echo "The book is built. Open _build/html/index.html"

test: setup
	$(RUN) -m ruff check .
	$(RUN) book/tangle.py --check
	$(RUN) -m pytest --nbval -n 2 --dist loadscope --no-loadscope-reorder $(addprefix --ignore ,$(IN_A_BROWSER))

bugs: setup
	NANOSERVE_ALL_BUGS=1 $(RUN) -m pytest -n 2 tests/test_mutants.py

site: setup
	$(RUN) -m pytest -n 2 --dist loadscope $(IN_A_BROWSER)

lab: setup
	$(RUN) book/lab.py

refresh: setup
	$(RUN) book/refresh.py

bench: setup
	$(RUN) book/bench.py

bench-gpu: setup
	$(RUN) book/bench_gpu.py

pdf: book
	$(RUN) book/pdf.py

practice: setup
	$(RUN) book/practice.py

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
