"""Proofs against all fixed points of piecewise linear networks in rational arithmetic, with weights that make degenerate cases common."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fpstab.proofs import Proof, prove_fixed_points

Vector = tuple[Fraction, ...]
Affine = tuple[list[list[Fraction]], list[Fraction]]


def fractions(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def fixed_points(layers: list[tuple[np.ndarray, np.ndarray, str]]) -> set[Vector] | None:
    """All fixed points in the plane, from all patterns of all neurons; `None` if there is a continuum (or may be one).

    In each pattern the network is affine, x ↦ Ax + c, and holds on a polyhedron: one regular system of two equations a pattern.
    """
    found: set[Vector] = set()
    pieces = {"hardtanh": (-1, 0, 1), "relu": (0, 1), "leaky_relu": (0, 1)}
    sizes = [(len(W), pieces[name]) for W, _, name in layers]
    for pattern in itertools.product(*[each for m, which in sizes for each in [which] * m]):
        at, A, c = 0, [[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]], [Fraction(0), Fraction(0)]
        conditions: list[tuple[list[Fraction], Fraction, str, int]] = []
        for W, b, name in layers:
            Z = [[sum(Fraction(float(w)) * A[k][j] for k, w in enumerate(row)) for j in range(2)] for row in W]
            d = [
                sum((Fraction(float(w)) * c[k] for k, w in enumerate(row)), Fraction(float(e)))
                for row, e in zip(W, b, strict=True)
            ]
            A, c = [], []
            for row, e in zip(Z, d, strict=True):
                piece = pattern[at]
                at += 1
                conditions.append((row, e, name, piece))
                if name == "hardtanh" and piece != 0:
                    A.append([Fraction(0), Fraction(0)])
                    c.append(Fraction(piece))
                else:
                    slope = (
                        Fraction(1)
                        if name == "hardtanh" or piece == 1
                        else Fraction(0.01)
                        if name == "leaky_relu"
                        else Fraction(0)
                    )
                    A.append([slope * v for v in row])
                    c.append(slope * e)
        p, q, r, s = 1 - A[0][0], -A[0][1], -A[1][0], 1 - A[1][1]
        determinant = p * s - q * r
        if determinant == 0:
            if consistent(p, q, r, s, c):
                return None
            continue
        x = ((s * c[0] - q * c[1]) / determinant, (p * c[1] - r * c[0]) / determinant)
        if all(allowed(row[0] * x[0] + row[1] * x[1] + e, name, piece) for row, e, name, piece in conditions):
            found.add(x)
    return found


def allowed(z: Fraction, name: str, piece: int) -> bool:
    if name == "hardtanh":
        return (z >= 1) if piece == 1 else (z <= -1) if piece == -1 else (-1 <= z <= 1)
    return z >= 0 if piece == 1 else z <= 0


def consistent(p: Fraction, q: Fraction, r: Fraction, s: Fraction, c: list[Fraction]) -> bool:
    """Whether a singular system has solutions at all; whether they lie in the pattern's polyhedron is not asked."""
    if (p, q, r, s) == (0, 0, 0, 0):
        return c[0] == c[1] == 0
    return p * c[1] == r * c[0] and q * c[1] == s * c[0]


def random_network(
    seed: int, hidden: int, name: str, last: str, coarse: bool
) -> list[tuple[np.ndarray, np.ndarray, str]]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(-4, 5, shape) / 2 if coarse else rng.normal(size=shape) * 1.5

    return [(draw(hidden, 2), draw(hidden), name), (draw(2, hidden), draw(2), last)]


def check(proof: Proof, exact: set[Vector] | None) -> None:
    if exact is None:
        return
    inside = {x for x in exact if all(-1 <= v <= 1 for v in x)}
    boxes = [([Fraction(v) for v in low], [Fraction(v) for v in high]) for low, high in proof.enclosures.tolist()]
    unknown = [([Fraction(v) for v in low], [Fraction(v) for v in high]) for low, high in proof.unknown_boxes.tolist()]

    def held(box: tuple[list[Fraction], list[Fraction]], x: Vector) -> bool:
        return all(a <= v <= b for a, v, b in zip(box[0], x, box[1], strict=True))

    for box in boxes:
        assert sum(held(box, x) for x in inside) == 1
    for x in inside:
        assert any(held(box, x) for box in boxes + unknown)
    assert proof.found <= len(inside)
    if proof.complete:
        assert proof.count == len(inside)


@pytest.mark.parametrize(
    ("hidden", "name", "last", "coarse"),
    [
        (2, "hardtanh", "hardtanh", True),
        (2, "hardtanh", "hardtanh", False),
        (3, "relu", "relu", True),
        (3, "relu", "hardtanh", False),
        (3, "leaky_relu", "leaky_relu", True),
        (3, "leaky_relu", "leaky_relu", False),
    ],
)
def test_against_all_linear_pieces(hidden: int, name: str, last: str, coarse: bool) -> None:
    proved, checked, points = 0, 0, 0
    for seed in range(12):
        layers = random_network(seed, hidden, name, last, coarse)
        exact = fixed_points(layers)
        proof = prove_fixed_points(layers, max_boxes=2000)
        check(proof, exact)
        proved += proof.complete
        checked += exact is not None
        points += proof.found
    assert checked >= 7
    assert proved >= (5 if coarse else 11)
    assert points >= 3


def test_the_oracle_itself() -> None:
    eye, zero = np.eye(2), np.zeros(2)
    assert fixed_points([(2 * eye, zero, "hardtanh")]) == {
        (Fraction(x), Fraction(y)) for x in (-1, 0, 1) for y in (-1, 0, 1)
    }
    assert fixed_points([(eye, zero, "hardtanh")]) is None
    assert fixed_points([(-2 * eye, zero, "relu")]) == {(Fraction(0), Fraction(0))}
