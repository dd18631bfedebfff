"""Fixed points of a function, their basins of attraction, and how complete the set is."""

from fpstab.fixed_points.coverage import Coverage, coverage_by_source, coverage_of
from fpstab.fixed_points.cycles import Cycle
from fpstab.fixed_points.finder import find_fixed_points
from fpstab.fixed_points.points import FixedPoints
from fpstab.fixed_points.regions import Basins, basins
from fpstab.fixed_points.reports import FixedPointReport, fixed_point_report
from fpstab.fixed_points.search import OUTCOMES
from fpstab.fixed_points.tracking import Track, track

__all__ = [
    "OUTCOMES",
    "Basins",
    "Coverage",
    "Cycle",
    "FixedPointReport",
    "FixedPoints",
    "Track",
    "basins",
    "coverage_by_source",
    "coverage_of",
    "find_fixed_points",
    "fixed_point_report",
    "track",
]
