"""What random-matrix and mean-field theory predicts of networks with random weights."""

from fpstab.theory import deq, jacobian_esd

__all__ = ["deq", "jacobian_esd"]
