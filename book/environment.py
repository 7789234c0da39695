"""The environment of the book: what make, tests and notebooks get, whatever the reader has set.

    python -E book/environment.py ARGUMENT ...

is `python ARGUMENT ...` in it. Needs nothing that pip brings: with it, make sets up.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

OLDEST = (3, 11)  # that the pins in requirements.txt allow
SETTINGS = {
    # No progress bar or advisory reaches a stored output, and no hub is asked for anything.
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    # Threads that wait sleep: spinning ones take the cores from whatever else runs, and two
    # notebooks at once took 3.5 times as long.
    "OMP_WAIT_POLICY": "passive",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    # Figures go into the page.
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # pip installs where it is told to.
    "PIP_USER": "0",
}
# Beginnings of names. Each of these has failed a build or changed what a page shows, or would.
DROPPED = (
    "PYTHON",  # other modules, no asserts, no current folder, warnings in the output
    "HF_",  # advice on stderr, numbers that are none; nothing here asks the hub
    "HUGGINGFACE_",
    "HUGGING_FACE_",
    "TRANSFORMERS_",
    "TORCH_",  # logs, and products in less than float32
    "ONEDNN_",
    "DNNL_",
    "MKL_VERBOSE",
    "MATPLOTLIBRC",
    "JUPYTER_PATH",  # another python3 kernel
    "JUPYTER_CONFIG_PATH",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "GIT_DIR",  # set where git runs make, in a hook
    "GIT_INDEX_FILE",
    "GIT_WORK_TREE",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_PYTHON",
    "PIP_DRY_RUN",
    "PIP_NO_DEPS",
    "PIP_REQUIRE_HASHES",
)


def settled(environ):
    """A copy of the environment with the reader's settings replaced by the book's."""
    found = {name: value for name, value in environ.items() if not name.startswith(DROPPED)}
    found.update(SETTINGS)
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)):
        found["HOME"] = private()
        for name in [name for name in found if name.startswith("XDG_")]:
            del found[name]
    return found


def private():
    """A folder for what libraries keep at home: in _build, or a temporary one."""
    path = Path(__file__).resolve().parent.parent / "_build" / "home"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        path = None
    if path is None or not os.access(str(path), os.W_OK | os.X_OK):
        return tempfile.mkdtemp(prefix="nanoserve-")
    return str(path)


def settle():
    """Settle this process, and with it every kernel and command that it will start."""
    found = settled(os.environ)
    # The reader's own startup files would run in every kernel.
    found["IPYTHONDIR"] = os.path.join(private(), "ipython")
    os.environ.clear()
    os.environ.update(found)


def settle_kernel():
    """Settle a kernel that others have started, before it has imported anything of the book's."""
    found = settled(os.environ)
    for name in set(os.environ) - set(found):
        del os.environ[name]
    os.environ.update(found)
    if sys.warnoptions:  # from PYTHONWARNINGS: back to Python's own
        warnings.resetwarnings()
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", message="IProgress not found")


def main():
    """Start this Python once more, in this environment."""
    if sys.version_info < OLDEST:
        here, oldest = (".".join(map(str, v[:2])) for v in (sys.version_info, OLDEST))
        sys.exit(
            f"error: the book's packages need Python {oldest} or newer, and {sys.executable} is "
            f"{here}: name another one, as in `make PYTHON=python{oldest} book`"
        )
    settle()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
