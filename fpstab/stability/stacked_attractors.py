"""What the orbits of many small networks end in: plain cases all together, the rest one by one with care."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fpstab.activations import known_info
from fpstab.maps import SelfMap
from fpstab.results import OK, Status
from fpstab.stability.attractors import LABELS, classify_attractor, default_starts
from fpstab.stability.stacks import ChainStack

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCK = 16  # iterations between two looks
_REST = 1e-11  # relative step at which an orbit is at rest
_FAR = 1e12  # times the size of its start: gone
_NEWTON = 4
_MOVED = 1e-6  # relative; how far polishing may move a limit
_RESIDUAL = 1e-13  # relative
_ATTRACTS = 1.0 - 1e-6  # below this ρ(J) is told from 1
_SAME, _APART = 1e-8, 1e-4  # relative distances below which limits are one, and above which they are two
_KINK = 1e-6  # distance of a preactivation from a kink of σ
_SMOOTH = ("Identity", "Tanh", "Sigmoid", "Softplus", "GELU", "SiLU", "Mish", "LogSigmoid")
_KINKED_AT_0 = ("ReLU", "LeakyReLU", "SELU", "ELU", "CELU")


@dataclass(frozen=True, slots=True, eq=False)
class StackAttractors:
    """What the orbits of M chains end in, from S starts each.

    Attributes:
        labels: Of each chain, as those of `classify_attractor`.
        counts: How many starts go to what, by label.
        points: The attracting fixed points that orbits go to, of each chain `[K, n]`; of those with care also others that
            were found.
        rho: ρ(J) at them `[K]`.
        period: Of the cycle that most starts go to, or `None`.
        lyapunov: The largest exponent on the attractor that most starts go to `[M]`, NaN where it is not known.
        lyapunov_error: Its standard error `[M]`.
        careful: Which chains were classified one by one `[M]`.
        status: `"ok"`, or `"undetermined"`: some.
    """

    labels: tuple[str, ...]
    counts: tuple[dict[str, int], ...]
    points: tuple[Tensor, ...]
    rho: tuple[Tensor, ...]
    period: tuple[int | None, ...]
    lyapunov: Tensor
    lyapunov_error: Tensor
    careful: Tensor
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """How many chains have which label, and how many were classified one by one."""
        found = Counter(self.labels)
        return {label: float(found[label]) for label in LABELS} | {"n_careful": float(self.careful.sum())}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw how many chains have which label."""
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(5, 3), layout="constrained").subplots()
        found = Counter(self.labels)
        ax.bar(LABELS, [found[label] for label in LABELS])
        ax.set_ylabel("networks")
        return ax


def classify_stack(
    stack: ChainStack,
    starts: Tensor | None = None,
    *,
    max_iter: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> StackAttractors:
    """Say of each chain what its orbits end in: as `classify_attractor` would, in a fraction of the time.

    All orbits are iterated together. A chain is decided there and then if each of its orbits has left all bounds, or is at
    rest at a fixed point that Newton's method confirms, where the chain has a derivative with ρ < 1, and if
    the limits are clearly the same or clearly apart. Every other chain goes to `classify_attractor`.

    Args:
        stack: The chains.
        starts: `[S, n]`; by default 24, uniform in [−6, 6]^n, those of `classify_attractor`.
        max_iter: Iterations of the first stage.
        progress: Called with the chains that are done and their number, while some are classified one by one.

    Raises:
        ValueError: If there are no starts.

    >>> stack = ChainStack(torch.tensor([[[[0.5]]], [[[2.0]]]]), None, [torch.nn.Tanh()])
    >>> classify_stack(stack).labels
    ('single', 'multiple')
    """
    x = default_starts(stack.n) if starts is None else starts.detach().double()
    if not len(x):
        raise ValueError("starts: expected one or more, [S, n], got none.")
    m = len(stack)
    counts: list[Counter[str]] = [Counter() for _ in range(m)]
    labels: list[str] = [""] * m
    points, rhos = [x.new_empty(0, stack.n)] * m, [x.new_empty(0)] * m
    periods: list[int | None] = [None] * m
    exponents, errors = torch.full((m,), math.nan, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    limits, gone, rest = _follow(stack, x, max_iter)
    polished, rho, good = _confirm(stack, limits, rest & ~gone)
    sure = (gone | good).all(1)
    apart, leader = _groups(polished, good)
    sure &= apart
    errors[gone.sum(1) > len(x) / 2] = math.nan
    for i in sure.nonzero()[:, 0].tolist():
        n_gone = int(gone[i].sum())
        counts[i] = Counter({"unstable": n_gone, "fixed": len(x) - n_gone})
        members = Counter(leader[i, good[i]].tolist())
        places = sorted(members)
        points[i], rhos[i] = polished[i, places].cpu(), rho[i, places].cpu()
        if n_gone > len(x) / 2:
            labels[i] = "unstable"
            continue
        labels[i] = "multiple" if len(members) > 1 else "single"
        largest = float(rho[i, members.most_common(1)[0][0]])
        exponents[i] = math.log(largest) if largest > 0 else -math.inf
    hard = (~sure).nonzero()[:, 0].tolist()
    for done, i in enumerate(hard):
        if progress is not None:
            progress(m - len(hard) + done, m)
        target = SelfMap(stack.network(i), x[:1], checked=True)
        found = classify_attractor(target, x, throw=False)
        labels[i], periods[i], counts[i] = found.label, found.period, Counter(found.counts)
        exponents[i], errors[i] = found.lyapunov, found.lyapunov_error
        points[i], rhos[i] = found.fixed_points.points, found.fixed_points.rho
    n_open = labels.count("undetermined")
    status = OK if not n_open else Status("undetermined", f"{n_open} of {m} chains could not be classified.")
    kept = tuple({name: number for name, number in each.items() if number} for each in counts)
    return StackAttractors(
        tuple(labels), kept, tuple(points), tuple(rhos), tuple(periods), exponents, errors, ~sure.cpu(), status
    )


def _follow(stack: ChainStack, starts: Tensor, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where orbits are when they are decided or time is up `[M, S, n]`, which are gone and which at rest `[M, S]`."""
    m, s = len(stack), len(starts)
    x = starts.to(stack.weights).expand(m, s, stack.n).clone()
    bound = _FAR * (1.0 + starts.to(x).norm(dim=1))
    gone = torch.zeros(m, s, dtype=torch.bool, device=x.device)
    rest = gone.clone()
    left = torch.arange(m, device=x.device)
    active = stack
    for k in range(0, max_iter, _BLOCK):
        before = active.iterate(x[left], min(_BLOCK, max_iter - k) - 1)
        now = active(before)
        step = (now - before).norm(dim=2)
        size = now.norm(dim=2)
        x[left] = now
        gone[left] |= ~(size <= bound)  # also what is not a number
        rest[left] = step <= _REST * (1.0 + size)
        stay = ~(gone[left] | rest[left]).all(1)
        if not bool(stay.all()):
            left = left[stay]
            if not len(left):
                break
            active = active.select(stay.nonzero()[:, 0])
    return x, gone, rest


def _confirm(stack: ChainStack, x: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Polished limits `[M, S, n]`, ρ(J) there `[M, S]`, and which are attracting fixed points beyond doubt `[M, S]`."""
    y = torch.where(rest[..., None], x, 0.0)
    eye = torch.eye(stack.n, dtype=y.dtype, device=y.device)
    for _ in range(_NEWTON):
        affine = stack.affine(y, mode="tangent")
        move, _ = torch.linalg.solve_ex(eye - affine.A, affine.step[..., None])
        y = y + move[..., 0]
        y = torch.where(torch.isfinite(y), y, 0.0)  # singular: the distance to the limit refuses it
    affine = stack.affine(y, mode="tangent")
    size = 1.0 + y.norm(dim=2)
    rho = affine.spectral_radius()
    good = rest & ((y - torch.where(rest[..., None], x, 0.0)).norm(dim=2) <= _MOVED * size)
    good &= (affine.step.norm(dim=2) <= _RESIDUAL * size) & (rho < _ATTRACTS)
    return y, rho, good & _has_derivative(stack, y)


def _has_derivative(stack: ChainStack, x: Tensor) -> Tensor:
    """Whether no neuron is at a kink at points `[M, P, n]`: `[M, P]`; of an activation that is not known here, no."""
    names = {known_info(each).name for each in stack.activations if each is not None}
    if names <= set(_SMOOTH):
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if not names <= {*_SMOOTH, *_KINKED_AT_0}:
        return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    z = stack.preactivations(x)
    return z.abs().amin(2) > _KINK


def _groups(x: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Whether good limits `[M, S, n]` are clearly the same or clearly apart `[M]`, and the first that each is `[M, S]`."""
    size = 1.0 + x.norm(dim=2)
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / torch.maximum(
        size[:, :, None], size[:, None]
    )
    both = good[:, :, None] & good[:, None]
    doubtful = both & (distance > _SAME) & (distance < _APART)
    same = both & (distance <= _SAME)
    return ~doubtful.any(2).any(1), same.to(torch.int8).argmax(2)
