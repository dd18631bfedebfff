"""What random-matrix and mean-field theory predicts of networks with random weights."""

from fpstab.theory import deq

__all__ = ["deq"]
