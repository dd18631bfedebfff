"""Chains of dense layers with rigorous arithmetic: outward-rounded products of boxes and of their Jacobians."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fpstab.jacobian.chains import NotAChain, evaluate_chain, read_chain
from fpstab.lipschitz.extraction import sample_shape
from fpstab.maps import SelfMap, analysis_modes
from fpstab.proofs.functions import Curve, Function, function_of
from fpstab.proofs.slices import Sliced
from fpstab.rounding import TINY, UNIT, Array, Bools, gamma

Specification = tuple[Any, Any, Any]
"""A layer as (W, b, activation): W `[p, n]`; b `[p]` or `None`; a name, an activation module, or `None`."""

_SAME = 1e-10  # relative; the order of sums changes less, and another network more


class Layer:
    """x ↦ σ(Wx + b) of boxes.

    Args:
        weight: W `[p, n]`, finite.
        bias: b `[p]`, finite.
        function: σ.
    """

    def __init__(self, weight: Array, bias: Array, function: Function) -> None:
        self.weight, self.bias, self.function = np.ascontiguousarray(weight), bias, function
        self.size = np.abs(self.weight)
        n = self.weight.shape[1]
        self._g, self._up = gamma(n + 10), 1.0 + 4.0 * gamma(n + 16)
        self._bias_error = self._g * np.abs(bias)
        self._sliced: Sliced | None = None

    def product(self, mid: Array, radius: Array | None) -> tuple[Array, Array]:
        """W times all vectors within `radius` of `mid` `[…, n]`: midpoints and radii `[…, p]`.

        A sum of n products is within γ_n Σ|w||x| of the truth. The radius holds as many roundings more as to take lower
        and upper ends of the result without a thought.
        """
        slack = self._g * np.abs(mid)
        if radius is not None:
            slack += radius
        error = slack @ self.size.T
        error *= self._up
        error += TINY
        product = mid @ self.weight.T
        error += 0.0 * product  # nan where it is beyond the largest float: then nothing is said
        return product, error

    def affine(self, mid: Array, radius: Array | None) -> tuple[Array, Array]:
        """Wx + b; see `product`."""
        z, error = self.product(mid, radius)
        z += self.bias
        error += self._bias_error * self._up + 0.0 * z
        return z, error

    def affine_at(self, x: Array, error: Array) -> tuple[Array, Array]:
        """Wx + b of single vectors `[B, n]`, to a few roundings beside W times their error."""
        if self._sliced is None:
            self._sliced = Sliced(self.weight)
        rows = [self._sliced.affine(row, self.bias) for row in x]
        lost = (error @ self.size.T + np.stack([row[1] for row in rows])) * self._up + TINY
        return np.stack([row[0] for row in rows]), lost


@dataclass(frozen=True, slots=True, eq=False)
class Enclosure:
    """What is known of a map Φ on boxes.

    Attributes:
        centre: Of the boxes `[B, n]`.
        radius: Of the boxes, rounded up `[B, n]`.
        low: Lower bounds of Φ `[B, m]`: of the natural extension and the mean-value form the better one.
        high: Upper bounds of Φ.
        value: Φ(centre) in floating point `[B, m]`.
        error: What it may be wrong by.
        slope: Midpoints `[B, m, n]` of matrices S with Φ(x) − Φ(y) = S(x − y) for all x and y in a box.
        slope_radius: Their radii.
        smooth: Whether no neuron has a kink in a box `[B]`.
    """

    centre: Array
    radius: Array
    low: Array
    high: Array
    value: Array
    error: Array
    slope: Array
    slope_radius: Array
    smooth: Bools


def enclose(layers: Sequence[Layer], low: Array, high: Array, *, precise: bool = False) -> Enclosure:
    """Bounds of a chain and its Jacobians on the boxes [low, high], `[B, n]` each.

    Each layer's pre-activation is bounded twice, by interval arithmetic from the layer before it and by the mean-value form
    from the box itself. Slopes are those of chords, so kinks do no harm (Clarke's generalised Jacobian lies within). With
    `precise` the centres' values are computed with more digits, which pays for few boxes and long sums.
    """
    centre = 0.5 * (low + high)
    radius = np.maximum(high - centre, centre - low) * (1.0 + 4.0 * UNIT)
    mid, spread = centre, radius
    value, error = centre, np.zeros_like(centre)
    smooth = np.ones(len(centre), dtype=bool)
    S = R = np.empty(0)  # slopes of what came before: [B, n, p], transposed so that a layer is one product
    for number, layer in enumerate(layers):
        z, e = layer.affine(mid, spread)
        z_low, z_high = z - e, z + e
        if number == 0:
            c, c_error = layer.affine_at(centre, error) if precise else (z, layer.affine(centre, None)[1])
            M, M_size, M_radius = layer.weight.T[None], layer.size.T[None], None
        else:
            c, c_error = layer.affine_at(value, error) if precise else layer.affine(value, error)
            M, M_radius = layer.product(S, R)
            M_size = np.abs(M)
            reach = _reach(M_size, M_radius, radius, c, c_error)
            z_low, z_high = np.fmax(z_low, c - reach), np.fmin(z_high, c + reach)
        # slopes are those of chords within the interval: the computed centre may lie beside it
        c = np.clip(c, z_low, z_high)
        response = layer.function.respond(z_low, z_high)
        if not isinstance(layer.function, Curve):
            smooth &= (response.least == response.largest).all(1)
        slope, slope_spread = _middle(response.least, response.largest)
        largest = np.maximum(np.abs(response.least), np.abs(response.largest))
        value, lost = layer.function.at(c)
        error = largest * c_error * (1.0 + 4.0 * UNIT) + lost
        S = slope[:, None, :] * M
        R = (slope_spread + 2.0 * UNIT * np.abs(slope))[:, None, :] * M_size
        if M_radius is not None:
            R += largest[:, None, :] * M_radius
        R *= 1.0 + 16.0 * UNIT
        R += TINY
        value_low, value_high = response.low, response.high
        mid, spread = _middle(value_low, value_high)
    reach = _reach(np.abs(S), R, radius, value, error)
    return Enclosure(
        centre,
        radius,
        np.fmax(value_low, value - reach),
        np.fmin(value_high, value + reach),
        value,
        error,
        S.swapaxes(1, 2),
        R.swapaxes(1, 2),
        smooth,
    )


def _reach(size: Array, size_radius: Array, radius: Array, value: Array, error: Array) -> Array:
    """How far values get from those at the centre, with room to take the ends of the interval `[B, p]`."""
    n = radius.shape[1]
    total = error + 2.0 * UNIT * np.abs(value)
    if n <= 4:
        for j in range(n):
            total += (size[:, j] + size_radius[:, j]) * radius[:, j, None]
    else:
        total += (radius[:, None, :] @ (size + size_radius))[:, 0]
    total *= 1.0 + 4.0 * gamma(n + 8)
    total += TINY
    return total


def _middle(low: Array, high: Array) -> tuple[Array, Array]:
    """Midpoints and radii; the radius of a point is 0."""
    mid = 0.5 * (low + high)
    return mid, np.maximum(high - mid, mid - low) * (1.0 + 4.0 * UNIT)


class NotProvable(ValueError):  # noqa: N818
    """Not a network that proofs are known for; `code` is that of the status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_layers(map: SelfMap | nn.Module | Sequence[Specification]) -> list[Layer]:  # noqa: A002
    """The layers of a network that maps a space to itself, as real numbers: the stored weights, exactly.

    Args:
        map: A module (in evaluation mode, whatever it is in), a `SelfMap`, or layers (W, b, activation).

    Raises:
        NotProvable: If the network is no chain of dense layers and activations, has an activation without enclosure, or a
            weight that is nan or infinite.
        ValueError: If widths do not fit, or input and output differ in size.
        TypeError: If it is none of these.
    """
    if isinstance(map, SelfMap):
        layers = _of_map(map)
    elif isinstance(map, nn.Module):
        for name, parameter in map.named_parameters():
            _require_finite(name, parameter)
        with analysis_modes():
            layers = _of_map(SelfMap(map, torch.zeros(1, *sample_shape(map))))
    elif isinstance(map, Sequence) and not isinstance(map, str):
        layers = _of_list(map)
    elif callable(map):
        raise NotProvable(
            "not_a_chain", "A function cannot be looked into: give a module, or its layers as (W, b, activation)."
        )
    else:
        raise TypeError(
            f"A {type(map).__name__} is no network: expected a module, a SelfMap, or layers (W, b, activation)."
        )
    n_in, n_out = layers[0].weight.shape[1], len(layers[-1].weight)
    if n_in != n_out:
        raise ValueError(
            f"Fixed points need a map of a space to itself, but the network maps {n_in} values to {n_out}."
        )
    return layers


def _of_map(map: SelfMap) -> list[Layer]:  # noqa: A002
    map.require_square("Fixed points")
    x = torch.randn(4, map.n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(map.device)
    try:
        chain = read_chain(map._call, map.unflatten(x).clone())
    except NotAChain as error:
        raise NotProvable("not_a_chain", f"{map.name} is no chain of dense layers and activations: {error}.") from None
    with torch.no_grad():
        expected, value = map(x), evaluate_chain(chain, x)
    for name, parameter in getattr(map._call, "named_parameters", tuple)():
        _require_finite(name, parameter)
    layers = [
        _layer(each.weight, each.bias, each.activation, f"layer {number}") for number, each in enumerate(chain, 1)
    ]
    # hooks, arguments and outputs that the reading does not see
    if value.shape != expected.shape or not float((value - expected).abs().max()) <= _SAME * float(
        expected.abs().max() + 1.0
    ):
        raise NotProvable("not_a_chain", f"{map.name} computes something else than its layers.")
    return layers


def _of_list(specifications: Sequence[Specification]) -> list[Layer]:
    layers: list[Layer] = []
    for number, entry in enumerate(specifications, 1):
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 3:
            raise TypeError(f"layer {number}: expected (W, b, activation), got {type(entry).__name__}.")
        layers.append(_layer(*entry, name=f"layer {number}"))
        if number > 1 and layers[-1].weight.shape[1] != len(layers[-2].weight):
            raise ValueError(
                f"layer {number} takes {layers[-1].weight.shape[1]} values, layer {number - 1} gives {len(layers[-2].weight)}."
            )
    if not layers:
        raise ValueError("No layers: expected at least one (W, b, activation).")
    return layers


def _layer(weight: Any, bias: Any, activation: Any, name: str) -> Layer:
    W = _array(weight)
    if W.ndim != 2 or not W.size:
        raise ValueError(f"{name}: expected a matrix W [p, n], got shape {list(W.shape)}.")
    b = np.zeros(len(W)) if bias is None else _array(bias)
    if b.shape != (len(W),):
        raise ValueError(f"{name}: expected a bias of shape [{len(W)}], got {list(b.shape)}.")
    _require_finite(f"W of {name}", W)
    _require_finite(f"b of {name}", b)
    try:
        return Layer(W, b, function_of(activation, len(W)))
    except ValueError as error:
        raise NotProvable("unsupported", f"{name}: {error}.") from None


def _array(values: Any) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64)


def _require_finite(name: str, values: Any) -> None:
    finite = bool(values.isfinite().all()) if isinstance(values, Tensor) else bool(np.isfinite(values).all())
    if not finite:
        message = f"{name} is not finite: nothing can be proved of a network with nan or infinite weights."
        raise NotProvable("nonfinite", message)
