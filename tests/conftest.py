"""The environment of every test, inherited by the kernels that nbval starts."""

import os

# No progress bar or advisory may reach a cell's output, and no hub is asked for anything.
os.environ.update(
    TQDM_DISABLE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_OFFLINE="1",
    PYDEVD_DISABLE_FILE_VALIDATION="1",
)
