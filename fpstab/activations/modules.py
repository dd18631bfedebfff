"""The four activations of paper 3, Figure 1, that torch has not, as their authors define them; all parameters are learned."""

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from fpstab.activations.functional import aplu, blu, pelu, soft_exponential

_HINGE_SPREAD = 0.5  # standard deviation from which the authors of APLU draw b


class SoftExponential(nn.Module):
    """σ(z) = (exp(αz) − 1)/α + α for α > 0, z for α = 0, −log(1 − α(z + α))/α for α < 0.

    Exponential at α = 1, logarithmic at α = −1. For α < 0 it is `nan` where z ≤ |α| − 1/|α|. σ(0) = 0 only for α = 0,
    and its slopes have no bound for any other α.

    References: Godfrey and Gashler, A continuum among logarithmic, linear, and exponential functions, and its potential
    to improve generalization in neural networks, 2015.

    Args:
        alpha: α at the start, within [−1, 1].

    Raises:
        ValueError: If α is outside.

    >>> SoftExponential(1.0)(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 2.7183], grad_fn=<AddBackward0>)
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not -1 <= alpha <= 1:
            raise ValueError(f"alpha={alpha}: expected a number within [-1, 1].")
        self.alpha = nn.Parameter(torch.tensor([float(alpha)]))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """σ(z), of z's shape."""
        return soft_exponential(input, self.alpha)

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"alpha={self.alpha.item():.4g}"


class BLU(nn.Module):
    """Bendable linear unit: σ(z) = β(√(z² + 1) − 1) + z, with slopes between 1 − |β| and 1 + |β|.

    References: Godfrey, An evaluation of parametric activation functions for deep learning, 2019.

    Args:
        beta: β at the start, within [−1, 1]; at 0 it is the identity.

    Raises:
        ValueError: If β is outside.

    >>> BLU(0.5)(torch.tensor([0.0, 1.0]))
    tensor([0.0000, 1.2071], grad_fn=<AddBackward0>)
    """

    def __init__(self, beta: float = 0.0) -> None:
        super().__init__()
        if not -1 <= beta <= 1:
            raise ValueError(f"beta={beta}: expected a number within [-1, 1].")
        self.beta = nn.Parameter(torch.tensor([float(beta)]))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """σ(z), of z's shape."""
        return blu(input, self.beta)

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"beta={self.beta.item():.4g}"


class APLU(nn.Module):
    """Adaptive piecewise linear unit: σ(z) = max(0, z) + Σₛ aₛ max(0, −z + bₛ).

    At the start all aₛ are 0, so that it is ReLU, and the hinges bₛ are the quantiles of the normal distribution from which
    the authors draw them (standard deviation ½).

    References: Agostinelli, Hoffman, Sadowski and Baldi, Learning activation functions to improve deep neural networks, 2015.

    Args:
        segments: S, the number of hinges.
        num_parameters: 1, or the size of the input's dimension 1: each channel then has its own.

    Raises:
        ValueError: If one of them is below 1.

    >>> unit = APLU(segments=1)
    >>> with torch.no_grad():
    ...     _ = unit.a.fill_(0.5)
    >>> unit(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.5000, 0.0000, 1.0000], grad_fn=<AddBackward0>)
    """

    def __init__(self, segments: int = 2, num_parameters: int = 1) -> None:
        super().__init__()
        if segments < 1 or num_parameters < 1:
            raise ValueError(f"segments={segments}, num_parameters={num_parameters}: expected 1 or more of each.")
        hinges = [NormalDist(sigma=_HINGE_SPREAD).inv_cdf((s + 0.5) / segments) for s in range(segments)]
        self.a = nn.Parameter(torch.zeros(num_parameters, segments))
        self.b = nn.Parameter(torch.tensor(hinges).repeat(num_parameters, 1))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """σ(z), of z's shape."""
        return aplu(input, self.a, self.b)

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"segments={self.a.shape[1]}, num_parameters={self.a.shape[0]}"


class PELU(nn.Module):
    """Parametric exponential linear unit: σ(z) = (a/b)z for z ≥ 0, a(exp(z/b) − 1) for z < 0; slopes between 0 and a/b.

    References: Trottier, Giguère and Chaib-draa, Parametric exponential linear unit for deep convolutional neural networks,
    2017.

    Args:
        a: At the start, above 0.
        b: At the start, above 0.

    Raises:
        ValueError: If one of them is not.

    >>> PELU(2.0, 1.0)(torch.tensor([-1.0, 1.0]))
    tensor([-1.2642,  2.0000], grad_fn=<MulBackward0>)
    """

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(f"a={a}, b={b}: expected two numbers above 0.")
        self.a = nn.Parameter(torch.tensor([float(a)]))
        self.b = nn.Parameter(torch.tensor([float(b)]))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """σ(z), of z's shape."""
        return pelu(input, self.a, self.b)

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"a={self.a.item():.4g}, b={self.b.item():.4g}"
