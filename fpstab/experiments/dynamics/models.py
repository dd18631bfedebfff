"""The 828 networks of the plane of paper 3, appendix D: 23 linear maps, three depths, six activations, bias on and off.

Model parameters are the same for all activations, and with and without bias, as in the paper. What it leaves open is an
option: whether the output is activated (in the released code it is: n layers are n + 1 linear maps and n + 1
activations), and the seed. The systems are discrete, x⁺ = f(x).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from fpstab.ensembles.init import haar
from fpstab.stability.parametrizations import Gershgorin
from fpstab.stability.stacks import ChainStack

Factorization = Literal["Gershgorin, real", "Gershgorin, complex", "Spectral", "Perron-Frobenius", "Unstructured"]

RANGES = ((-1.5, -1.1), (0.0, 1.0), (0.99, 1.0), (0.99, 1.01), (0.99, 1.1), (1.0, 1.01), (1.1, 1.5))
DEPTHS = (1, 4, 8)
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "SELU": nn.SELU,
    "GELU": nn.GELU,
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
}

_N = 2


@dataclass(frozen=True, slots=True)
class LinearMap:
    """How the weights of a network are made.

    Attributes:
        factorization: Of each weight.
        limits: (λ_min, λ_max); `None` without a constraint.
    """

    factorization: Factorization
    limits: tuple[float, float] | None = None

    def draw(self, generator: Generator) -> Tensor:
        """A weight `[2, 2]`, float64.

        Gershgorin: entries beside the diagonal uniform in ±r, r the row budget (eq. (26) as printed has no freedom for two
        rows). Spectral: Haar-distributed U and V, singular values uniform in the range. Perron–Frobenius: eq. (21) of
        standard normal A′ and M′, without the shrinkage by 1e-14 by which the parametrisation keeps its norm below the
        bound: it would turn a line of fixed points into none. Unstructured: uniform in ±1/√2, as torch's.
        """
        if self.factorization == "Unstructured" or self.limits is None:
            return _uniform(generator, _N, _N) / math.sqrt(_N)
        lo, hi = self.limits
        if self.factorization == "Spectral":
            U, V = haar(_N, _N, generator), haar(_N, _N, generator)
            values = lo + (hi - lo) * torch.rand(_N, generator=generator, dtype=torch.float64)
            return (U * values) @ V.mT
        if self.factorization == "Perron-Frobenius":
            shares, damping = torch.randn(2, _N, _N, generator=generator, dtype=torch.float64)
            stochastic: Tensor = shares.softmax(1) * (hi - (hi - lo) * damping.sigmoid())
            return stochastic
        eigenvalues: Literal["real", "complex"] = "real" if self.factorization == "Gershgorin, real" else "complex"
        free = _uniform(generator, _N, _N)
        if eigenvalues == "real":
            free = free.triu() + free.triu(1).mT
        weight: Tensor = Gershgorin(lo, hi, eigenvalues=eigenvalues)((hi - lo) / 2 * free)
        return weight

    def __str__(self) -> str:
        return (
            self.factorization
            if self.limits is None
            else f"{self.factorization} ({self.limits[0]:.2f}, {self.limits[1]:.2f})"
        )


MAPS: tuple[LinearMap, ...] = (
    *(LinearMap("Gershgorin, real", limits) for limits in RANGES),
    *(LinearMap("Gershgorin, complex", limits) for limits in RANGES),
    *(LinearMap("Spectral", limits) for limits in RANGES),
    LinearMap("Perron-Frobenius", (1.0, 1.0)),
    LinearMap("Unstructured"),
)


@dataclass(frozen=True, slots=True)
class Model:
    """One network of the grid.

    Attributes:
        map: How its weights are made.
        depth: Layers, as the paper counts them: one linear map more.
        activation: A key of `ACTIVATIONS`.
        bias: Whether it has biases.
    """

    map: LinearMap
    depth: int
    activation: str
    bias: bool

    def __str__(self) -> str:
        return f"{self.map}, {self.activation}, {self.depth} layer{'s' * (self.depth > 1)}{', bias' * self.bias}"

    def row(self) -> dict[str, str | int | bool]:
        """Its columns of a table."""
        return {
            "factorization": self.map.factorization,
            "range": "" if self.map.limits is None else "{:.2f} {:.2f}".format(*self.map.limits),
            "activation": self.activation,
            "layers": self.depth,
            "bias": self.bias,
        }


GRID: tuple[Model, ...] = tuple(
    Model(linear, depth, activation, bias)
    for depth in DEPTHS
    for activation in ACTIVATIONS
    for linear in MAPS
    for bias in (False, True)
)
"""All 828."""


def draw_parameters(linear: LinearMap, depth: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights `[depth + 1, 2, 2]` and biases `[depth + 1, 2]`, uniform in ±1/√2; the same whatever else is drawn."""
    own = MAPS.index(linear) if linear in MAPS else len(MAPS)
    generator = torch.Generator().manual_seed((seed * 64 + own) * 64 + depth)
    weights = torch.stack([linear.draw(generator) for _ in range(depth + 1)])
    return weights, _uniform(generator, depth + 1, _N) / math.sqrt(_N)


def stack_models(models: Sequence[Model], seeds: Sequence[int], *, activated: bool = True) -> ChainStack:
    """Models of one depth and activation, each drawn from each seed, as one stack: seed after seed of a model.

    Args:
        models: One or more.
        seeds: Of the parameters.
        activated: Whether the output is.

    Raises:
        ValueError: If there are none, or depths or activations differ.
    """
    kinds = {(model.depth, model.activation) for model in models}
    if len(kinds) != 1 or not seeds:
        raise ValueError(
            f"models: expected one or more of one depth and activation, got {sorted(kinds)}; {len(seeds)} seeds."
        )
    ((depth, activation),) = kinds
    parameters = [(draw_parameters(model.map, depth, seed), model.bias) for model in models for seed in seeds]
    weights = torch.stack([W for (W, _), _ in parameters])
    biases = torch.stack([b if bias else torch.zeros_like(b) for (_, b), bias in parameters])
    sigmas: list[nn.Module | None] = [ACTIVATIONS[activation]() for _ in range(depth)]
    return ChainStack(weights, biases, [*sigmas, ACTIVATIONS[activation]() if activated else None])


def stacks(
    models: Sequence[Model] = GRID, *, seed: int = 0, activated: bool = True
) -> Iterator[tuple[list[int], ChainStack]]:
    """All models in stacks of one depth and activation, with the places that they have among `models`."""
    places: dict[tuple[int, str], list[int]] = {}
    for place, model in enumerate(models):
        places.setdefault((model.depth, model.activation), []).append(place)
    for group in places.values():
        yield group, stack_models([models[place] for place in group], [seed], activated=activated)


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1
