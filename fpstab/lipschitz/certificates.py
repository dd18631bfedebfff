"""From multipliers to a proved bound, and the independent check of one."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.lipschitz import closed_forms
from fpstab.lipschitz.blocks import Linear, Reduced
from fpstab.lipschitz.inequality import Inequality, least_rho, proves
from fpstab.lipschitz.problem import Feedforward, Problem, Slopes, feedforward
from fpstab.lipschitz.reduction import reduce
from fpstab.rounding import Array, down, ldexp_up, spectral_norm, sqrt_up

_MIXES = (0.0, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0)


def certified_root(
    problem: Reduced, inequality: Inequality, T: Array, strict: tuple[float, Array] | None
) -> tuple[float, Array] | None:
    """The least constant of the reduced problem that is proved for multipliers near T, and these multipliers.

    Any T will do: negative entries are set to 0, and where T alone proves nothing it is mixed with a strictly
    feasible point. For each mix the least ρ comes from a Schur complement and is then raised, from 1 + 1e-12 by
    factors of 4 in what is added, until the proof succeeds.

    Args:
        problem: The problem.
        inequality: Its inequality.
        T: `[m]` multipliers.
        strict: (ρ, T) strictly inside, to mix with.

    Returns:
        (√ρ, T), or None if nothing is proved.
    """
    T = np.maximum(T, 0.0)
    best: tuple[float, Array] | None = None
    for mix in _MIXES if strict is not None else (0.0,):
        mixed = T if strict is None or mix == 0.0 else (1.0 - mix) * T + mix * strict[1]
        least = least_rho(inequality, mixed)
        if least is None:
            continue
        least = max(least, 1e-300)
        root = _raised(problem, inequality, least, mixed, math.inf if best is None else best[0])
        if root is not None:
            best = (root, mixed)
        elif best is not None:
            break
        if best is not None and best[0] <= math.sqrt(least) * (1.0 + 1e-9):
            break
    return best


def _raised(problem: Reduced, inequality: Inequality, least: float, T: Array, limit: float) -> float | None:
    for k in range(20):
        root = sqrt_up(least * (1.0 + 1e-12 * 4.0**k))
        if not root < limit:
            return None
        if proves(problem, inequality, down(root * root), T):
            return root
    return None


def linear_bound(linear: Linear) -> float:
    """The certified norm of a linear map, in the network's units."""
    return ldexp_up(spectral_norm(linear.weight), linear.exponent)


def network_multipliers(problem: Reduced, T: Array, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """T in the network's units, one tensor `[n_i]` a hidden layer; 0 for neurons that do nothing or are linear."""
    everything = np.zeros(sum(sizes))
    exponents = np.clip(problem.multiplier_exponent, -5000, 5000).astype(np.int32)
    with np.errstate(over="ignore"):
        everything[problem.neurons] = np.ldexp(T, exponents)
    ends = np.cumsum([0, *sizes])
    return tuple(torch.from_numpy(everything[a:b].copy()) for a, b in pairwise(ends.tolist()))


def hidden_sizes(problem: Problem) -> tuple[int, ...]:
    """How many neurons each hidden layer has."""
    return problem.sizes[1:-1] if isinstance(problem, Feedforward) else problem.layers


def verify(
    network: Problem | Sequence[ArrayLike | Tensor],
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    multipliers: Sequence[ArrayLike | Tensor] = (),
    L: float = math.inf,
) -> bool:
    """Whether these multipliers prove that L is a Lipschitz constant of the network.

    No solver is involved, whoever found the multipliers: M(L², T) of LipSDP-Neuron (see
    `fpstab.lipschitz.inequality`) is formed with a bound on all rounding errors, L² is rounded down, and a
    floating-point Cholesky factorisation proves M ⪰ 0 (Rump 2006). Multipliers may be those of the network or those
    of its transpose (W_Lᵀ, …, W_1ᵀ), which has the same constant; both readings are tried.

    Args:
        network: A problem, or the weights (W_1, …, W_L).
        slopes: As for `lipschitz_bound`; `"auto"` for a problem, which has its own.
        multipliers: One array `[n_i]` (or a number) a hidden layer, ≥ 0, in the network's order and units, as in
            `LipschitzBound.multipliers`. None are needed for a linear map. Those of neurons that do nothing are
            not looked at.
        L: The claimed constant, in l2 norms.

    Returns:
        True if it is proved; False says that these multipliers do not prove it, not that it is wrong.

    Raises:
        ValueError: If shapes do not fit.

    >>> weights = [[[1.0], [1.0]], [[1.0, -1.0]]]  # relu(x) - relu(x)
    >>> verify(weights, (0.0, 1.0), [[2.0, 2.0]], 1.5), verify(weights, (0.0, 1.0), [[2.0, 2.0]], 1.4)
    (True, False)
    """
    problem = as_problem(network, slopes)
    T = _flat(multipliers, hidden_sizes(problem))
    if math.isnan(L) or L < 0.0:
        return False
    for transposed in (False, True):
        reduced = reduce(problem, transposed)
        if reduced is None:
            return True
        if math.isinf(L):
            return not (isinstance(reduced, Reduced) and reduced.implicit)
        if isinstance(reduced, Linear):
            return linear_bound(reduced) <= L
        scaled = _ldexp_down(L, -reduced.exponent)
        if scaled > 0.0 and proves(reduced, Inequality.of(reduced), down(scaled * scaled), _own(reduced, T)):
            return True
    return False


def certify(
    network: Problem | Sequence[ArrayLike | Tensor],
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    multipliers: Sequence[ArrayLike | Tensor] = (),
) -> float:
    """The least Lipschitz constant that these multipliers prove, however they were found.

    Use it on what another LipSDP code returns: its own value may be below the truth, this one is not. Multipliers
    that are slightly infeasible are repaired.

    Args:
        network: As for `verify`.
        slopes: As for `verify`.
        multipliers: One array a hidden layer, of the network or of its transpose.

    Returns:
        A bound; inf if nothing could be proved.
    """
    problem = as_problem(network, slopes)
    T = _flat(multipliers, hidden_sizes(problem))
    best = math.inf
    for transposed in (False, True):
        reduced = reduce(problem, transposed)
        if reduced is None:
            return 0.0
        if isinstance(reduced, Linear):
            return linear_bound(reduced)
        inequality = Inequality.of(reduced)
        strict = closed_forms.strict_point(reduced, inequality)
        found = certified_root(reduced, inequality, _own(reduced, T), strict)
        if found is not None:
            best = min(best, ldexp_up(found[0], reduced.exponent))
    return best


def as_problem(network: Problem | Sequence[ArrayLike | Tensor], slopes: str | Slopes | Sequence[Slopes]) -> Problem:
    """The problem itself, or the one that weights and slopes make.

    Raises:
        ValueError: If a problem comes with other slopes than "auto".
    """
    if isinstance(network, Problem):
        if not (isinstance(slopes, str) and slopes == "auto"):
            raise ValueError(f"{type(network).__name__} has its own slopes: leave slopes='auto'.")
        return network
    return feedforward(list(network), slopes)


def _flat(multipliers: Sequence[ArrayLike | Tensor], sizes: Sequence[int]) -> Array:
    """One float64 array `[m]` of all layers' multipliers."""
    if len(multipliers) != len(sizes):
        raise ValueError(f"{len(multipliers)} multipliers for {len(sizes)} hidden layers: expected one array each.")
    parts = [np.zeros(0)]
    for part, size in zip(multipliers, sizes, strict=True):
        array = np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part, dtype=float).reshape(-1)
        if array.size not in (1, size):
            raise ValueError(f"A layer of {size} neurons got {array.size} multipliers.")
        parts.append(np.broadcast_to(array, size))
    return np.concatenate(parts)


def _own(problem: Reduced, T: Array) -> Array:
    """Multipliers of the network in the units of the reduced problem."""
    exponents = np.clip(-problem.multiplier_exponent, -5000, 5000).astype(np.int32)
    with np.errstate(over="ignore"):
        scaled: Array = np.ldexp(T[problem.neurons], exponents)
    return scaled


def _ldexp_down(x: float, exponent: int) -> float:
    try:
        scaled = math.ldexp(x, exponent)
    except OverflowError:
        return 1e300
    return scaled if scaled >= 2.0**-1021 else max(down(scaled), 0.0)
