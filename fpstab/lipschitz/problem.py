"""What a Lipschitz bound is about: weights, and the slopes that lie between them. Biases play no part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Slopes = tuple[ArrayLike | Tensor, ArrayLike | Tensor]
"""(α, β): every difference quotient of the activation lies in [α, β]. Numbers, or one a neuron."""


@dataclass(frozen=True, slots=True, eq=False)
class Feedforward:
    """f(x) = W_L φ_{L−1}(W_{L−1} … φ_1(W_1 x)), with activations that act on single neurons.

    Weights and slopes may be given as anything that torch or numpy calls a real array; they are kept as
    detached float64 tensors on the CPU. (A float32 weight is a float64 one, exactly.)

    Attributes:
        weights: (W_1, …, W_L), W_i of shape `[n_i, n_{i−1}]`, finite.
        slopes: L−1 pairs (α, β), one for each hidden layer, each `[n_i]`: the difference quotients of neuron
            k's activation lie in [α_k, β_k]. A number stands for all neurons of a layer.
        names: The weights' names for messages; `"0"`, `"1"`, … if none are given.

    Raises:
        ValueError: If a weight is not a finite real matrix, shapes do not chain, or α > β; names the layer.
        TypeError: If a weight is integer, boolean or complex.

    >>> net = Feedforward((torch.eye(2), torch.ones(1, 2)), ((0.0, 1.0),))
    >>> net.sizes, net.slopes[0][1].tolist()
    ((2, 2, 1), [1.0, 1.0])
    """

    weights: tuple[Tensor, ...]
    slopes: tuple[tuple[Tensor, Tensor], ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(self.names) or tuple(str(index) for index in range(len(self.weights)))
        if not self.weights:
            raise ValueError("A network needs at least one weight; got none.")
        if len(names) != len(self.weights):
            raise ValueError(f"{len(names)} names for {len(self.weights)} weights: expected one each.")
        weights = tuple(
            matrix(weight, f"the weight of layer {name!r}") for weight, name in zip(self.weights, names, strict=True)
        )
        for index in range(1, len(weights)):
            if weights[index].shape[1] != weights[index - 1].shape[0]:
                raise ValueError(
                    f"Layer {names[index]!r} takes {weights[index].shape[1]} inputs, but layer "
                    f"{names[index - 1]!r} gives {weights[index - 1].shape[0]} outputs."
                )
        if len(self.slopes) != len(weights) - 1:
            raise ValueError(
                f"{len(self.slopes)} pairs of slopes for {len(weights)} weights: expected {len(weights) - 1}, "
                "one (alpha, beta) between each two weights."
            )
        slopes = tuple(
            slope_pair(pair, weight.shape[0], f"the activation after layer {name!r}")
            for pair, weight, name in zip(self.slopes, weights, names, strict=False)
        )
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "slopes", slopes)
        object.__setattr__(self, "names", names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """(n_0, n_1, …, n_L)."""
        return (self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights))


@dataclass(frozen=True, slots=True, eq=False)
class General:
    """y = σ(A y + B x + b), out = C y + D x + d, with an activation that acts on single neurons.

    With A strictly block-lower this is a feedforward or a residual network; with a general A it is an
    implicit layer (deep equilibrium), and a certified bound also proves that its equilibrium is unique.
    Arrays are taken and kept as by `Feedforward`.

    Attributes:
        A: `[m, m]`.
        B: `[m, n_in]`.
        C: `[n_out, m]`.
        D: `[n_out, n_in]`.
        alpha: `[m]` least difference quotients of the activations.
        beta: `[m]` largest ones.
        implicit: Whether y is defined by an equation. If False, A must be strictly block-lower.
        layers: How many consecutive neurons belong to each layer (the form `"layer"` gives each one
            multiplier; the blocks of a strictly block-lower A); all m in one if none are given.
        names: A name a layer, for messages; `"0"`, `"1"`, … if none are given.

    Raises:
        ValueError: If an array is not finite, shapes do not fit, α > β, `layers` does not add up to m, or
            `implicit` is False and A is not strictly block-lower.
        TypeError: If an array is integer, boolean or complex.

    >>> block = General([[0.0]], [[1.0]], [[-1.0]], [[1.0]], 0.0, 1.0, implicit=False)  # x - relu(x)
    >>> block.n_in, block.n_hidden, block.n_out
    (1, 1, 1)
    """

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    alpha: Tensor
    beta: Tensor
    implicit: bool = False
    layers: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("A", "B", "C", "D"):
            object.__setattr__(self, name, matrix(getattr(self, name), name))
        (m, m1), (m2, n_in), (n_out, m3), (p, n) = self.A.shape, self.B.shape, self.C.shape, self.D.shape
        if (m1, m2, m3, p, n) != (m, m, m, n_out, n_in):
            raise ValueError(
                f"A {tuple(self.A.shape)}, B {tuple(self.B.shape)}, C {tuple(self.C.shape)} and "
                f"D {tuple(self.D.shape)} do not fit: expected [m, m], [m, n_in], [n_out, m], [n_out, n_in]."
            )
        alpha, beta = slope_pair((self.alpha, self.beta), m, "the activation")
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "beta", beta)
        layers = tuple(self.layers) or (m,)
        if sum(layers) != m or any(size < 1 for size in layers):
            raise ValueError(f"layers={layers} do not add up to the {m} neurons.")
        names = tuple(self.names) or tuple(str(index) for index in range(len(layers)))
        if len(names) != len(layers):
            raise ValueError(f"{len(names)} names for {len(layers)} layers: expected one each.")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "names", names)
        if not self.implicit and bool(torch.triu(self.A).count_nonzero()):
            raise ValueError(
                "A has entries on or above its diagonal, so y is defined by an equation: order the neurons "
                "so that each depends on earlier ones only, or say implicit=True."
            )

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.B.shape[1]

    @property
    def n_hidden(self) -> int:
        """Number of neurons."""
        return self.A.shape[0]

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.C.shape[0]


Problem = Feedforward | General


def feedforward(
    weights: Sequence[ArrayLike | Tensor], slopes: str | Slopes | Sequence[Slopes], names: tuple[str, ...] = ()
) -> Feedforward:
    """A `Feedforward` from weights and either one pair of slopes for all layers or one pair a layer.

    Raises:
        ValueError: As `Feedforward`; and if there are hidden layers but `slopes` is `"auto"`: weights do not
            tell which activations lie between them, and a guess would make the bound worthless.
    """
    n_hidden = len(weights) - 1
    if isinstance(slopes, str):
        if slopes != "auto":
            raise ValueError(f"slopes={slopes!r} is unknown: expected 'auto', (alpha, beta), or one pair a layer.")
        if n_hidden > 0:
            raise ValueError(
                "slopes='auto' reads the slopes from a module's activations; weights alone do not tell them. "
                "Pass slopes=(alpha, beta), e.g. (0, 1) for ReLU and Tanh, (0, 0.25) for Sigmoid."
            )
        return Feedforward(tuple(weights), (), names)  # type: ignore[arg-type]
    if len(slopes) == 2 and all(np.ndim(one) == 0 for one in slopes):  # type: ignore[arg-type]
        return Feedforward(tuple(weights), (tuple(slopes),) * max(n_hidden, 0), names)  # type: ignore[arg-type]
    return Feedforward(tuple(weights), tuple(tuple(pair) for pair in slopes), names)  # type: ignore[arg-type]


def matrix(array: ArrayLike | Tensor, what: str) -> Tensor:
    """A finite real matrix as a detached float64 tensor on the CPU; `what` names it in the errors."""
    tensor = _float64(array, what)
    if tensor.ndim != 2:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}: expected a matrix.")
    if 0 in tensor.shape:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}: expected at least one row and one column.")
    return tensor


def slope_pair(pair: Slopes, n: int, what: str) -> tuple[Tensor, Tensor]:
    """(α, β) as two float64 tensors `[n]`, with α ≤ β."""
    if len(pair) != 2:
        raise ValueError(f"The slopes of {what} are {len(pair)} numbers: expected a pair (alpha, beta).")
    both = []
    for one, name in zip(pair, ("alpha", "beta"), strict=True):
        tensor = _float64(one, f"{name} of {what}", integers=True)
        if tensor.ndim > 1 or tensor.numel() not in (1, n):
            raise ValueError(f"{name} of {what} has shape {tuple(tensor.shape)}: expected a number or [{n}].")
        both.append(tensor.reshape(-1).expand(n).clone())
    alpha, beta = both
    if bool((alpha > beta).any()):
        k = int((alpha > beta).nonzero()[0])
        raise ValueError(
            f"The slopes of {what} have alpha = {alpha[k]:g} > beta = {beta[k]:g}: expected alpha <= beta."
        )
    return alpha, beta


def _float64(array: ArrayLike | Tensor, what: str, integers: bool = False) -> Tensor:
    tensor = array.detach() if isinstance(array, Tensor) else torch.as_tensor(np.array(array))
    if tensor.is_meta:
        raise ValueError(f"{what} is on the meta device: it has a shape but no values.")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if not tensor.is_floating_point() and not (integers and not tensor.is_complex()):
        raise TypeError(f"{what} has dtype {tensor.dtype}: expected real floating-point numbers.")
    tensor = tensor.cpu().to(torch.float64, copy=True)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{what} has {bad} NaN or infinite values among {tensor.numel()}.")
    return tensor
