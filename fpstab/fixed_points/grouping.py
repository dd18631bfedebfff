"""Which limits are one and the same fixed point, whatever the order in which they were found."""

import numpy as np
import torch
from torch import Tensor

from fpstab.fixed_points.search import scale

MAX_GROUPS = 4096  # beyond this nobody looks at them one by one
SAME = 1e-6  # relative distance below which limits are the same whatever their errors


def group(x: Tensor, error: Tensor, *, threshold: float | None = None) -> tuple[Tensor, Tensor]:
    """Leader clustering: the most accurate point that is left leads all within err_i + err_j + 1e-6·(1 + ‖x‖).

    Args:
        x: Points `[C, n]`, in an order that does not depend on how they were found (see `canonical_order`).
        error: Distance to the limit `[C]`.
        threshold: A fixed distance instead.

    Returns:
        Indices of the leaders `[K]`, at most `MAX_GROUPS`, and of each point its group `[C]`, −1 for none.

    >>> group(torch.tensor([[0.0], [1.0], [1e-7]]), torch.tensor([1e-9, 1e-9, 1e-8]))
    (tensor([0, 1]), tensor([0, 1, 0]))
    """
    label = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    left = torch.argsort(error, stable=True)
    reach = error + SAME * scale(x)
    leaders: list[int] = []
    while len(left) and len(leaders) < MAX_GROUPS:
        i = left[0]
        distance = torch.linalg.vector_norm(x[left] - x[i], dim=1)
        near = distance <= (reach[i] + error[left] if threshold is None else threshold)
        near[0] = True
        label[left[near]] = len(leaders)
        leaders.append(int(i))
        left = left[~near]
    return torch.tensor(leaders, dtype=torch.int64, device=x.device), label


def canonical_order(x: Tensor) -> Tensor:
    """Indices `[C]` that sort points `[C, n]` by their bits: the same for the same set of points."""
    bits = np.ascontiguousarray((x + 0.0).cpu().numpy())  # 0.0 for −0.0
    keys = bits.view(np.dtype((np.void, bits.shape[1] * bits.itemsize)))[:, 0]
    return torch.as_tensor(np.argsort(keys, kind="stable"), device=x.device)


def tolerant_order(x: Tensor, first: Tensor) -> Tensor:
    """Indices `[K]` that sort points `[K, n]` by `first` `[K]`, then by their coordinates up to rounding.

    Values of a coordinate count as equal if no gap above 1e-8 (relative to 1 + the largest) lies between them.
    """
    if not len(x):
        return first
    values, order = x.sort(dim=0)
    gaps = torch.diff(values, dim=0, prepend=values[:1]) > 1e-8 * (1 + float(x.abs().max()))
    ranks = torch.empty_like(order).scatter_(0, order, gaps.cumsum(0))
    keys = np.concatenate((ranks.cpu().numpy().T[::-1], first.cpu().numpy()[None]))
    return torch.as_tensor(np.lexsort(keys), device=x.device)
