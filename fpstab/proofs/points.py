"""One fixed point, proved: that it exists, where it is alone, and whether it attracts. In any dimension."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fpstab.maps import SelfMap
from fpstab.proofs.boxes import refined
from fpstab.proofs.eigenvalues import Kind, stability
from fpstab.proofs.krawczyk import krawczyk
from fpstab.proofs.networks import Enclosure, Layer, NotProvable, Specification, enclose, read_layers
from fpstab.results import AnalysisError, Status
from fpstab.rounding import Array, Ball, up

_NEWTON, _HALVINGS = 40, 8  # steps from the given point at most, and how often one is halved
_NARROW = 0.8  # a layer narrower than this share of the input is worth going to
_FIRST, _FAR, _TRIES = (
    1e-6,
    1e9,
    10,
)  # relative radius of uniqueness to begin with, the largest, and how often it is changed
_PROMISED = 0.9  # the rate that is hoped for


@dataclass(frozen=True, slots=True, eq=False)
class PointCertificate:
    """What is proved of a fixed point x* of a map Φ near a given point, in real arithmetic with the stored weights.

    Attributes:
        holds: Whether it is proved that Φ has a fixed point x* in the enclosure, and no other one within `unique_radius` of
            `centre` in any coordinate (so none in the Euclidean ball of that radius).
        kind: `"stable"` if it is proved that ρ(J(x*)) < 1, so that x* attracts all orbits that begin near it;
            `"unstable"` if ρ(J(x*)) > 1; else `"unknown"`.
        centre: Midpoint of the enclosure `[n]`.
        enclosure: Its corners `[2, n]`; nan where nothing is proved.
        radius: The largest half-width of the enclosure: how far `centre` is from x* in any coordinate, at most.
        unique_radius: See `holds`; 0 where nothing is proved.
        distance: How far the given point is from x* in any coordinate, at most; inf where nothing is proved.
        inner_dimension: In how many dimensions the proof was done: the width of the network's narrowest layer.
        status: `"ok"`; `"not_proved"` (the message says why); only with `throw=False` `"not_a_chain"`, `"unsupported"`,
            `"nonfinite"`.
    """

    holds: bool
    kind: Kind
    centre: Tensor
    enclosure: Tensor
    radius: float
    unique_radius: float
    distance: float
    inner_dimension: int
    status: Status

    def scalars(self) -> dict[str, float]:
        """What a monitor logs; infinite where nothing is proved."""
        return {
            "holds": float(self.holds),
            "stable": float(self.kind == "stable"),
            "unstable": float(self.kind == "unstable"),
            "radius": self.radius,
            "unique_radius": self.unique_radius,
            "distance": self.distance,
        }


def certify_fixed_point(
    map: SelfMap | nn.Module | Sequence[Specification],  # noqa: A002
    point: Tensor | ArrayLike,
    *,
    throw: bool = True,
) -> PointCertificate:
    """Prove that a network has a fixed point near a point, that it is the only one in a ball, and what its stability is.

    Newton's method goes to the fixed point, then the Krawczyk operator with outward rounding proves it (Rump's ε-inflation), and
    the largest box that it maps into its interior is looked for. Where a layer is narrower than the input the proof is about the map
    of that layer's values: with Φ = D∘E, x ↦ E(x) takes the fixed points of D∘E one to one to those of E∘D, and the eigenvalues other
    than 0 are the same. This says nothing about other fixed points; `prove_fixed_points` counts all, in few dimensions.

    Args:
        map: A module or a `SelfMap` that is a chain of dense layers and elementwise activations; or layers
            (W, b, activation), see `prove_fixed_points`.
        point: Where to look, of n values in any shape: a fixed point up to some error.
        throw: Raise where nothing at all can be proved of such a network. A point that is not proved is never raised.

    Raises:
        ValueError: If the point has another size or is not finite, or as in `prove_fixed_points`.
        TypeError: If `map` is no network.
        AnalysisError: If the map is no chain, or has an activation without enclosure or a weight that is not finite; the message
            names it.

    >>> certificate = certify_fixed_point([([[2.0]], None, "tanh")], [0.9])
    >>> certificate.holds, certificate.kind, round(float(certificate.centre), 10), certificate.radius < 1e-14
    (True, 'stable', 0.9575040241, True)
    """
    given = torch.as_tensor(point, dtype=torch.float64).detach().cpu().reshape(-1).numpy().copy()
    try:
        layers = read_layers(map)
    except NotProvable as error:
        status = Status(error.code, str(error))
        if throw:
            raise AnalysisError(status) from None
        return _refused(given, 0, status)
    n = layers[0].weight.shape[1]
    if given.shape != (n,):
        raise ValueError(f"point: expected {n} values, got {given.size}.")
    if not np.isfinite(given).all():
        raise ValueError("point: expected finite values.")
    # a cyclic shift of the chain that begins at the narrowest layer
    widths = [layer.weight.shape[1] for layer in layers]
    first = int(np.argmin(widths))
    first = first if widths[first] < _NARROW * n else 0
    encoder, decoder = layers[:first], layers[first:]
    chain = [*decoder, *encoder]
    with np.errstate(all="ignore"):
        start = _values(encoder, given)
        code = _newton(chain, start)
        inner = _prove(chain, code)
        if isinstance(inner, str):
            return _refused(given, widths[first], Status("not_proved", inner))
        low, high = refined(chain, inner.low, inner.high, rounds=2, precise=True)
        kind = _kind(chain, low, high)
        outer = enclose(decoder, low, high, precise=True) if encoder else None
        x_low, x_high = (low, high) if outer is None else (outer.low, outer.high)
        unique_low, unique_high = _largest(chain, 0.5 * (low + high), inner)
        centre = (0.5 * (x_low + x_high))[0]
        radius = up(float(np.maximum(x_high - centre, centre - x_low).max()))
        reach = _pulled_back(encoder, centre, unique_low, unique_high)
    if not reach > radius:
        reason = "a fixed point exists, but the ball in which it is alone is no larger than its enclosure"
        return _refused(given, widths[first], Status("not_proved", reason))
    distance = float(np.maximum(np.abs(x_high - given), np.abs(given - x_low)).max())
    return PointCertificate(
        holds=True,
        kind=kind,
        centre=torch.from_numpy(centre),
        enclosure=torch.from_numpy(np.concatenate((x_low, x_high))),
        radius=radius,
        unique_radius=reach,
        distance=up(distance, 2),
        inner_dimension=widths[first],
        status=Status(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Proved:
    """An enclosure `[1, m]` of a fixed point, and the box in which it was shown to be alone."""

    low: Array
    high: Array
    unique_low: Array
    unique_high: Array


def _values(layers: Sequence[Layer], x: Array) -> Array:
    """In floating point `[m]`."""
    for layer in layers:
        x = layer.function.at((layer.weight @ x + layer.bias)[None])[0][0]
    return x


def _newton(chain: Sequence[Layer], x: Array) -> Array:
    """A fixed point to rounding, if Newton's method with halved steps finds one from here; else the best point it saw."""
    value, J = _linearised(chain, x)
    for _ in range(_NEWTON):
        residual = value - x
        size = float(np.linalg.norm(residual))
        try:
            step = np.linalg.solve(np.eye(len(x)) - J, residual)
        except np.linalg.LinAlgError:
            break
        if not np.isfinite(step).all():
            break
        share = 1.0
        for _ in range(_HALVINGS):
            trial = x + share * step
            if float(np.linalg.norm(_values(chain, trial) - trial)) < (1.0 - 0.25 * share) * size:
                break
            share *= 0.5
        else:
            break  # at rounding, or nowhere to go
        x = x + share * step
        value, J = _linearised(chain, x)
    return x


def _linearised(chain: Sequence[Layer], x: Array) -> tuple[Array, Array]:
    """Φ(x) `[m]` and a slope matrix `[m, m]`, in floating point."""
    J = np.eye(len(x))
    for layer in chain:
        z = (layer.weight @ x + layer.bias)[None]
        response = layer.function.respond(z, z)
        J = (0.5 * (response.least + response.largest))[0][:, None] * (layer.weight @ J)
        x = layer.function.at(z)[0][0]
    return x, J


def _prove(chain: Sequence[Layer], code: Array) -> _Proved | str:
    """Inflate an estimate of the error until the Krawczyk operator maps the box into its interior."""
    image = enclose(chain, code[None], code[None], precise=True)
    K = krawczyk(image)
    if not np.isfinite(K.low).all():
        return "I − J is singular at the point to rounding, or values overflow: the fixed point is not isolated, or a double one"
    off = np.maximum(np.abs(K.low - code), np.abs(K.high - code))
    floor = 1e-15 * (1.0 + np.abs(code)[None])
    half = 2.0 * off + floor
    for _ in range(6):
        low, high = code - half, code + half
        K = krawczyk(enclose(chain, low, high, precise=True))
        if ((low < K.low) & (K.high < high)).all():
            return _Proved(K.low, K.high, low, high)
        half = 2.0 * np.maximum(np.abs(K.low - code), np.abs(K.high - code)) + floor
        if not np.isfinite(half).all():
            break
    residual = float(np.abs(image.value - image.centre).max())
    return (
        f"no box around the point that Newton's method reached (its residual is {residual:.3g}) is mapped into itself by the "
        "Krawczyk operator: there is no fixed point near it, it is a double one, or slopes jump there"
    )


def _largest(chain: Sequence[Layer], middle: Array, inner: _Proved) -> tuple[Array, Array]:
    """The largest box around `middle` `[1, m]`, of equal sides, in which the fixed point is shown to be alone."""
    best = (inner.unique_low, inner.unique_high)
    scale = 1.0 + float(np.abs(middle).max())
    inner_radius = float((inner.high - inner.low).max()) / 2
    good, bad, radius = 0.0, math.inf, _FIRST * scale
    for _ in range(_TRIES):
        low, high = middle - radius, middle + radius
        K = krawczyk(enclose(chain, low, high))
        if ((low < K.low) & (K.high < high) & (low <= inner.low) & (inner.high <= high)).all():
            good, best = radius, (low, high)
        else:
            bad = radius
        if bad < 1.7 * good or good > _FAR * scale or bad < 2.0 * inner_radius:
            break
        if good > 0.0 and bad < math.inf:
            radius = math.sqrt(good * bad)
        else:
            # the rate grows about in proportion to the radius
            rate = float(K.rate[0])
            radius *= min(max(_PROMISED / rate, 1e-3), 1e4) if rate > 0.0 else 1e4 if rate == 0.0 else 1e-2
            radius = min(radius, 0.5 * bad) if good == 0.0 and bad < math.inf else max(radius, 2.0 * good)
    return best


def _pulled_back(encoder: Sequence[Layer], centre: Array, low: Array, high: Array) -> float:
    """A radius around `centre` `[n]` that the encoder maps into a box [low, high] `[1, m]`."""
    if not encoder:
        return float(min((high - centre).min(), (centre - low).min())) * (1.0 - 1e-15)

    def fits(radius: float) -> Enclosure | None:
        image = enclose(encoder, (centre - radius)[None], (centre + radius)[None])
        return image if ((low <= image.low) & (image.high <= high)).all() else None

    image = enclose(encoder, centre[None], centre[None])
    room = np.minimum(high - image.high, image.low - low)[0]
    steep = (np.abs(image.slope) + image.slope_radius).sum(2)[0]
    radius = float((room / np.maximum(steep, 1e-300)).min())
    if not radius > 0.0:
        return 0.0
    for factor in (1.0, 0.9, 0.7, 0.5, 0.25, 0.1, 0.01, 1e-3):
        if fits(radius * factor) is not None:
            return radius * factor * (1.0 - 1e-15)
    return 0.0


def _kind(chain: Sequence[Layer], low: Array, high: Array) -> Kind:
    image = enclose(chain, low, high)
    return stability(Ball(image.slope[0], image.slope_radius[0]), smooth=bool(image.smooth[0]))


def _refused(given: Array, inner: int, status: Status) -> PointCertificate:
    return PointCertificate(
        holds=False,
        kind="unknown",
        centre=torch.from_numpy(given),
        enclosure=torch.full((2, len(given)), math.nan, dtype=torch.float64),
        radius=math.inf,
        unique_radius=0.0,
        distance=math.inf,
        inner_dimension=inner,
        status=status,
    )
