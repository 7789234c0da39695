"""Runs the notebooks before the pages are read, two at a time: Sphinx alone runs them in a row.

Every notebook is still run anew by each build. Its outputs lie in a cache of myst-nb's kind that
this build begins empty; myst-nb finds them there. One that fails is not in it, so that myst-nb
runs it again and reports what is wrong. Only days run side by side, each with its share of the
cores: a page of times has the machine for itself, when the others are done.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
from days import DAY
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import settle

LOG = logging.getLogger(__name__)
JOBS = int(os.environ.get("NANOSERVE_JOBS", 2))  # a kernel takes up to 2 GB


@contextmanager
def cores_shared(jobs: int) -> Iterator[None]:
    """Kernels that begin meanwhile get their share of the cores, unless the reader has said more.

    Threads of two notebooks get in each other's way, and cost both more than they bring.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def run(path: Path, timeout: int) -> tuple[Path, nbformat.NotebookNode, float]:
    """The notebook with its outputs and the seconds it took; what it raises is raised."""
    notebook = nbformat.read(path, as_version=4)
    done = single_nb_execution(notebook, str(path.parent), timeout, allow_errors=False)
    if done.err is not None:
        raise done.err
    return path, notebook, done.time


def run_all(paths: Iterable[Path], folder: Path, timeout: int, jobs: int = JOBS) -> None:
    """Run notebooks side by side and keep those that passed in the cache at `folder`."""
    cache = get_cache(folder)
    with cores_shared(jobs), ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(run, path, timeout) for path in paths]:
            try:
                path, notebook, seconds = future.result()
            except Exception as error:
                LOG.info("to be run once more: %s", type(error).__name__)
                continue
            bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            LOG.info("%s ran in %.0f s", path.name, seconds)


def begin(app, config) -> None:
    """Where notebooks are to be run by each build, myst-nb looks into our cache first."""
    if config.nb_execution_mode == "force":
        settle()  # inherited by the kernels
        folder = Path(app.outdir).parent / ".executed"
        shutil.rmtree(folder, ignore_errors=True)
        config.nb_execution_mode, config.nb_execution_cache_path = "cache", str(folder)


def before_pages(app, env, docnames: list[str]) -> None:
    if app.config.nb_execution_mode != "cache":
        return
    files = [Path(env.doc2path(name)) for name in sorted(docnames) if DAY.fullmatch(name)]
    paths = [path for path in files if path.suffix == ".ipynb"]
    run_all(paths, Path(app.config.nb_execution_cache_path), app.config.nb_execution_timeout)


def setup(app) -> dict:
    app.connect("config-inited", begin)
    app.connect("env-before-read-docs", before_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
