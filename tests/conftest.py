"""What every test shares."""

import os
import signal
import sys

import pytest
from environment import settle

settle()  # inherited by the kernels that nbval starts
# A shell's job in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # what is asked for here answers on 127.0.0.1

# Files of a few long tests, which two processes share by parts: as a whole they would be the last
# to end, with one core at rest.
LONG = ("test_any_checkpoint.py", "test_practice_work.py", "test_environment.py")


def pytest_collection_modifyitems(items):
    """What one process runs in order: a notebook, a file of tests, or an eighth of a long one."""
    for number, item in enumerate(items):
        name = item.path.name
        part = f", {number % 8}" if name in LONG else ""
        item.add_marker(pytest.mark.xdist_group(name + part))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty folder that stands for nanoserve; what was imported from the real one is hidden."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = tmp_path / "nanoserve"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.setenv("NANOSERVE_PACKAGE", str(folder))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "nanoserve"]:
        del sys.modules[name]
