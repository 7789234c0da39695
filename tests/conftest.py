"""The environment of every test, inherited by the kernels that nbval starts."""

import os
import sys

import pytest

# No progress bar or advisory may reach a cell's output, and no hub is asked for anything.
os.environ.update(
    TQDM_DISABLE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_OFFLINE="1",
    PYDEVD_DISABLE_FILE_VALIDATION="1",
)


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
