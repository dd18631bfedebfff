"""Activations with all kinds of parameters, and their chords on a fine grid."""

import functools
import re

import pytest
import torch
from torch import nn

from fpstab.activations import APLU, BLU, PELU, SoftExponential


def with_values(unit, a, b):
    """An APLU with these parameters, the same for all channels."""
    with torch.no_grad():
        unit.a.copy_(torch.tensor(a))
        unit.b.copy_(torch.tensor(b))
    return unit


MODULES = [
    nn.Identity(),
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(),
    nn.Hardtanh(-0.5, 2.0),
    nn.Hardtanh(0.5, 2.0),
    nn.Sigmoid(),
    nn.Hardsigmoid(),
    nn.Tanh(),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.ELU(),
    nn.ELU(2.5),
    nn.ELU(-0.5),
    nn.CELU(),
    nn.CELU(3.0),
    nn.SELU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.LeakyReLU(),
    nn.LeakyReLU(1.7),
    nn.LeakyReLU(-0.3),
    nn.LeakyReLU(-2.0),
    nn.LogSigmoid(),
    nn.Softplus(),
    nn.Softplus(3.0, 40.0),
    nn.Softplus(-2.0),
    nn.Softshrink(),
    nn.Softshrink(0.0),
    nn.PReLU(init=0.4),
    nn.Softsign(),
    nn.Tanhshrink(),
    nn.Threshold(0.5, 0.5),
    nn.Threshold(-0.5, -0.5),
    nn.Hardshrink(0.0),
    nn.RReLU().eval(),
    SoftExponential(),
    BLU(0.7),
    BLU(-1.0),
    with_values(APLU(3), [0.5, -0.75, 0.25], [-1.0, 0.3, 0.0]),
    with_values(APLU(2), [0.5, 0.75], [-1.0, -0.25]),
    with_values(APLU(1), [-0.5], [0.0]),
    PELU(2.0, 3.0),
    PELU(0.5, 0.25),
]
FUNCTIONS = [
    torch.sin,
    torch.cos,
    torch.atan,
    torch.erf,
    torch.abs,
    functools.partial(torch.clamp, max=0.3),
]
CONTINUOUS = [*MODULES, *FUNCTIONS]
JUMPING = [
    nn.Hardshrink(),
    nn.Threshold(0.5, 0.0),
    nn.Threshold(-0.5, 1.0),
    nn.Softplus(1.0, 2.0),
    nn.Softplus(-1.0, 2.0),
]

GRID = torch.cat([each * torch.arange(-40_000, 40_001, dtype=torch.float64) for each in (0.0015, 0.0001)]).unique()
GRID = GRID[torch.cat([torch.ones(1).bool(), GRID.diff() > 2e-5])]


def label(value):
    """A test's name without addresses, so that it is the same in every process."""
    return re.sub(r"( of type object)? at 0x[0-9a-f]+", "", str(value))


def named(activations):
    return pytest.mark.parametrize("activation", activations, ids=label)


def values(activation, z):
    activation = activation.double() if isinstance(activation, nn.Module) else activation
    with torch.no_grad():
        return activation(z.clone())


def slopes(activation):
    return values(activation, GRID).diff() / GRID.diff()
