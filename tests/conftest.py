"""The environment that kernels started by the tests inherit: nothing unstable on stderr."""

import os

from tangle import QUIET

os.environ.update(QUIET, PYDEVD_DISABLE_FILE_VALIDATION="1")
