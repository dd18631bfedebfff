"""The number of fixed points of a small network in a box, proved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fpstab.maps import SelfMap
from fpstab.proofs.boxes import Search, enlarged, search
from fpstab.proofs.eigenvalues import Kind, index, stability
from fpstab.proofs.networks import Layer, NotProvable, Specification, enclose, read_layers
from fpstab.results import AnalysisError, Status
from fpstab.rounding import Array, Ball

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DIMENSION = 8
"""Dimensions in which boxes are cut; in more, only a network that the box as a whole settles is proved."""
_MAX_WIDTH = 256  # of a layer, beyond which not even that is tried
_LISTED = 256  # unknown boxes that are listed one by one


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What is proved of the fixed points of a map Φ in a closed box, in real arithmetic with the stored weights.

    Every enclosure holds exactly one fixed point of Φ, and all of them lie in the box. All further fixed points in the box, if
    any, lie in the unknown boxes; if there are none, the list is complete.

    Attributes:
        complete: Whether there are no unknown boxes: then the box holds `count` fixed points, not one more or less.
        count: The number of fixed points in the box; `None` if it is not proved (then it is at least `found`).
        stable: How many are proved to be asymptotically stable, ρ(J) < 1, or on a kink
            a norm below 1 of all slope matrices.
        unstable: How many are proved to be unstable, ρ(J) > 1. The rest is undecided: on a kink, or ρ(J) = 1 as far as
            can be told.
        enclosures: Lower and upper corners `[K, 2, n]`.
        unique: Boxes `[K, 2, n]` around them in which they are the only fixed points; these may reach beyond the box.
        kind: `"stable"`, `"unstable"` or `"unknown"` of each.
        index: Sign of det(I − J) at each, int64 `[K]`; 0 where it is not proved.
        unknown_boxes: Boxes `[U, 2, n]` that may hold further fixed points; many are listed as fewer boxes that hold them.
        box: Lower and upper corner `[2, n]`; where an infinite bound was given, that of the values.
        everywhere: Whether no fixed point can lie outside the box, as the last activation has no values there.
        n_unknown: Unknown boxes before they were put together.
        n_boxes: Boxes that were evaluated.
        seconds: What it took.
        status: `"ok"`; `"unresolved"` (some boxes are too fine to be cut: fixed points that are not isolated, a double
            one, or one on a kink that splits), `"boundary"` (a fixed point so near the box's boundary that it cannot be told
            on which side it is), `"budget"` (boxes or seconds ran out), `"too_large"` (too many dimensions),
            `"unbounded"` (neither the box nor the last activation bounds where fixed points are); and, only with
            `throw=False`, `"not_a_chain"`, `"unsupported"`, `"nonfinite"` (nothing can be proved of this network).
    """

    complete: bool
    count: int | None
    stable: int
    unstable: int
    enclosures: Tensor
    unique: Tensor
    kind: tuple[Kind, ...]
    index: Tensor
    unknown_boxes: Tensor
    box: Tensor
    everywhere: bool
    n_unknown: int
    n_boxes: int
    seconds: float
    status: Status

    @property
    def found(self) -> int:
        """Fixed points that are proved to exist in the box."""
        return len(self.enclosures)

    @property
    def points(self) -> Tensor:
        """Midpoints of the enclosures `[K, n]`."""
        return self.enclosures.mean(1)

    @property
    def index_sum(self) -> int | None:
        """Sum of the indices; `None` if one is unknown or the list is not complete.

        If Φ is bounded and no fixed point lies outside the box, it is 1 by the index formula: a check of the proof.
        """
        known = self.complete and bool((self.index != 0).all())
        return int(self.index.sum()) if known else None

    def scalars(self) -> dict[str, float]:
        """What a monitor logs; `proved_count` is nan where there is no proof."""
        return {
            "proved_count": math.nan if self.count is None else float(self.count),
            "proved_stable": float(self.stable),
            "proof_complete": float(self.complete),
            "unknown_boxes": float(self.n_unknown),
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a fixed point: its coordinates `x1`, `x2`, …, the half-width of its enclosure, what it is."""
        rows = []
        for k, point in enumerate(self.points):
            width = self.enclosures[k, 1] - self.enclosures[k, 0]
            unique = self.unique[k, 1] - self.unique[k, 0]
            rows.append(
                {
                    "fixed_point": k,
                    "kind": self.kind[k],
                    "index": int(self.index[k]) or None,
                    "radius": float(width.max()) / 2,
                    "unique_radius": float(unique.min()) / 2,
                    **{f"x{i}": float(value) for i, value in enumerate(point, 1)},
                }
            )
        return rows

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the fixed points with the boxes in which they are unique, and the unknown boxes; of maps of the plane.

        Raises:
            ValueError: If the map is not one of the plane.
        """
        from fpstab.proofs.plots import plot_proof

        return plot_proof(self, ax)


def prove_fixed_points(
    mlp: nn.Module | SelfMap | Sequence[Specification],
    box: tuple[float | ArrayLike | Tensor, float | ArrayLike | Tensor] = (-1.0, 1.0),
    *,
    max_boxes: int = 200_000,
    max_seconds: float = 10.0,
    throw: bool = True,
) -> Proof:
    """Count the fixed points of a small network in a closed box, with proof (interval branch and prune).

    All of R^n that lies in the box is searched: it is cut into boxes X, and each is replaced by X ∩ Φ(X) ∩ K(X), K the
    Krawczyk operator, until it is empty or in a box that holds exactly one fixed point. Rounding is outward everywhere
    (`fpstab.proofs.functions` says what is assumed of the libraries). Stability is Jury's test in interval arithmetic; in more than
    two dimensions discs around eigenvalues, or a power of J.

    Args:
        mlp: A module or a `SelfMap` that is a chain of dense layers and elementwise activations, as real numbers in float64; or
            layers (W, b, activation): b may be `None`, and the activation a module, `None` or one of `"tanh"`,
            `"hardtanh"`, `"sigmoid"`, `"relu"`, `"leaky_relu"`, `"erf"` (the error function, as `torch.erf`),
            `"unit_erf"` (erf(√π·z/2), which paper 1 calls erf), `"identity"`. Any widths between the ends.
        box: Lower and upper bound, numbers or one for each coordinate. Fixed points on its boundary count. Bounds may be
            infinite where the last activation is bounded: (−inf, inf) counts all fixed points there are.
        max_boxes: Boxes that are evaluated at most.
        max_seconds: Seconds that it may take, to a batch of boxes.
        throw: Raise where nothing at all can be proved of such a network, instead of saying so in the status. A proof that
            is not complete is never raised.

    Raises:
        ValueError: If the bounds are reversed, nan or not of the network's size, a limit is not positive, widths do not
            fit, or input and output differ in size.
        TypeError: If `mlp` is no network.
        AnalysisError: If the network is no chain (`"not_a_chain"`), has an activation without enclosure (`"unsupported"`), or a
            weight that is nan or infinite (`"nonfinite"`).

    >>> proof = prove_fixed_points([([[2.0, 0.0], [0.0, 2.0]], None, "hardtanh")])
    >>> proof.count, proof.stable, proof.unstable, proof.complete
    (9, 4, 5, True)
    """
    if not isinstance(max_boxes, int) or max_boxes < 1:
        raise ValueError(f"max_boxes={max_boxes!r}: expected a positive number of boxes.")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds!r}: expected a positive number of seconds.")
    try:
        layers = read_layers(mlp)
    except NotProvable as error:
        status = Status(error.code, str(error))
        if throw:
            raise AnalysisError(status) from None
        return _nothing(status, box)
    n = layers[0].weight.shape[1]
    low, high = _corners(box, n)
    # a fixed point is a value: it lies in the range of the last activation
    ends = layers[-1].function.range
    inner_low, inner_high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
    everywhere = bool((low <= ends[0]).all() and (high >= ends[1]).all())
    low, high = np.where(np.isinf(low), inner_low, low), np.where(np.isinf(high), inner_high, high)
    largest = max(n, *(len(layer.weight) for layer in layers))
    if (inner_low > inner_high).any():
        found = Search.empty(n)
    elif np.isinf(inner_low).any() or np.isinf(inner_high).any() or (n > MAX_DIMENSION and largest > _MAX_WIDTH):
        found = Search.empty(n)
        found.left = np.stack((inner_low, inner_high))[None]
    else:
        found = search(
            layers, inner_low, inner_high, max_boxes=max_boxes, max_seconds=max_seconds, divide=n <= MAX_DIMENSION
        )
    return _proof(layers, found, low, high, everywhere, largest)


def _proof(layers: Sequence[Layer], found: Search, low: Array, high: Array, everywhere: bool, largest: int) -> Proof:
    n = len(low)
    if all((layer.bias == 0.0).all() and not layer.function.at(np.zeros((1, 1)))[0].any() for layer in layers):
        # Φ(0) = 0 exactly: on the boundary of (0, 1), say, no enclosure of some width would tell
        zero = (found.low <= 0.0).all(1) & (found.high >= 0.0).all(1)
        found.low[zero] = found.high[zero] = 0.0
    inside = (found.low >= low).all(1) & (found.high <= high).all(1)
    outside = ((found.high < low) | (found.low > high)).any(1)
    edge = np.stack((found.low, found.high), 1)[~inside & ~outside]
    stuck = np.concatenate((*found.stuck, np.empty((0, 2, n))))
    stuck = stuck[~found.covers(stuck[:, 0], stuck[:, 1])]
    left = found.left[~found.covers(found.left[:, 0], found.left[:, 1])]
    unknown = np.concatenate((edge, stuck, left))
    order = np.lexsort(np.round(0.5 * (found.low + found.high)[inside], 12).T[::-1])
    points = [values[inside][order] for values in (found.low, found.high, found.unique_low, found.unique_high)]
    if len(order):
        with np.errstate(all="ignore"):
            points[2:] = enlarged(layers, *points)
    kinds, indices = _kinds(layers, points[0], points[1])
    return Proof(
        complete=not len(unknown),
        count=None if len(unknown) else len(order),
        stable=kinds.count("stable"),
        unstable=kinds.count("unstable"),
        enclosures=torch.from_numpy(np.stack(points[:2], 1)),
        unique=torch.from_numpy(np.stack(points[2:], 1)),
        kind=kinds,
        index=torch.tensor(indices, dtype=torch.int64),
        unknown_boxes=torch.from_numpy(_fewer(unknown)),
        box=torch.from_numpy(np.stack((low, high))),
        everywhere=everywhere,
        n_unknown=len(unknown),
        n_boxes=found.n_boxes,
        seconds=found.seconds,
        status=_status(n, len(edge), stuck, left, found, len(order), largest),
    )


def _kinds(layers: Sequence[Layer], low: Array, high: Array) -> tuple[tuple[Kind, ...], list[int]]:
    if not len(low):
        return (), []
    with np.errstate(all="ignore"):
        image = enclose(layers, low, high)
        balls = [Ball(mid, radius) for mid, radius in zip(image.slope, image.slope_radius, strict=True)]
        kinds = tuple(stability(J, smooth=bool(smooth)) for J, smooth in zip(balls, image.smooth, strict=True))
        return kinds, [index(J) for J in balls]


def _status(n: int, edge: int, stuck: Array, left: Array, found: Search, count: int, largest: int) -> Status:
    known = f"{count} fixed points are proved, and there may be more" if count else "Nothing is proved to exist"
    if not np.isfinite(left).all():
        return Status("unbounded", "The values of the last activation have no bound: give a finite box.")
    if len(left) and n > MAX_DIMENSION:
        return Status(
            "too_large",
            f"The network maps R^{n} (its largest layer has {largest} values): boxes are cut in at most {MAX_DIMENSION} dimensions, "
            f"and the box as a whole does not settle it. {known}. certify_fixed_point proves single points.",
        )
    if len(left):
        return Status(
            "budget",
            f"{len(left)} boxes are left of {found.n_boxes} that were looked at in {found.seconds:.3g} s. {known}: give more max_boxes "
            "or max_seconds, or a smaller box.",
        )
    if len(stuck):
        middle = ", ".join(f"{value:.6g}" for value in stuck[0].mean(0))
        return Status(
            "unresolved",
            f"{len(stuck)} boxes, the first at ({middle}), are too fine to be cut further: fixed points there are not isolated, or a "
            f"double one, or one on a kink of the activations. {known}.",
        )
    if edge:
        return Status(
            "boundary",
            f"{edge} fixed points lie so near the boundary of the box that it cannot be told on which side: move the boundary. "
            f"{count} others are proved to lie inside.",
        )
    return Status()


def _fewer(boxes: Array) -> Array:
    """The boxes, or where there are many, fewer ones that hold them: those of a coarse grid's cells, put together."""
    if len(boxes) <= _LISTED:
        return boxes
    middle = boxes.mean(1)
    low, high = middle.min(0), middle.max(0)
    each = max(1, int(_LISTED ** (1 / boxes.shape[2])))
    cell = np.minimum((middle - low) / np.maximum(high - low, 1e-300) * each, each - 1).astype(np.int64)
    _, group = np.unique(cell, axis=0, return_inverse=True)
    group = group.reshape(-1)
    fewer = np.empty((group.max() + 1, *boxes.shape[1:]))
    fewer[:, 0], fewer[:, 1] = np.inf, -np.inf
    np.minimum.at(fewer[:, 0], group, boxes[:, 0])
    np.maximum.at(fewer[:, 1], group, boxes[:, 1])
    return fewer


def _corners(box: Any, n: int) -> tuple[Array, Array]:
    try:
        low, high = (
            np.asarray(end.detach().cpu() if isinstance(end, Tensor) else end, dtype=np.float64) for end in box
        )
        low, high = (np.broadcast_to(end, (n,)).copy() for end in (low, high))
    except (TypeError, ValueError):
        raise ValueError(f"box={box!r}: expected (low, high), numbers or {n} values each.") from None
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError(f"box={box!r}: expected numbers.")
    if (low > high).any():
        raise ValueError(f"box={box!r}: the bounds are reversed: expected low ≤ high.")
    return low, high


def _nothing(status: Status, box: Any) -> Proof:
    empty = torch.empty(0, 2, 0, dtype=torch.float64)
    return Proof(
        complete=False,
        count=None,
        stable=0,
        unstable=0,
        enclosures=empty,
        unique=empty,
        kind=(),
        index=torch.empty(0, dtype=torch.int64),
        unknown_boxes=empty,
        box=torch.empty(2, 0, dtype=torch.float64),
        everywhere=False,
        n_unknown=0,
        n_boxes=0,
        seconds=0.0,
        status=status,
    )
