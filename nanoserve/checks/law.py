"""The law of tolerance: what a result in a narrow dtype is held to.

Built in the book: day22. Edit there, then run book/tangle.py.
"""

import torch


def lawful(mine: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether ours is as near to `exact`, in float64, as plain torch is.

    In the mean and at the largest, but for a twentieth.
    """
    ours, theirs = ((t.double() - exact).abs() for t in (mine, plain))
    fair = ours.mean() <= 1.05 * theirs.mean()
    return bool(fair and ours.max() <= 1.05 * theirs.max())
