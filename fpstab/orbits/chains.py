"""Pseudo-orbits: chains that start at each image and step to the nearest image not yet visited."""

from typing import Literal

import numpy as np

from fpstab.orbits.distances import Floats, Ints, direct, nearest, tracers

ChainMode = Literal["autonomous", "depth"]


def greedy_chains(outputs: Floats, mode: ChainMode) -> tuple[Ints, Floats]:
    """The chain of every image, and its largest step.

    Step distance s_t(i, j): ‖Y[i,1] - Y[j,0]‖ at every t (`"autonomous"`), or ‖Y[i,t+1] - Y[j,t+1]‖ (`"depth"`). The
    chain of start i is i_0 = i, i_{t+1} = the j not yet visited with the least s_t(i_t, j), the lowest on ties.

    Args:
        outputs: `[N, T+1, m]`, N > T.
        mode: `"autonomous"` or `"depth"`.

    Returns:
        Chains `[N, T+1]` and δ `[N]`.
    """
    n, states, _ = outputs.shape
    by_state = np.ascontiguousarray(outputs.transpose(1, 0, 2))
    chains = np.empty((n, states), np.int64)
    chains[:, 0] = np.arange(n)
    deltas = np.zeros(n)
    if mode == "autonomous":
        neighbours, distances = nearest(by_state[1], by_state[0], np.arange(n), states - 1)
        at = np.arange(n)
    for t in range(states - 1):
        if mode == "depth":
            here = by_state[t + 1]
            heads, at = np.unique(chains[:, t], return_inverse=True)  # chains merge, so there are ever fewer
            neighbours, distances = nearest(here[heads], here, heads, t + 1)
        elif t:
            at = chains[:, t]
        candidates = neighbours[at]
        visited = (candidates[:, :, None] == chains[:, None, : t + 1]).any(2)
        choice = visited.argmin(1)[:, None]
        chains[:, t + 1] = np.take_along_axis(candidates, choice, 1)[:, 0]
        np.maximum(deltas, np.take_along_axis(distances[at], choice, 1)[:, 0], out=deltas)
    return chains, deltas


def trace(outputs: Floats, chains: Ints, mode: ChainMode) -> tuple[Ints, Floats]:
    """The image whose orbit stays nearest to each chain, and how near: ε = min_k max_t ‖Y[k,t] - c_t‖.

    The chain's value c_t is Y[i_t,0] (`"autonomous"`) or Y[i_t,t] (`"depth"`).

    Args:
        outputs: `[N, T+1, m]`.
        chains: `[M, T+1]`.
        mode: As for the chains.

    Returns:
        Tracers `[M]`, the lowest on ties, and ε `[M]`.
    """
    by_state = np.ascontiguousarray(outputs.transpose(1, 0, 2))
    return tracers(chain_values(by_state, chains, mode), by_state)


def chain_values(by_state: Floats, chains: Ints, mode: ChainMode) -> Floats:
    """The values c `[T+1, M, m]` of chains `[M, T+1]`."""
    return np.stack([by_state[0 if mode == "autonomous" else t][chains[:, t]] for t in range(len(by_state))])


def all_sequences(outputs: Floats, mode: ChainMode) -> tuple[Ints, Floats, Ints, Floats]:
    """Every sequence of T + 1 images, repeats allowed, in lexicographic order, with its δ, tracer and ε.

    Returns:
        Sequences `[N^(T+1), T+1]`, δ, tracers, ε.
    """
    n, states, _ = outputs.shape
    by_state = outputs.transpose(1, 0, 2)
    sequences = np.stack(np.unravel_index(np.arange(n**states), (n,) * states), 1)
    deltas = np.zeros(len(sequences))
    for t in range(states - 1):
        a, b = (by_state[1], by_state[0]) if mode == "autonomous" else (by_state[t + 1], by_state[t + 1])
        steps = direct(a[:, None], b[None])
        np.maximum(deltas, steps[sequences[:, t], sequences[:, t + 1]], out=deltas)
    best, epsilons = np.zeros(len(sequences), np.int64), np.full(len(sequences), np.inf)
    for k in range(n):
        worst = np.zeros(len(sequences))
        for t in range(states):
            values = by_state[0 if mode == "autonomous" else t]
            np.maximum(worst, direct(by_state[t, k], values)[sequences[:, t]], out=worst)
        nearer = worst < epsilons
        best[nearer], epsilons[nearer] = k, worst[nearer]
    return sequences, deltas, best, epsilons
