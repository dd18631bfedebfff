"""Random networks of papers 1 and 2: many of one architecture, drawn and evaluated as one batch."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules import activation as torch_activations

from fpstab.activations import is_activation
from fpstab.ensembles.distributions import Draw, distribution_of
from fpstab.ensembles.init import Scale

Bias = Literal["same", "unit", "none"]
"""Biases of the weights' scale, of scale 1, or none."""

_SCALES = ("1/fan_in", "1/fan_out", "1/sqrt_fan_in")


class Elementwise(nn.Module):
    """An elementwise function of torch as a layer, for those that `torch.nn` has none of (erf, sin, atan, …)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every number of `x` `[...]`."""
        return self.function(x)

    def extra_repr(self) -> str:
        """The function's name."""
        return self.function.__name__


@dataclass(frozen=True, slots=True)
class RandomNetworks:
    """The law of a random network of papers 1 (§IV) and 2 (§III), `dim → width → … → width → dim`.

    Layer l maps x to φ(W x + b), the last one too. Weights and biases are independent; the defaults are the papers'
    model of trained networks. What the papers leave open is an option: which fan the scale is, and the biases (their
    dimension is printed as the layer's input's, which does not fit; here it is the output's).

    Attributes:
        depth: Layers L, 1 or more.
        width: Of the L − 1 hidden layers.
        dim: Of input and output.
        distribution: `"cauchy"`, `"normal"`, `"uniform"`, `"student-t(ν)"` or `"stable(α)"`, see `scale`.
        activation: An elementwise activation of `torch.nn` or function of torch that `fpstab.activations` knows, by its
            name, e.g. `"hardtanh"`, `"LeakyReLU"`, `"erf"`.
        bias: `"same"`: of the weights' distribution and scale; `"unit"`: of scale 1; `"none"`.
        scale: `"1/fan_in"`, `"1/fan_out"`, `"1/sqrt_fan_in"`, or a number for all layers. It is the standard deviation
            of normal and uniform weights, half the distance of the quartiles of Cauchy weights, and the factor of a
            variable of Student's t or of characteristic function exp(−|t|^α) (so that α = 1 is Cauchy).

    Raises:
        ValueError: If an attribute is out of range or unknown; says what was given and what is expected.
        TypeError: If a size is not an integer.

    >>> networks = RandomNetworks(depth=3, width=4).sample(5, torch.Generator().manual_seed(0))
    >>> networks(torch.zeros(5, 7, 2)).shape
    torch.Size([5, 7, 2])
    """

    depth: int
    width: int = 100
    dim: int = 2
    distribution: str = "cauchy"
    activation: str = "hardtanh"
    bias: Bias = "same"
    scale: Scale | float = "1/fan_in"

    def __post_init__(self) -> None:
        for name in ("depth", "width", "dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"RandomNetworks: {name}={value!r}; expected an integer of 1 or more.")
            if value < 1:
                raise ValueError(f"RandomNetworks: {name}={value}; expected an integer of 1 or more.")
        distribution_of(self.distribution)
        activation_module(self.activation)
        if self.bias not in ("same", "unit", "none"):
            raise ValueError(f"RandomNetworks: bias={self.bias!r}; expected 'same', 'unit' or 'none'.")
        if isinstance(self.scale, str):
            if self.scale not in _SCALES:
                raise ValueError(f"RandomNetworks: scale={self.scale!r}; expected one of {_SCALES} or a number.")
        elif isinstance(self.scale, bool) or not 0 < self.scale < math.inf:
            raise ValueError(f"RandomNetworks: scale={self.scale!r}; expected a positive, finite number.")

    @property
    def widths(self) -> tuple[int, ...]:
        """n_0, …, n_L."""
        return (self.dim, *[self.width] * (self.depth - 1), self.dim)

    @property
    def scales(self) -> tuple[float, ...]:
        """The scale of each layer's weights."""
        return tuple(self._scale(n_in, n_out) for n_in, n_out in pairwise(self.widths))

    def sample(self, count: int, generator: Generator) -> "RandomNetworkBatch":
        """Draw networks one after the other, so that the first ones do not depend on how many are drawn.

        Args:
            count: How many, 1 or more.
            generator: Source of randomness; the networks lie on its device.

        Raises:
            ValueError: If there is nothing to draw.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"RandomNetworks.sample: count={count!r}; expected an integer of 1 or more.")
        return self._batch(generator for _ in range(count))

    def from_seeds(self, seeds: Iterable[int]) -> "RandomNetworkBatch":
        """Draw a network from each seed: a realisation then has a name, whatever it is drawn together with.

        Args:
            seeds: Of generators on the CPU.

        Raises:
            ValueError: If there is none.

        >>> law, seven = RandomNetworks(2), torch.Generator().manual_seed(7)
        >>> bool((law.from_seeds([3, 7]).weights[0][1] == law.sample(1, seven).weights[0][0]).all())
        True
        """
        given = list(seeds)
        if not given:
            raise ValueError("RandomNetworks.from_seeds: no seeds; expected one or more.")
        return self._batch(Generator().manual_seed(seed) for seed in given)

    def _batch(self, generators: Iterable[Generator]) -> "RandomNetworkBatch":
        shapes = list(zip(self.widths[1:], self.widths[:-1], strict=True))
        sizes = [rows * columns + (0 if self.bias == "none" else rows) for rows, columns in shapes]
        draw: Draw = distribution_of(self.distribution)
        drawn = torch.stack([draw(sum(sizes), generator) for generator in generators])
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for part, (rows, columns), scale in zip(torch.split(drawn, sizes, 1), shapes, self.scales, strict=True):
            weights.append(scale * part[:, : rows * columns].reshape(-1, rows, columns))
            if self.bias != "none":
                biases.append((scale if self.bias == "same" else 1.0) * part[:, rows * columns :])
        return RandomNetworkBatch(tuple(weights), tuple(biases), self.activation)

    def _scale(self, n_in: int, n_out: int) -> float:
        if isinstance(self.scale, str):
            return {"1/fan_in": 1 / n_in, "1/fan_out": 1 / n_out, "1/sqrt_fan_in": 1 / math.sqrt(n_in)}[self.scale]
        return float(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class RandomNetworkBatch:
    """Networks of one architecture, each with weights of its own, evaluated together: one batched product a layer.

    Attributes:
        weights: Of each layer `[count, n_{l+1}, n_l]`, float64.
        biases: Of each layer `[count, n_{l+1}]`; empty if there are none.
        activation: After every layer, by name.

    Raises:
        ValueError: If the shapes do not chain, or the numbers of networks differ.

    >>> double = RandomNetworkBatch((2 * torch.eye(2, dtype=torch.float64)[None],), (), "hardtanh")
    >>> double(torch.tensor([[[0.25, 0.75]]], dtype=torch.float64))
    tensor([[[0.5000, 1.0000]]], dtype=torch.float64)
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...] = ()
    activation: str = "hardtanh"

    def __post_init__(self) -> None:
        activation_module(self.activation)
        shapes = [tuple(weight.shape) for weight in self.weights]
        if not shapes or any(len(shape) != 3 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"RandomNetworkBatch: weights of shapes {shapes}; expected [count, n_out, n_in] a layer.")
        for l, (before, after) in enumerate(pairwise(shapes), 1):  # noqa: E741
            if after[2] != before[1]:
                raise ValueError(
                    f"RandomNetworkBatch: layer {l} takes {after[2]} values, layer {l - 1} gives {before[1]}."
                )
        given = [tuple(bias.shape) for bias in self.biases]
        if given and given != [shape[:2] for shape in shapes]:
            raise ValueError(f"RandomNetworkBatch: biases of shapes {given}; expected {[s[:2] for s in shapes]}.")

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """n_0, …, n_L."""
        return (self.weights[0].shape[2], *(weight.shape[1] for weight in self.weights))

    def __call__(self, x: Tensor) -> Tensor:
        """Apply network i to the points `x[i]`: `[count, B, n_0] → [count, B, n_L]`, without a graph.

        Raises:
            ValueError: If `x` has another shape.
        """
        self._check(x)
        act = activation_module(self.activation)
        if hasattr(act, "inplace"):
            setattr(act, "inplace", True)  # noqa: B010 - on the fresh output of a product
        with torch.no_grad():
            for weight, bias in self.layers():
                x = act(_affine(weight, bias, x))
        return x

    def jacobian(self, x: Tensor) -> Tensor:
        """The Jacobian of network i at the points `x[i]`: `[count, B, n_0] → [count, B, n_L, n_0]`.

        At a kink of the activation it is what torch's derivative makes of it (0 for HardTanh at ±1).

        Raises:
            ValueError: If `x` has another shape.
        """
        self._check(x)
        act = activation_module(self.activation)
        count, points, n = x.shape
        J = torch.eye(n, dtype=x.dtype, device=x.device).expand(count, points, n, n)
        for weight, bias in self.layers():
            with torch.enable_grad():
                z = _affine(weight, bias, x).detach().requires_grad_()
                y = act(z)
                (slope,) = torch.autograd.grad(y.sum(), z)
            x = y.detach()
            columns = J.transpose(1, 2).reshape(count, J.shape[2], points * n)
            J = slope[..., None] * torch.bmm(weight, columns).reshape(count, -1, points, n).transpose(1, 2)
        return J

    def network(self, i: int) -> nn.Sequential:
        """Network i as a module of its own, float64, in eval mode.

        Raises:
            IndexError: If there is none.
        """
        layers: list[nn.Module] = []
        for weight, bias in self.layers():
            rows, columns = weight.shape[1:]
            linear = nn.Linear(columns, rows, bias=bias is not None, dtype=weight.dtype, device=weight.device)
            with torch.no_grad():
                linear.weight.copy_(weight[i])
                if bias is not None:
                    linear.bias.copy_(bias[i])
            layers += [linear, activation_module(self.activation)]
        return nn.Sequential(*layers).eval()

    def take(self, rows: Tensor | slice) -> "RandomNetworkBatch":
        """Some of the networks: a copy for indices `[k]`, a view for a slice."""
        weights = tuple(weight[rows] for weight in self.weights)
        return RandomNetworkBatch(weights, tuple(bias[rows] for bias in self.biases), self.activation)

    def layers(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each layer, first to last."""
        return list(zip(self.weights, self.biases or [None] * len(self.weights), strict=True))

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[0] != len(self) or x.shape[2] != self.widths[0]:
            raise ValueError(
                f"RandomNetworkBatch: points of shape {tuple(x.shape)}; expected [{len(self)}, B, {self.widths[0]}]."
            )


def activation_module(name: str) -> nn.Module:
    """A new module, float64 and in eval mode, of an activation by its name, in any case, with or without underscores.

    Raises:
        ValueError: If no elementwise activation of this name is known; lists the names.

    >>> activation_module("leaky_relu"), activation_module("erf")
    (LeakyReLU(negative_slope=0.01), Elementwise(erf))
    """
    key = name.lower().replace("_", "") if isinstance(name, str) else ""
    known = _activations()
    if key not in known:
        raise ValueError(f"No elementwise activation is named {name!r}; choose one of {', '.join(sorted(known))}.")
    return known[key]().double().eval()


@lru_cache(maxsize=1)
def _activations() -> dict[str, Callable[[], nn.Module]]:
    known: dict[str, Callable[[], nn.Module]] = {}
    for name in ("Identity", *torch_activations.__all__):
        cls = getattr(nn, name)
        try:
            if is_activation(cls()):
                known[name.lower()] = cls
        except TypeError:  # needs arguments, e.g. Threshold
            continue
    for name in ("abs", "atan", "cos", "erf", "sin"):
        function = getattr(torch, name)
        if is_activation(function):
            known[name] = lambda function=function: Elementwise(function)  # type: ignore[misc]
    return known


def _affine(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    x = x.to(weight)
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
