"""Lightning callbacks that watch a network while it trains.

They attach to the Trainer of either namespace, `pytorch_lightning` or `lightning.pytorch`.
"""

from fpstab.callbacks.base import Monitor
from fpstab.callbacks.equilibrium import EquilibriumMonitor
from fpstab.callbacks.esd import ESDMonitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.finite_steps import SkipNonFiniteSteps
from fpstab.callbacks.fixed_points import FixedPointMonitor
from fpstab.callbacks.jacobian import JacobianMonitor
from fpstab.callbacks.lipschitz import LipschitzMonitor
from fpstab.callbacks.orbits import OrbitMonitor
from fpstab.callbacks.probe import Probe
from fpstab.callbacks.stability import StabilityMonitor
from fpstab.records.lines import Run, read_lines, read_runs

__all__ = [
    "ESDMonitor",
    "EquilibriumMonitor",
    "Every",
    "FixedPointMonitor",
    "JacobianMonitor",
    "LipschitzMonitor",
    "Monitor",
    "OrbitMonitor",
    "Probe",
    "Run",
    "SkipNonFiniteSteps",
    "StabilityMonitor",
    "read_lines",
    "read_runs",
]
