"""`python -m nanoserve`: the command, where no script of its name is on the path."""

import sys

from nanoserve.cli import main

sys.exit(main())
