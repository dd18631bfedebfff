"""Orbits that ran out of iterations beside a fixed point: does it attract them?"""

import torch
from torch import Tensor

from fpstab.fixed_points.search import Map
from fpstab.jacobian.products import JacobianProducts
from fpstab.results import AnalysisError


def captured(function: Map, x: Tensor, target: Tensor, rho: Tensor) -> Tensor:
    """Whether each iterate `[B, n]` moves towards its attracting fixed point `[B, n]` as the Jacobian there says.

    The step must be that of the linearisation to within a quarter of what the contraction ρ `[B]` leaves,
    ‖Φ(x) − x* − J(x − x*)‖ ≤ ¼(1 − ρ)‖x − x*‖: the orbit is in the regime where the eigenvalues decide.
    """
    away = x - target
    with torch.no_grad():
        step = function(x) - target
    try:
        linear = JacobianProducts(function, target).jvp(away)
    except AnalysisError:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    left: Tensor = torch.linalg.vector_norm(step - linear, dim=1)
    distance: Tensor = torch.linalg.vector_norm(away, dim=1)
    return (rho < 1) & (left <= 0.25 * (1 - rho) * distance)
