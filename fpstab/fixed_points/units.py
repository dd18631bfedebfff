"""Small worlds: where all that happens is far smaller than 1, the search runs in a unit of that size."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from fpstab.fixed_points.points import FixedPoints
from fpstab.maps import SelfMap

_SMALL, _SMALLEST = 1e-3, 1e-100
_ITERATES = 8


def length_unit(function: SelfMap, starts: Tensor, seeds: Tensor) -> float:
    """The length that absolute tolerances refer to: 1, or a power of two as large as starts, seeds and first iterates.

    It is below 1 only if the norms of all of these are below 1e-3.
    """
    largest = 0.0
    x = torch.cat((starts, seeds))
    with torch.no_grad():
        for _ in range(_ITERATES):
            size = torch.linalg.vector_norm(x, dim=1)
            largest = max(largest, float(torch.where(torch.isfinite(size), size, 0.0).max()))
            if largest >= _SMALL:
                return 1.0
            x = function(x)
    return 2.0 ** math.ceil(math.log2(largest)) if largest > _SMALLEST else 1.0


def in_units(function: SelfMap, starts: Tensor, unit: float) -> SelfMap:
    """The map u ↦ Φ(unit·u)/unit of flat batches: powers of two round nothing, and the Jacobians are those of Φ."""
    scaled = SelfMap(lambda u: function(u * unit) / unit, starts / unit)
    scaled.name = function.name
    if function.split is not None:
        encode, decode = function.split
        scaled.split = (lambda u: encode(u * unit), lambda code: decode(code) / unit)
    return scaled


def out_of_units(found: FixedPoints, unit: float, shape: tuple[int, ...]) -> FixedPoints:
    """What was found in units, as lengths."""
    cycles = tuple(
        replace(
            cycle,
            points=cycle.points * unit,
            residual=cycle.residual * unit,
            error_bound=cycle.error_bound * unit,
        )
        for cycle in found.cycles
    )
    return replace(
        found,
        shape=shape,
        points=found.points * unit,
        residual=found.residual * unit,
        error_bound=found.error_bound * unit,
        history=found.history * unit,
        cycles=cycles,
    )
