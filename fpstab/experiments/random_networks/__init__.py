"""Random networks of papers 1 and 2, figure by figure: numbers of fixed points, basins, contraction."""

from typing import Any

from fpstab.experiments.random_networks import contraction, counts, heavy_areas, laws, realisations, trained
from fpstab.experiments.random_networks.contraction import by_beta, by_layers
from fpstab.experiments.random_networks.counts import number_by_depth, readings
from fpstab.experiments.random_networks.heavy_areas import areas
from fpstab.experiments.random_networks.laws import activations, light_tails
from fpstab.experiments.random_networks.realisations import basins_of_realisations
from fpstab.experiments.random_networks.trained import trained_toy

FULL: dict[str, dict[str, Any]] = {
    **heavy_areas.FULL,
    **contraction.FULL,
    **counts.FULL,
    **laws.FULL,
    **realisations.FULL,
    **trained.FULL,
}
"""The papers' sizes, by function."""

SCHEMATIC = {
    "paper 1, Figure 1": "Illustrates encoding and decoding of images; no data. The idea itself: `fpstab apply identification`.",
    "paper 1, Figure 3": "Drawn by hand, Q against depth without a scale. What a census gives: `number_by_depth`.",
    "paper 1, Figure 4": "Illustrates a path in the complex plane along which a functional equation is solved; no data.",
    "paper 2, Figure 2": "As Figure 3 of paper 1.",
}
"""Figures that show no data, by the papers' own captions, and where their statements are looked at."""

__all__ = [
    "FULL",
    "SCHEMATIC",
    "activations",
    "areas",
    "basins_of_realisations",
    "by_beta",
    "by_layers",
    "light_tails",
    "number_by_depth",
    "readings",
    "trained_toy",
]
