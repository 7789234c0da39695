"""Matrix products by oneDNN, another library within the same torch.

Built in the book: day11. Edit there, then run book/tangle.py.
"""

import torch
from torch.nn.functional import linear

from nanoserve.layers import Linear
from nanoserve.model import Llama

# What torch.compile puts for a linear layer. It has no public name.
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def onednn_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As torch's linear: x (..., in), weight (out, in) -> (..., out).

    By oneDNN where it is there, for float32 on the CPU and without
    gradients; by torch's own everywhere else.
    """
    learns = x.requires_grad or weight.requires_grad
    if not plain(x, weight) or (learns and torch.is_grad_enabled()):
        return linear(x, weight)
    return ONEDNN(x, weight, None, "none", [], "")


class OneDNNLinear(Linear):
    """A Linear that multiplies by oneDNN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return onednn_linear(x, self.weight)


def plain(*tensors: torch.Tensor) -> bool:
    """Whether oneDNN is there, and these are for it: fp32, on the CPU."""
    return (
        ONEDNN is not None
        and torch.backends.mkldnn.is_available()
        and all(t.dtype == torch.float32 for t in tensors)
        and all(t.device.type == "cpu" for t in tensors)
    )


def use_onednn(model: Llama, on: bool = True) -> bool:
    """Let oneDNN multiply for a model, or no longer; whether it does now.

    Every Linear and the head change their product, in place; weights
    are neither copied nor moved. Nothing changes where oneDNN is not
    there or the parameters are not all float32 on the CPU.
    """
    on = on and plain(*model.parameters())
    model.product = onednn_linear if on else linear
    for layer in model.modules():
        if type(layer) in (Linear, OneDNNLinear):
            layer.__class__ = OneDNNLinear if on else Linear
    return on
