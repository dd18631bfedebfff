"""The g-shadowing constant of observed orbits: how well images trace pseudo-orbits."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fpstab.orbits.chains import ChainMode, all_sequences, greedy_chains, trace
from fpstab.orbits.distances import Floats, Ints
from fpstab.orbits.observations import Orbits, Space
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rule = Literal["best_traced", "min_min", "curve"]

_QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_MOST_SEQUENCES = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Shadowing:
    """A g-shadowing constant Sh = δ/ε of a sample, and the chains that it comes from.

    Attributes:
        value: Sh; nan for 0/0 (flagged in the status), inf for δ/0.
        delta: The δ in it.
        epsilon: The ε in it.
        start: The image that the chain starts at; `None` if there is no chain.
        tracer: The image whose orbit traces it.
        chain: Its images i_0 … i_T.
        deltas: Largest step of every chain, float64 `[M]`. Greedy chains: one for each image, M = N.
        epsilons: How near the best tracer stays to each, float64 `[M]`.
        tracers: That image, int64 `[M]`.
        chains: Images of the chains, int64 `[M, T+1]`.
        curve: For the rule `"curve"`: ε, δ*(ε) and δ*(ε)/ε, float64 `[Q, 3]`; else `None`.
        labels: Classes of the images, int64 `[N]`.
        chain_mode: `"autonomous"` or `"depth"`.
        rule: How δ and ε were chosen.
        same_class: Whether chain and tracer kept to the class of the start.
        exact: Whether all sequences were enumerated, or greedy chains were made.
        n: N.
        space: `"prob"` or `"logit"`.
        head: Which head observed.
        status: `"ok"`; `"undefined"`: Sh is 0/0; `"too_few_images"`: a chain needs T + 1 of them.
    """

    value: float
    delta: float
    epsilon: float
    start: int | None
    tracer: int | None
    chain: tuple[int, ...]
    deltas: Tensor
    epsilons: Tensor
    tracers: Tensor
    chains: Tensor
    curve: Tensor | None
    labels: Tensor
    chain_mode: ChainMode
    rule: Rule
    same_class: bool
    exact: bool
    n: int
    space: Space
    head: str
    status: Status

    def of_class(self, label: int) -> "Shadowing":
        """The same of the chains that start in one class (paper 5, Tables 4 and 5).

        Raises:
            ValueError: If no chain starts there.
        """
        mine = self.labels[self.chains[:, 0]] == label if len(self.chains) else torch.zeros(0, dtype=torch.bool)
        if not bool(mine.any()):
            raise ValueError(f"label={label!r}: no chain starts there; the classes are {self.classes()}.")
        part = replace(
            self,
            deltas=self.deltas[mine],
            epsilons=self.epsilons[mine],
            tracers=self.tracers[mine],
            chains=self.chains[mine],
        )
        return _choose(part)

    def classes(self) -> list[int]:
        """The classes that chains start in."""
        return sorted(set(self.labels[self.chains[:, 0]].tolist()))

    def scalars(self) -> dict[str, float]:
        """Sh with its δ and ε."""
        return {"shadowing": self.value, "delta": self.delta, "epsilon": self.epsilon}

    def table(self) -> list[dict[str, Any]]:
        """The best of all chains, then the best of each class, with what they were computed from."""
        rows = []
        for label in (None, *self.classes()):
            each = self if label is None else self.of_class(label)
            chain = " ".join(map(str, each.chain))
            classes = " ".join(str(int(self.labels[i])) for i in each.chain)
            rows.append(
                {
                    "class": "all" if label is None else label,
                    "shadowing": each.value,
                    "delta": each.delta,
                    "epsilon": each.epsilon,
                    "start": each.start,
                    "tracer": each.tracer,
                    "chain": chain,
                    "chain_classes": classes,
                    "N": self.n,
                    "space": self.space,
                    "head": self.head,
                    "chain_mode": self.chain_mode,
                    "rule": self.rule,
                    "same_class": self.same_class,
                    "exact": self.exact,
                }
            )
        return rows

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """δ against ε of all chains, the chosen one marked; the curve, if there is one."""
        from fpstab.orbits.plots import plot_shadowing

        return plot_shadowing(self, ax)


def shadowing(
    orbits: Orbits,
    chain_mode: ChainMode = "autonomous",
    rule: Rule = "best_traced",
    same_class: bool = False,
    *,
    exact: bool = False,
    throw: bool = True,
) -> Shadowing:
    """Measure the g-shadowing constant of observed orbits (paper 5, Definition 2, Tables 2, 4 and 5).

    A chain starts at every image and steps to the nearest image not yet visited; δ is its largest step, and ε how near
    the orbit of some image stays to it. Exact: every choice is decided by direct float64 differences, the lowest index
    on ties.

    What it can mean: greedy chains are some pseudo-orbits, so the δ above which one is not traced comes out too large;
    tracers are images of the sample only; and the limit ε → 0 of the definition is void on a finite set. Best-traced
    ratios gather near 1 by construction (for one block ε ≤ δ always). An estimate, then, not a bound.

    Args:
        orbits: The observations.
        chain_mode: Step and value of a chain: `"autonomous"` (the paper: from Y[i,1] to Y[j,0], one φ at every step) or
            `"depth"` (from Y[i,t+1] to Y[j,t+1], the t-th block at step t).
        rule: `"best_traced"`: δ/ε of the chain with the least ε (the lowest start on ties); `"min_min"`: least δ over
            least ε, of two chains as may be (start, tracer and chain are those of ε); `"curve"`: for ε at quantiles of
            all ε, δ*(ε) = min {δ_i: ε_i > ε}, and the least ratio δ*(ε)/ε (start … are of the chain that gives δ*).
        same_class: Keep chain and tracer to the class of the start; classes of fewer than T + 1 images start none.
        exact: Enumerate all sequences of T + 1 images, repeats allowed (Definition 2), in place of greedy chains; up to
            1,000,000 of them.
        throw: Raise if there is no chain; otherwise the numbers are nan. 0/0 never raises: it is flagged.

    Raises:
        ValueError: If an argument is something else, or there are too many sequences.
        AnalysisError: `"too_few_images"`.

    >>> orbits = Orbits([[[0.0], [1.0]], [[1.0], [2.5]], [[3.0], [3.5]]], [0, 0, 1], space="logit")
    >>> found = shadowing(orbits)
    >>> found.chains.tolist(), found.deltas.tolist()
    ([[0, 1], [1, 2], [2, 1]], [0.0, 0.5, 2.5])
    >>> found.epsilons.tolist(), found.value, found.start, found.tracer
    ([0.0, 0.5, 2.0], nan, 0, 0)
    """
    if chain_mode not in ("autonomous", "depth"):
        raise ValueError(f"chain_mode={chain_mode!r}: expected 'autonomous' or 'depth'.")
    if rule not in ("best_traced", "min_min", "curve"):
        raise ValueError(f"rule={rule!r}: expected 'best_traced', 'min_min' or 'curve'.")
    outputs, labels = orbits.outputs.numpy(), orbits.labels.numpy()
    groups = (
        [np.flatnonzero(labels == label) for label in np.unique(labels)] if same_class else [np.arange(len(labels))]
    )
    states = outputs.shape[1]
    parts = []
    if exact:
        count = sum(len(group) ** states for group in groups)
        if count > _MOST_SEQUENCES:
            raise ValueError(
                f"exact=True: {orbits.n_images} images and {states} states make {float(count):.3g} sequences, and "
                f"{_MOST_SEQUENCES:,} are feasible. Take fewer images or blocks."
            )
        parts = [(group, all_sequences(outputs[group], chain_mode)) for group in groups]
    else:
        parts = [(group, _greedy(outputs[group], chain_mode)) for group in groups if len(group) >= states]
    found = _collect(parts, states)
    undecided = Shadowing(
        value=math.nan,
        delta=math.nan,
        epsilon=math.nan,
        start=None,
        tracer=None,
        chain=(),
        deltas=torch.from_numpy(found[1]),
        epsilons=torch.from_numpy(found[3]),
        tracers=torch.from_numpy(found[2]),
        chains=torch.from_numpy(found[0]),
        curve=None,
        labels=orbits.labels,
        chain_mode=chain_mode,
        rule=rule,
        same_class=same_class,
        exact=exact,
        n=orbits.n_images,
        space=orbits.space,
        head=orbits.head,
        status=OK,
    )
    if not len(found[0]):
        most = max(map(len, groups))
        which = f"{most} of one class at most" if same_class else f"only {most}"
        status = Status(
            "too_few_images",
            f"a chain through {states} states visits {states} images, and there are {which}. Take more images, or "
            "fewer blocks.",
        )
        if throw:
            raise AnalysisError(status)
        return replace(undecided, status=status)
    return _choose(undecided)


def _greedy(outputs: Floats, mode: ChainMode) -> tuple[Ints, Floats, Ints, Floats]:
    chains, deltas = greedy_chains(outputs, mode)
    return chains, deltas, *trace(outputs, chains, mode)


def _collect(
    parts: list[tuple[Ints, tuple[Ints, Floats, Ints, Floats]]], states: int
) -> tuple[Ints, Floats, Ints, Floats]:
    """Chains, δ, tracers and ε of all groups, in the sample's numbering and in order of the chains."""
    if not parts:
        return np.empty((0, states), np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0)
    chains = np.concatenate([group[part[0]] for group, part in parts])
    tracers = np.concatenate([group[part[2]] for group, part in parts])
    order = np.lexsort(chains.T[::-1])
    deltas, epsilons = (np.concatenate([part[k] for _, part in parts])[order] for k in (1, 3))
    return chains[order], deltas, tracers[order], epsilons


def _choose(found: Shadowing) -> Shadowing:
    """δ and ε by the rule."""
    curve = None
    best = int(found.epsilons.argmin())
    delta, epsilon = float(found.deltas[best]), float(found.epsilons[best])
    if found.rule == "min_min":
        delta = float(found.deltas.min())
    elif found.rule == "curve":
        curve = _curve(found.deltas, found.epsilons)
        delta, epsilon = math.nan, math.nan
        if len(curve):
            epsilon, delta = curve[int(curve[:, 2].nan_to_num(math.inf).argmin()), :2].tolist()
            best = int(torch.where(found.epsilons > epsilon, found.deltas, math.inf).argmin())
    value = delta / epsilon if epsilon else (math.nan if not delta else math.inf)
    status = OK
    if math.isnan(value):
        status = Status(
            "undefined",
            "no chain's ε lies above a quantile of all ε: they are equal, so there is no curve."
            if math.isnan(delta)
            else f"Sh = δ/ε is 0/0: the chain of image {int(found.chains[best, 0])} has steps of 0 and is traced exactly.",
        )
    return replace(
        found,
        value=value,
        delta=delta,
        epsilon=epsilon,
        start=int(found.chains[best, 0]),
        tracer=int(found.tracers[best]),
        chain=tuple(found.chains[best].tolist()),
        curve=curve,
        status=status,
    )


def _curve(deltas: Tensor, epsilons: Tensor) -> Tensor:
    """ε at quantiles, δ*(ε) and their ratio, for every ε that some chain exceeds."""
    ordered = epsilons.sort().values
    rows = []
    # A quantile is an element of the sample, so δ* is a minimum over whole chains
    for epsilon in sorted({float(ordered[int(q * (len(ordered) - 1))]) for q in _QUANTILES}):
        beyond = epsilons > epsilon
        if bool(beyond.any()):
            delta = float(deltas[beyond].min())
            rows.append((epsilon, delta, delta / epsilon if epsilon else math.inf if delta else math.nan))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
