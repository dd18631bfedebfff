"""g-expansive constants of observed orbits: how near two images of different classes come."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fpstab.orbits.distances import Floats, Ints, direct
from fpstab.orbits.observations import Orbits, Space
from fpstab.orbits.pairs import ClosestPairs, closest_pairs
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["definition", "block", "mean"]
Pairs = Literal["labels", "pred", "distinct"]

KINDS: tuple[Kind, ...] = ("definition", "block", "mean")
_MOST_CLASSES = 1000
_PAIRS_AT_ONCE = 1 << 14
_SATURATED = 1e-6


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, and how far apart their orbits are.

    Attributes:
        value: The distance.
        i: The lower index.
        j: The higher index.
        classes: The classes of i and j.
        block: The state that has this distance, 0 for the input of the first block and t for the output of the t-th;
            `None` for a mean over the states.
    """

    value: float
    i: int
    j: int
    classes: tuple[int, int]
    block: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A g-expansive constant of a sample, with the pair of images that attains it.

    Attributes:
        kind: `"definition"`, `"block"` or `"mean"`.
        value: The constant; nan if no pair counts.
        pair: The two images `(i, j)`, i < j; `None` if there is none.
        block: The state that attains it (see `Pair`).
        matrix: The least distance of two images of class a and class b, float64 `[C, C]`, symmetric; on the diagonal
            of two images of one class. nan where there are no two.
        pairs: The pair behind every entry, a ≤ b, by (value, i, j).
        classes: The labels in the order of the matrix.
        n: How many images there were. The constant falls as it grows.
    """

    kind: Kind
    value: float
    pair: tuple[int, int] | None
    block: int | None
    matrix: Tensor
    pairs: tuple[Pair, ...]
    classes: tuple[int, ...]
    n: int

    def closest(self, a: int, b: int) -> Pair | None:
        """The closest pair of the classes a and b; `None` if there is none."""
        return next((pair for pair in self.pairs if set(pair.classes) == {a, b}), None)

    def table(self) -> list[dict[str, Any]]:
        """One row for each pair of classes, the closest first (paper 5, Table 3)."""
        return [
            {
                "class_i": pair.classes[0],
                "class_j": pair.classes[1],
                "i": pair.i,
                "j": pair.j,
                "block": pair.block,
                "distance": pair.value,
            }
            for pair in self.pairs
        ]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The matrix as a heat map, colours on a logarithmic scale."""
        from fpstab.orbits.plots import plot_matrix

        return plot_matrix(self, ax)


@dataclass(frozen=True, slots=True, eq=False)
class Expansivity:
    """The three g-expansive constants of a sample.

    Attributes:
        definition: Least **maximum** over the states of ‖Y[i,t] - Y[j,t]‖ (paper 5, Definition 1).
        block: Least **minimum** (what paper 5's Table 2, Figure 3 and Table 3 hold, judging by their size).
        mean: Least mean (Figure 2).
        n: How many images.
        space: `"prob"` or `"logit"`.
        head: Which head observed.
        pairs: Which pairs counted.
        status: `"ok"`, with a message where outputs coincide or are saturated; `"one_class"`: no pair counts.
    """

    definition: Constant
    block: Constant
    mean: Constant
    n: int
    space: Space
    head: str
    pairs: Pairs
    status: Status

    def scalars(self) -> dict[str, float]:
        """The three constants."""
        return {
            "expansive_definition": self.definition.value,
            "expansive_block": self.block.value,
            "expansive_mean": self.mean.value,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row for each constant, with what it was computed from."""
        return [
            {
                "constant": f"expansive_{each.kind}",
                "value": each.value,
                "i": each.pair[0] if each.pair else None,
                "j": each.pair[1] if each.pair else None,
                "block": each.block,
                "N": self.n,
                "space": self.space,
                "head": self.head,
                "pairs": self.pairs,
            }
            for each in (self.definition, self.block, self.mean)
        ]


def expansivity(orbits: Orbits, *, pairs: Pairs = "labels", throw: bool = True) -> Expansivity:
    """Measure the g-expansive constants of observed orbits (paper 5, Definition 1, Figures 2 and 3, Table 2).

    Over pairs of images, the least of the maximum, the minimum and the mean over the states of the Euclidean distance
    of their outputs; ties go to the lowest (i, j). Exact: every minimum is decided by direct float64 differences. They
    are statistics of a finite sample and fall as N grows (on a connected space no φ is g-expansive at all), so N
    belongs beside each of them.

    Args:
        orbits: The observations.
        pairs: Which pairs count: of different `"labels"`, of different predicted classes (`"pred"`), or all whose
            outputs are `"distinct"` at state 0, whatever their class (Definition 1 to the letter).
        throw: Raise if no pair counts; otherwise the constants are nan.

    Raises:
        ValueError: If `pairs` is something else, or there are more than 1,000 classes.
        AnalysisError: `"one_class"`: no two images count as a pair.

    >>> orbits = Orbits([[[0.0], [0.0]], [[3.0], [1.0]], [[4.0], [9.0]]], [0, 0, 1], space="logit")
    >>> found = expansivity(orbits)
    >>> found.definition.value, found.definition.pair, found.definition.block
    (8.0, (1, 2), 1)
    >>> found.block.value, found.mean.value, found.mean.matrix.tolist()
    (1.0, 4.5, [[2.0, 4.5], [4.5, nan]])
    """
    if pairs not in ("labels", "pred", "distinct"):
        raise ValueError(f"pairs={pairs!r}: expected 'labels', 'pred' or 'distinct'.")
    outputs = orbits.outputs.numpy()
    labels = (orbits.predictions if pairs == "pred" else orbits.labels).numpy()
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) > _MOST_CLASSES:
        raise ValueError(f"labels: {len(classes)} classes, and {_MOST_CLASSES} are feasible. Are these labels classes?")
    twins = None
    if pairs == "distinct":
        # + 0.0: -0.0 and 0.0 are the same output
        twins = np.unique(outputs[:, 0] + 0.0, axis=0, return_inverse=True)[1].reshape(-1)
    found = closest_pairs(outputs, index, len(classes), twins)
    labels_of = tuple(int(label) for label in classes)
    definition, block, mean = (
        _constant(kind, each, outputs, index, labels_of, same_class=pairs == "distinct")
        for kind, each in zip(KINDS, found, strict=True)
    )
    status = _status(orbits, block, definition, pairs)
    if throw and not status.ok:
        raise AnalysisError(status)
    return Expansivity(definition, block, mean, orbits.n_images, orbits.space, orbits.head, pairs, status)


def _constant(
    kind: Kind, found: ClosestPairs, outputs: Floats, index: Ints, labels: tuple[int, ...], same_class: bool
) -> Constant:
    c = len(labels)
    matrix = np.full((c, c), np.nan)
    entries = np.flatnonzero(found.values < np.inf)
    first, second, values = found.first[entries], found.second[entries], found.values[entries]
    matrix[entries // c, entries % c] = matrix[entries % c, entries // c] = values
    pairs = [
        Pair(value, i, j, (labels[a], labels[b]), block)
        for value, i, j, a, b, block in zip(
            values.tolist(),
            first.tolist(),
            second.tolist(),
            index[first].tolist(),
            index[second].tolist(),
            _blocks(kind, outputs, first, second),
            strict=True,
        )
    ]
    pairs.sort(key=lambda pair: (pair.value, pair.i, pair.j))
    counted = next((pair for pair in pairs if same_class or pair.classes[0] != pair.classes[1]), None)
    return Constant(
        kind=kind,
        value=counted.value if counted else math.nan,
        pair=(counted.i, counted.j) if counted else None,
        block=counted.block if counted else None,
        matrix=torch.from_numpy(matrix),
        pairs=tuple(pairs),
        classes=labels,
        n=len(outputs),
    )


def _blocks(kind: Kind, outputs: Floats, first: Ints, second: Ints) -> Sequence[int | None]:
    """The state that attains the distance of each pair."""
    if kind == "mean":
        return [None] * len(first)
    blocks: list[int] = []
    for k in range(0, len(first), _PAIRS_AT_ONCE):
        distances = direct(outputs[first[k : k + _PAIRS_AT_ONCE]], outputs[second[k : k + _PAIRS_AT_ONCE]])
        blocks += (distances.argmax(1) if kind == "definition" else distances.argmin(1)).tolist()
    return blocks


def _status(orbits: Orbits, block: Constant, definition: Constant, pairs: Pairs) -> Status:
    if block.pair is None:
        what = {"labels": "one class", "pred": "one predicted class", "distinct": "one output at state 0"}[pairs]
        return Status("one_class", f"all {orbits.n_images} images have {what}: there is no pair to measure.")
    if definition.value == 0 and definition.pair:
        i, j = definition.pair
        return Status("ok", f"images {i} and {j} of different classes have the same outputs at every state.")
    if block.value < _SATURATED:
        i, j = block.pair
        why = "its softmax may be saturated; look at space='logit' too" if orbits.space == "prob" else "they coincide"
        return Status(
            "ok", f"expansive_block = {block.value:.3g}: at state {block.block} images {i} and {j} are as one; {why}."
        )
    return OK
