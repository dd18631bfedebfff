"""Orbits analysed one pair at a time in plain Python, and small systems that are hard to get right."""

import functools
import itertools
import math
import operator

import numpy as np

KINDS = ("definition", "block", "mean")


def distance(a, b):
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += (x - y) * (x - y)
    return math.sqrt(total)


def expansive(outputs, labels, distinct=False):
    """For each kind a dictionary from classes (a, b), a ≤ b, to the least (value, i, j, block)."""
    found = {kind: {} for kind in KINDS}
    for i, j in itertools.combinations(range(len(outputs)), 2):
        if distinct and outputs[i][0] == outputs[j][0]:
            continue
        d = [distance(a, b) for a, b in zip(outputs[i], outputs[j], strict=True)]
        key = tuple(sorted((labels[i], labels[j])))
        for kind, value, block in (
            ("definition", max(d), d.index(max(d))),
            ("block", min(d), d.index(min(d))),
            ("mean", functools.reduce(operator.add, d) / len(d), None),
        ):
            candidate = (value, i, j, block)
            if key not in found[kind] or candidate[:3] < found[kind][key][:3]:
                found[kind][key] = candidate
    return found


def step(outputs, mode, t, i, j):
    if mode == "autonomous":
        return distance(outputs[i][1], outputs[j][0])
    return distance(outputs[i][t + 1], outputs[j][t + 1])


def tracing(outputs, mode, chain, among):
    """(ε, tracer) of a chain."""
    values = [outputs[i][0 if mode == "autonomous" else t] for t, i in enumerate(chain)]
    return min((max(distance(y, c) for y, c in zip(outputs[k], values, strict=True)), k) for k in among)


def greedy(outputs, labels, mode, same_class=False):
    """(chain, δ, ε, tracer) of every start that has one."""
    found = []
    n, states = len(outputs), len(outputs[0])
    for start in range(n):
        among = [k for k in range(n) if not same_class or labels[k] == labels[start]]
        if len(among) < states:
            continue
        chain, delta = [start], 0.0
        for t in range(states - 1):
            value, j = min((step(outputs, mode, t, chain[-1], j), j) for j in among if j not in chain)
            chain.append(j)
            delta = max(delta, value)
        epsilon, tracer = tracing(outputs, mode, chain, among)
        found.append((tuple(chain), delta, epsilon, tracer))
    return found


def sequences(outputs, labels, mode, same_class=False):
    """(sequence, δ, ε, tracer) of every sequence of images."""
    found = []
    n, states = len(outputs), len(outputs[0])
    for chain in itertools.product(range(n), repeat=states):
        if same_class and len({labels[i] for i in chain}) > 1:
            continue
        among = [k for k in range(n) if not same_class or labels[k] == labels[chain[0]]]
        delta = max(step(outputs, mode, t, chain[t], chain[t + 1]) for t in range(states - 1))
        found.append((chain, delta, *tracing(outputs, mode, chain, among)))
    return found


def systems(count, seed=0, largest=24):
    """(name, outputs [N, T+1, m], labels [N]): random, tied, duplicated, saturated, with planted distances."""
    rng = np.random.default_rng(seed)
    makers = [softmaxes, grid, duplicates, saturated, planted, permuted, far, constant, clustered]
    for k in range(count):
        maker = makers[k % len(makers)]
        n, states, m = int(rng.integers(4, largest)), int(rng.integers(2, 6)), int(rng.integers(1, 7))
        labels = rng.integers(0, int(rng.integers(2, 6)), n)
        labels[:2] = 0, 1
        yield f"{maker.__name__}-{k}", maker(rng, n, states, m), labels


def softmax(z):
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def softmaxes(rng, n, states, m):
    return softmax(3 * rng.normal(size=(n, states, m + 1)))


def grid(rng, n, states, m):
    """Equal distances everywhere."""
    return rng.integers(0, 3, (n, states, m)).astype(float)


def duplicates(rng, n, states, m):
    """Images that occur several times, in several classes."""
    return softmax(rng.normal(size=(n, states, m + 1)))[rng.integers(0, max(2, n // 3), n)]


def saturated(rng, n, states, m):
    """Corners of the simplex, but for some units in the last place."""
    return softmax(rng.choice([20.0, 40.0, 400.0]) * rng.normal(size=(n, states, m + 1)))


def planted(rng, n, states, m):
    """Outputs of size 1 that are 4e-5 and 9e-6 apart, where a product in float32 sees 0 or ten times as much."""
    outputs = softmax(rng.normal(size=(n, states, m + 1)))
    for scale in (4e-5, 9e-6, 1e-9):
        i, j = rng.choice(n, 2, replace=False)
        direction = rng.normal(size=(states, m + 1))
        outputs[j] = outputs[i] + scale * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return outputs


def permuted(rng, n, states, m):
    """The same numbers in other coordinates: distances that differ by the order of their sums, or not at all."""
    base = rng.normal(size=(states, m + 2))
    return np.stack([base[:, rng.permutation(m + 2)] for _ in range(n)])


def far(rng, n, states, m):
    """Far from the origin, and of very different sizes."""
    return 1e6 + rng.normal(size=(n, states, m)) * 10.0 ** rng.uniform(-6, 3, (n, 1, 1))


def constant(rng, n, states, m):
    """A head that says the same of everything at some states."""
    outputs = rng.normal(size=(n, states, m))
    outputs[:, rng.integers(0, states)] = rng.normal(size=m)
    return outputs


def clustered(rng, n, states, m):
    """Few places, with jitter of the size of rounding."""
    places = rng.normal(size=(3, states, m))
    return places[rng.integers(0, 3, n)] * (1 + rng.integers(-2, 3, (n, states, m)) * 2.0**-52)
