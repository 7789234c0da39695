"""Holding code to one device on a machine that has no other: Days 6 and 7."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OneDevice(TorchDispatchMode):
    """In this `with`, an operation on tensors of two devices is a RuntimeError, as on a GPU.

    The meta device, which stands for another one here, lets many of them pass. Numbers and tensors
    of no dimension may come from anywhere, and copies lead from one device to another.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        devices = sorted({t.device.type for t in given if t.dim()})
        if len(devices) > 1 and func is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{func} is given tensors on {' and '.join(devices)}")
        return func(*args, **(kwargs or {}))
