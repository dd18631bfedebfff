"""Lightning callbacks that watch a network while it trains.

They attach to the Trainer of either namespace, `pytorch_lightning` or `lightning.pytorch`.
"""

from fpstab.callbacks.base import Monitor
from fpstab.callbacks.esd import ESDMonitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.probe import Probe
from fpstab.callbacks.sinks import read_lines

__all__ = ["ESDMonitor", "Every", "Monitor", "Probe", "read_lines"]
