import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mpmath import mp, mpf
from torch import nn

from fpstab.fixed_points import find_fixed_points, fixed_point_report
from fpstab.proofs import Proof, prove_fixed_points
from fpstab.proofs.eigenvalues import stability
from fpstab.proofs.networks import read_layers
from fpstab.results import AnalysisError
from fpstab.rounding import Ball
from tests.cases import TANH_2, uniform
from tests.proofs.references import cauchy, evaluate, holds, module, root

INF = math.inf


def hardtanh(W: Any, b: Any = None) -> list[tuple[Any, Any, str]]:
    return [(W, b, "hardtanh")]


# Hand systems


@pytest.mark.parametrize(
    ("W", "count", "stable"),
    [([[2.0, 0.0], [0.0, 2.0]], 9, 4), ([[-2.0, 0.0], [0.0, -2.0]], 1, 0), ([[2.0, 0.0], [0.0, 0.5]], 3, 2)],
)
def test_hand_systems(W: list[list[float]], count: int, stable: int) -> None:
    """mathematics of basins: in each coordinate 0 and, if its gain is above 1, ±1."""
    proof = prove_fixed_points(hardtanh(W))
    assert (proof.count, proof.stable, proof.unstable) == (count, stable, count - stable)
    assert proof.complete
    assert proof.status.ok
    expected = sorted(
        (x, y) for x in (-1.0, 0.0, 1.0) if x == 0 or W[0][0] > 1 for y in (-1.0, 0.0, 1.0) if y == 0 or W[1][1] > 1
    )
    assert proof.points.numpy() == pytest.approx(np.array(expected), abs=1e-14)
    assert proof.index_sum == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tanh_has_three_points_a_coordinate(n: int) -> None:
    proof = prove_fixed_points([(2.0 * np.eye(n), None, "tanh")])
    assert (proof.count, proof.stable) == (3**n, 2**n)
    near = proof.points.abs()
    assert float(torch.minimum(near, (near - TANH_2).abs()).max()) < 1e-14
    assert proof.index.tolist() == [(-1) ** int((x == 0).sum()) for x in near.round()]


def test_corners_of_the_box_count() -> None:
    proof = prove_fixed_points(hardtanh(np.diag([9.0, 9.0]), [0.5, -0.5]), box=(-1.0, 1.0))
    assert [-1.0, -1.0] in proof.points.tolist()
    assert proof.everywhere
    assert torch.equal(proof.enclosures[0, 0], proof.enclosures[0, 1])  # saturation is exact


def test_a_point_of_saturation_is_alone_in_a_box_that_reaches_beyond() -> None:
    proof = prove_fixed_points(hardtanh([[2.0]]))
    assert proof.unique[-1, 0, 0] < 1.0 < proof.unique[-1, 1, 0]


# Cauchy networks


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
@pytest.mark.parametrize("seed", range(10))
def test_cauchy_networks(activation: str, seed: int) -> None:
    layers = cauchy(seed, activation)
    proof = prove_fixed_points(layers)
    assert proof.complete
    assert proof.count is not None
    assert proof.count % 2 == 1  # what follows is stronger
    assert proof.index_sum == 1
    verify(layers, proof)
    # an independent search finds nothing else, and all that attracts
    found = find_fixed_points(module(layers), uniform(80, 2, seed), unstable="newton", throw=False)
    for x in found.points:
        assert inside(proof, x.numpy(), 1e-9).sum() == 1
    attracting = sum(kind == "attracting" for kind in found.kind)
    assert attracting <= proof.stable


def inside(proof: Proof, x: np.ndarray, slack: float) -> np.ndarray:
    low, high = proof.enclosures[:, 0].numpy() - slack, proof.enclosures[:, 1].numpy() + slack
    return np.asarray(((low <= x) & (x <= high)).all(1))


def verify(layers: list[tuple[Any, Any, str]], proof: Proof) -> None:
    """Every enclosure holds a root to 180 bits, of the kind and index that were proved."""
    with mp.workprec(200):
        for (low, high), kind, sign in zip(proof.enclosures.numpy(), proof.kind, proof.index.tolist(), strict=True):
            x, J = root(layers, 0.5 * (low + high))
            assert holds(low, high, x)
            assert mpmath.sign(mpmath.det(mpmath.eye(len(x)) - J)) == sign
            rho = max(abs(value) for value in mpmath.eig(J, left=False, right=False))
            assert (rho < 1) == (kind == "stable")
            assert kind != "unknown"


@pytest.mark.parametrize("seed", [11, 13])
@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
def test_three_layers(activation: str, seed: int) -> None:
    proof = prove_fixed_points(cauchy(seed, activation, depth=3))
    assert proof.complete
    assert proof.index_sum == 1


@pytest.mark.parametrize("activation", ["sigmoid", "erf", "unit_erf", "relu", "leaky_relu"])
@pytest.mark.parametrize("seed", range(4))
def test_other_activations(activation: str, seed: int) -> None:
    layers = cauchy(seed, activation, width=30)
    proof = prove_fixed_points(layers, box=(-4.0, 4.0))
    assert proof.complete, proof.status
    if activation in ("sigmoid", "erf", "unit_erf"):
        assert proof.everywhere
        assert proof.index_sum == 1
    verify(layers, proof)
    missed(layers, proof, 4.0)


def missed(layers: list[tuple[Any, Any, str]], proof: Proof, size: float) -> None:
    """Newton's method from a grid of starts, in floating point, finds no fixed point in the box but the proved ones."""
    grid = np.stack(np.meshgrid(*[np.linspace(-size, size, 9)] * 2), -1).reshape(-1, 2)
    for start in grid:
        x = start.astype(float)
        for _ in range(15):
            with mp.workprec(53):
                value, J = evaluate_float(layers, x)
            step = np.linalg.lstsq(np.eye(2) - J, value - x, rcond=None)[0]
            x = x + step
            if np.abs(step).max() < 1e-13 or not np.isfinite(x).all():
                break
        value, J = evaluate_float(layers, x)
        if (
            np.abs(value - x).max() < 1e-11
            and np.abs(x).max() < size - 1e-6
            and abs(np.linalg.det(np.eye(2) - J)) > 1e-6
        ):
            assert inside(proof, x, 1e-6).any(), x


def evaluate_float(layers: list[tuple[Any, Any, str]], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    J = np.eye(2)
    for layer in read_layers(layers):
        z = layer.weight @ x + layer.bias
        step = 1e-7
        up, down = layer.function.at(z[None] + step)[0][0], layer.function.at(z[None] - step)[0][0]
        J = ((up - down) / (2 * step))[:, None] * (layer.weight @ J)
        x = layer.function.at(z[None])[0][0]
    return x, J


# What could make a count wrong


def test_a_box_cuts_the_count() -> None:
    layers = [([[2.0]], None, "tanh")]  # 0 and ±.9575
    assert prove_fixed_points(layers, (-0.5, 0.5)).count == 1
    assert prove_fixed_points(layers, (0.5, 0.95)).count == 0
    assert prove_fixed_points(layers, (0.5, 2.0)).count == 1
    assert prove_fixed_points(layers, (-INF, INF)).count == 3
    assert not prove_fixed_points(layers, (-0.5, 0.5)).everywhere


def test_points_beside_the_boundary_are_told_apart_to_rounding() -> None:
    """x = x/2 + b/2 has the fixed point b."""
    for b, count in ((1.0 + 1e-13, 0), (1.0 - 1e-13, 1), (-1.0 - 1e-13, 0), (-1.0 + 1e-13, 1)):
        proof = prove_fixed_points([([[0.5]], [b / 2], None)])
        assert (proof.count, proof.complete) == (count, True)


def test_a_point_on_the_boundary_is_not_guessed() -> None:
    proof = prove_fixed_points([([[0.5]], [0.5], None)])  # exactly 1
    assert proof.count is None
    assert proof.status.code == "boundary"
    assert proof.n_unknown == 1
    low, high = proof.unknown_boxes[0, :, 0].tolist()
    assert low <= 1.0 <= high < low + 1e-14


def test_zero_on_the_boundary_is_exact_without_biases() -> None:
    proof = prove_fixed_points([([[2.0]], None, "tanh")], box=(0.0, 1.0))
    assert (proof.count, proof.stable) == (2, 1)
    assert proof.points[0].item() == 0.0


def test_a_point_where_boxes_meet_counts_once() -> None:
    """The first cut of the box is at −1 + 2·.4871: there is the fixed point, and on both sides of it are boxes."""
    cut = -1.0 + 2.0 * 0.4871
    layers = [(np.diag([3.0, -3.0]), [-2.0 * cut, 4.0 * cut], None)]
    proof = prove_fixed_points(layers)
    assert proof.count == 1
    assert proof.points[0].tolist() == pytest.approx([cut, cut], abs=1e-14)


def test_close_points_are_told_apart() -> None:
    """tanh(gx) = x with g just above 1: 0 and about ±√(3(g − 1))."""
    for excess in (1e-2, 1e-4, 1e-6):
        proof = prove_fixed_points([([[1.0 + excess]], None, "tanh")])
        assert (proof.count, proof.stable) == (3, 2)
        assert float(proof.points[2]) == pytest.approx(math.sqrt(3 * excess), rel=1e-2)


def test_a_tangency_is_unknown_and_beside_it_is_not() -> None:
    """σ(8x + b) touches the diagonal where σ' = 1/8: then s(1 − s) = 1/8."""
    s = (1 - math.sqrt(0.5)) / 2
    b = math.log(s / (1 - s)) - 8 * s
    for shift, count in ((0.0, None), (-1e-9, 3), (1e-9, 1)):
        proof = prove_fixed_points([([[8.0]], [b + shift], "sigmoid")], box=(0.0, 1.0))
        assert proof.count == count
        if count is None:
            assert proof.status.code == "unresolved"
            assert float((proof.unknown_boxes - s).abs().max()) < 1e-4
            assert proof.found == 1  # the other one, near 1


def test_a_triple_point_is_unknown() -> None:
    proof = prove_fixed_points([([[1.0]], None, "tanh")])
    assert (proof.count, proof.found, proof.status.code) == (None, 0, "unresolved")
    assert (proof.unknown_boxes[:, 0] <= 0.0).any()


@pytest.mark.parametrize("W", [np.eye(2), np.diag([1.0, 0.5])])
def test_a_continuum_is_unknown(W: np.ndarray) -> None:
    """hardtanh(x) = x on the whole square, and (x, y) ↦ (x, y/2) on a line."""
    proof = prove_fixed_points(hardtanh(W), max_boxes=20_000)
    assert not proof.complete
    assert proof.status.code in ("unresolved", "budget")
    assert proof.found == 0
    # the list of boxes is short, and holds all of them
    assert 0 < len(proof.unknown_boxes) <= 256
    low, high = proof.unknown_boxes[:, 0], proof.unknown_boxes[:, 1]
    for t in np.linspace(-1, 1, 101):
        x = torch.tensor([t, t if W[1, 1] == 1 else 0.0])
        assert ((low <= x) & (x <= high)).all(1).any()


def test_a_fixed_point_on_a_kink() -> None:
    """relu(−2x) = x at 0 only, where the slope is 0 or −2; of relu(2x) = x intervals cannot see it."""
    proof = prove_fixed_points([([[-2.0]], None, "relu")])
    assert (proof.count, proof.kind, proof.index.tolist()) == (1, ("unknown",), [1])
    # both sides contract
    proof = prove_fixed_points([([[0.5]], None, "relu")])
    assert (proof.count, proof.kind) == (1, ("stable",))
    assert prove_fixed_points([([[2.0]], None, "relu")]).status.code == "unresolved"
    # hardtanh(2x − 1) = x at −1 (kept by both sides), at 1, and on the line between: x = 2x − 1 only at 1, on the kink
    proof = prove_fixed_points(hardtanh([[2.0]], [-1.0]))
    assert not proof.complete
    assert proof.stable == 1
    assert (proof.unknown_boxes[:, 0] <= 1.0).all()
    assert (proof.unknown_boxes[:, 1] >= 1.0 - 1e-6).all()


def test_kinks_beside_a_fixed_point() -> None:
    """hardtanh(−3x + 4 − ε) crosses the diagonal at 1 − ε/4, as near to its kink as that."""
    for epsilon in (1e-3, 1e-6, 1e-9):
        proof = prove_fixed_points(hardtanh([[-3.0]], [4.0 - epsilon]))
        assert (proof.count, proof.kind) == (1, ("unstable",))


def test_a_wrong_claim_would_be_seen() -> None:
    proof = prove_fixed_points(cauchy(0, "tanh"))
    with pytest.raises(AssertionError):
        verify(cauchy(1, "tanh"), proof)


def test_huge_and_tiny_weights() -> None:
    for gain in (1e8, 1e150):
        proof = prove_fixed_points([([[gain]], None, "hardtanh")])
        assert proof.found >= 2
        assert proof.count in (None, 3)
    assert prove_fixed_points([([[1e-300]], [0.25], "tanh")]).count == 1
    overflowing = [([[1e200]], None, None), ([[1e200]], None, None), ([[1.0]], None, "tanh")]
    proof = prove_fixed_points(overflowing, max_boxes=2000)
    assert not proof.complete or proof.count == 3


# Budgets, refusals, and what a result says


def test_budgets() -> None:
    proof = prove_fixed_points(cauchy(3, "tanh", depth=3), max_boxes=10)
    assert (proof.complete, proof.count, proof.status.code, proof.n_boxes) == (False, None, "budget", 10)
    assert "boxes are left" in proof.status.message
    proof = prove_fixed_points(hardtanh(np.eye(2)), max_seconds=1e-9)
    assert proof.status.code == "budget"


def test_a_large_network_is_unknown_and_says_how_large() -> None:
    net = nn.Sequential(nn.Linear(784, 300), nn.Tanh(), nn.Linear(300, 784), nn.Tanh())
    proof = prove_fixed_points(net)
    assert (proof.count, proof.status.code, proof.n_unknown) == (None, "too_large", 1)
    assert "784" in proof.status.message
    rng = np.random.default_rng(0)
    expansive = [(rng.normal(size=(20, 20)), None, "tanh")]
    assert prove_fixed_points(expansive).status.code == "too_large"
    contractive = [(0.02 * rng.normal(size=(20, 20)), rng.normal(size=20), "tanh")]
    assert prove_fixed_points(contractive).count == 1  # the box as a whole settles it


def test_an_unbounded_search_needs_bounded_values() -> None:
    proof = prove_fixed_points([([[0.5]], None, "relu")], box=(-INF, INF))
    assert (proof.count, proof.status.code) == (None, "unbounded")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (1.0, -1.0)}, "reversed"),
        ({"box": ([0.0, 1.0], [1.0, 0.5])}, "reversed"),
        ({"box": (float("nan"), 1.0)}, "numbers"),
        ({"box": ([0.0] * 3, [1.0] * 3)}, "2 values each"),
        ({"box": 1.0}, "low, high"),
        ({"max_boxes": 0}, "max_boxes"),
        ({"max_seconds": 0.0}, "max_seconds"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prove_fixed_points(hardtanh(np.eye(2)), **options)


def test_networks_that_are_none() -> None:
    with pytest.raises(AnalysisError, match="GELU"):
        prove_fixed_points(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    proof = prove_fixed_points(nn.Sequential(nn.Linear(2, 2), nn.GELU()), throw=False)
    assert (proof.complete, proof.count, proof.status.code) == (False, None, "unsupported")
    assert proof.scalars()["proof_complete"] == 0.0
    assert proof.table() == []
    with pytest.raises(ValueError, match="itself"):
        prove_fixed_points(nn.Linear(2, 3))


def test_a_box_of_its_own_for_each_coordinate() -> None:
    proof = prove_fixed_points(hardtanh(np.diag([2.0, 2.0])), box=(torch.tensor([-1.0, 0.5]), [1.0, 1.0]))
    assert proof.count == 3
    assert proof.box.tolist() == [[-1.0, 0.5], [1.0, 1.0]]


def test_an_empty_intersection_with_the_values() -> None:
    proof = prove_fixed_points([([[0.5]], None, "sigmoid")], box=(-3.0, -2.0))
    assert (proof.count, proof.complete, proof.found) == (0, True, 0)


def test_what_a_result_says() -> None:
    proof = prove_fixed_points([([[2.0]], None, "tanh")])
    assert proof.scalars() == {"proved_count": 3.0, "proved_stable": 2.0, "proof_complete": 1.0, "unknown_boxes": 0.0}
    rows = proof.table()
    assert [row["kind"] for row in rows] == ["stable", "unstable", "stable"]
    assert rows[2]["x1"] == pytest.approx(TANH_2, abs=1e-14)
    assert all(row["radius"] < 1e-14 < 1e-2 < row["unique_radius"] for row in rows)
    incomplete = prove_fixed_points([([[1.0]], None, "tanh")])
    assert math.isnan(incomplete.scalars()["proved_count"])
    assert all(
        t.dtype in (torch.float64, torch.int64) for t in (proof.enclosures, proof.unique, proof.box, proof.index)
    )


def test_repeated_runs_agree() -> None:
    one, other = (prove_fixed_points(cauchy(5, "tanh")) for _ in range(2))
    assert torch.equal(one.enclosures, other.enclosures)
    assert one.n_boxes == other.n_boxes


def test_pictures() -> None:
    proof = prove_fixed_points(hardtanh(np.diag([2.0, 2.0])))
    ax = proof.plot()
    assert ax.get_title() == "9 fixed points, proved"
    assert {line.get_label() for line in ax.lines} == {"4 stable", "5 unstable"}
    assert sum(len(line.get_xdata()) for line in ax.lines) == 9  # type: ignore[arg-type]
    given = Figure().add_subplot()
    unknown = prove_fixed_points(hardtanh(np.eye(2)), max_boxes=500).plot(given)
    assert unknown is given
    assert "unknown" in given.get_title()
    with pytest.raises(ValueError, match="1 dimensions"):
        prove_fixed_points([([[2.0]], None, "tanh")]).plot()


def test_the_reference_itself() -> None:
    """200 bits against the closed form: the derivative of the reference is that of its values."""
    layers = cauchy(2, "tanh", width=5)
    with mp.workprec(200):
        x = [mpf("0.1"), mpf("-0.3")]
        value, J = evaluate(layers, x)
        step = mpf(2) ** -80
        moved, _ = evaluate(layers, [x[0] + step, x[1]])
        assert abs((moved[0] - value[0]) / step - J[0, 0]) < mpf(2) ** -70


def test_uniqueness_holds_where_it_is_said() -> None:
    """No other fixed point within a box of uniqueness, and the boxes are not tiny."""
    for gain in (1.5, 2.0, 4.0):
        proof = prove_fixed_points([(gain * np.eye(2), None, "tanh")])
        for k, (low, high) in enumerate(proof.unique):
            held = ((low <= proof.enclosures[:, 0]) & (proof.enclosures[:, 1] <= high)).all(1)
            assert held.nonzero().flatten().tolist() == [k]
        assert float((proof.unique[:, 1] - proof.unique[:, 0]).min()) > 1e-3


def test_a_report_proves_on_the_box_of_its_points_where_values_are_unbounded() -> None:
    """relu(0.5x + 0.2) = x at 0.4 in each coordinate; the data span [0, 1]²."""
    net = module([(np.diag([0.5, 0.5]), np.array([0.2, 0.2]), "relu")])
    report = fixed_point_report(net, torch.tensor([[0.0, 1.0], [0.5, 0.5]]), prove=True)
    assert report.proof is not None
    assert report.proof.box.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert (report.proof.count, report.proof.everywhere) == (1, False)
    assert report.scalars()["proved_count"] == 1.0
    assert fixed_point_report(net, torch.tensor([[0.0, 1.0]])).proof is None


def test_spectral_radii_prove_nothing_on_a_kink() -> None:
    """(x, y) ↦ (2y, |x|/10) near 0: its slope matrices have ρ ≤ √.2 and norms of 2; a smooth map of such a Jacobian is stable."""

    def bent(scale: float) -> list[tuple[Any, Any, Any]]:
        # |y + 10| − 10 is y
        return [
            (np.eye(2), [0.0, 10.0], torch.abs),
            (scale * np.array([[0.0, 2.0], [0.1, 0.0]]), [-20.0 * scale, 0.0], None),
        ]

    proof = prove_fixed_points(bent(1.0))
    assert (proof.count, proof.kind, proof.index.tolist()) == (1, ("unknown",), [1])
    smooth = prove_fixed_points([(np.array([[0.0, 2.0], [0.1, 0.0]]), None, "tanh")])
    assert (smooth.count, smooth.kind) == (1, ("stable",))
    small = prove_fixed_points(bent(0.3))
    assert (small.count, small.kind) == (1, ("stable",))


def test_switching_between_stable_matrices_can_diverge() -> None:
    """Why: two matrices of spectral radius 0 whose product has 4."""
    A, B = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    assert stability(Ball(A)) == stability(Ball(B)) == "stable"
    assert np.abs(np.linalg.eigvals(A @ B)).max() == 4.0
    for J in (A, B):
        assert stability(Ball(J), smooth=False) == "unknown"
    assert stability(Ball(0.4 * A), smooth=False) == "stable"
