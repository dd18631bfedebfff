"""Numbers kept in a range by a sigmoid, and the free numbers behind them."""

import torch
from torch import Tensor


def within_range(free: Tensor, lo: float, hi: float) -> Tensor:
    """The values hi − (hi − lo)·sigmoid(free), paper 3, eqs. (21a) and (23a)."""
    return hi - (hi - lo) * torch.sigmoid(free)


def into_range(values: Tensor, lo: float, hi: float) -> Tensor:
    """Values that are outside of [lo, hi] come inside by one per cent of its width: at its ends no sigmoid moves.

    >>> into_range(torch.tensor([-1.0, 0.25, 7.0]), 0.0, 1.0)
    tensor([0.0100, 0.2500, 0.9900])
    """
    slack = 1e-6 * max(abs(lo), abs(hi))  # what a member may have lost by rounding is not outside
    inside = 0.01 * (hi - lo)
    return torch.where(
        values > hi + slack, hi - inside, torch.where(values < lo - slack, lo + inside, values.clamp(lo, hi))
    )


def range_logits(values: Tensor, lo: float, hi: float) -> Tensor:
    """The free numbers behind values in [lo, hi]; finite at the ends too, and 0 for a range of one number."""
    if lo == hi:
        return torch.zeros_like(values)
    tiny = torch.finfo(values.dtype).eps
    return torch.logit(((hi - values) / (hi - lo)).clamp(tiny, 1.0 - tiny))
