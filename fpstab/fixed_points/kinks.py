"""Kinks: fixed points at which a map has no derivative, so that no eigenvalue says whether they attract."""

import torch
from torch import Tensor

from fpstab.fixed_points.search import Map, chunks, scale
from fpstab.jacobian.products import JacobianProducts
from fpstab.results import AnalysisError

_FAR, _NEAR = 1e-5, 1e-7  # relative displacements
_SEEN = 1e-6  # relative disagreement that is more than rounding
_JUMP = 1e-2  # disagreement nearby that rounding cannot make
_COORDINATES, _DIRECTIONS = 8, 8  # values up to which coordinates are probed; directions beyond
_ROWS = 256  # points that are probed together


def has_kink(function: Map, x: Tensor) -> Tensor:
    """Whether the map is not differentiable at points `[K, n]`, or autograd's derivative there is not one `[K]`.

    Compares Φ(x ± hd) − Φ(x) with ±hJd at two small h, along all coordinates (up to 8), or along 8 random directions.
    What disagrees by curvature, relative to h, shrinks with h; at a kink (of relu, abs, …) it does not. Where the
    Jacobian is not finite the two sides are compared with one another. Jumps count, too. A kink within 1e-7 (relative to 1 + ‖x‖) of a
    point counts as one at it. Random directions may miss a kink that few of many values see.
    """
    parts = [_probe(function, chunk) for chunk in chunks(x, _ROWS)]
    return torch.cat([torch.zeros(0, dtype=torch.bool, device=x.device), *parts])


def _probe(function: Map, x: Tensor) -> Tensor:
    n = x.shape[1]
    directions = torch.eye(n, dtype=x.dtype)
    if n > _COORDINATES:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(_DIRECTIONS, n, generator=generator, dtype=x.dtype)
    directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    with torch.no_grad():
        value = function(x)
    products = JacobianProducts(function, x)
    kink = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for direction in directions.to(x.device):
        d = direction.expand_as(x).contiguous()
        try:
            slope = products.jvp(d)
        except AnalysisError:  # no second derivative
            slope = torch.full_like(x, torch.nan)
        far, near = (_disagreement(function, x, value, d, slope, h) for h in (_FAR, _NEAR))
        seen = _SEEN * (1 + torch.linalg.vector_norm(slope, dim=1).nan_to_num(0.0))
        # what rounding adds grows as h shrinks, as does what a jump adds, which is larger
        kink |= (torch.minimum(far, near) > seen) & (near > 0.3 * far) & ((far > 0.05 * near) | (near > _JUMP))
    return kink


def _disagreement(function: Map, x: Tensor, value: Tensor, d: Tensor, slope: Tensor, h: float) -> Tensor:
    """The larger ‖Φ(x ± td) − Φ(x) ∓ tJd‖/t of both signs `[K]`, for t = h(1 + ‖x‖)."""
    t = h * scale(x)[:, None]
    with torch.no_grad():
        ahead, behind = (function(x + t * d) - value) / t, (function(x - t * d) - value) / t
    slope = torch.where(torch.isfinite(slope).all(1, keepdim=True), slope, (ahead - behind) / 2)
    left, right = torch.linalg.vector_norm(ahead - slope, dim=1), torch.linalg.vector_norm(behind + slope, dim=1)
    return torch.maximum(left, right)
