"""The whole search: closed forms, no false points, independence of what must not matter, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.fixed_points import OUTCOMES, find_fixed_points
from fpstab.maps import SelfMap
from fpstab.results import AnalysisError
from tests import cases


def random_network(n, hidden, gain, seed):
    """A random tanh network `[B, n] -> [B, n]` as a callable."""
    generator = torch.Generator().manual_seed(seed)
    W = gain * torch.randn(hidden, n, generator=generator, dtype=torch.float64) / n**0.5
    V = gain * torch.randn(n, hidden, generator=generator, dtype=torch.float64) / hidden**0.5
    b = 0.3 * torch.randn(hidden, generator=generator, dtype=torch.float64)
    return lambda x: torch.tanh(torch.tanh(x @ W.T + b) @ V.T)


def all_true(found, function):
    return all(cases.is_fixed_point(function, x) for x in found.points)


@pytest.mark.parametrize(
    ("case", "starts"),
    [
        (cases.doubled_tanh(1), cases.uniform(50, 1)),
        (cases.doubled_tanh(2), cases.uniform(200, 2)),
        (cases.doubled_tanh(3), cases.uniform(300, 3)),
        (cases.flipped_tanh(2), cases.uniform(50, 2)),
        (cases.slow_contraction(0.999), cases.uniform(20, 3)),
        (cases.two_rates(), cases.uniform(20, 2)),
        (cases.near_pair(5e-4), cases.uniform(50, 1, low=-4e-4, high=4e-4)),
        (cases.near_pair(5e-5), cases.uniform(50, 1, low=-4e-5, high=4e-5)),
        (cases.spiral(), cases.uniform(20, 2)),
    ],
    ids=["tanh-1", "tanh-2", "tanh-3", "flipped", "slow", "two-rates", "near", "nearer", "spiral"],
)
def test_closed_forms(case, starts):
    found = find_fixed_points(case.map, starts, unstable="newton")
    assert len(found) == found.count == len(case.points)
    distance = torch.cdist(found.points, case.points, compute_mode="donot_use_mm_for_euclid_dist")
    error, which = distance.min(1)
    assert sorted(which.tolist()) == list(range(len(case.points)))
    assert (error <= found.error_bound).all()
    assert (found.error_bound < 1e-9).all()
    assert found.kind == [case.kinds[i] for i in which.tolist()]
    rho = torch.tensor([case.rho[i] for i in which.tolist()], dtype=torch.float64)
    assert ((found.rho - rho).abs() <= found.rho_error + 1e-9).all()
    assert found.index_sum == 1
    assert found.index_defect == found.n_missing == 0
    assert not found.truncated
    assert found.status.ok


def test_labels_are_where_the_starts_go():
    starts = cases.uniform(200, 2)
    found = find_fixed_points(cases.doubled_tanh(2).map, starts)
    assert torch.equal(torch.sign(found.points[found.label]), torch.sign(starts))
    assert found.outcomes == {name: 200 * (name == "fixed") for name in OUTCOMES}
    assert found.n_starts.tolist() == [int((found.label == i).sum()) for i in range(4)]


def test_a_thousand_attractors():
    found = find_fixed_points(cases.doubled_tanh(10).map, cases.uniform(2000, 10))
    assert abs(len(found) - 879) <= 20
    assert set(found.kind) == {"attracting"}
    assert ((found.points.abs() - cases.TANH_2).abs() < 1e-12).all()
    coverage = found.coverage["starts"]
    assert coverage.chao1 == pytest.approx(1024, rel=0.06)
    assert found.index_sum == len(found)
    assert found.n_missing == len(found) - 1  # at least so many others exist


def test_attractors_alone_prove_that_others_exist():
    found = find_fixed_points(cases.doubled_tanh(2).map, cases.uniform(100, 2))
    assert found.kind == ["attracting"] * 4
    assert found.index_defect == -3


def test_cycles():
    starts = cases.uniform(100, 2)
    found = find_fixed_points(cases.flipped_tanh(2).map, starts)
    assert not len(found)
    assert [cycle.period for cycle in found.cycles] == [2, 2]
    t = cases.TANH_1_5
    for cycle in found.cycles:
        assert torch.allclose(cycle.points.abs(), torch.full((2, 2), t, dtype=torch.float64), rtol=0, atol=1e-12)
        assert torch.allclose(cycle.points[0], -cycle.points[1], rtol=0, atol=1e-12)
        assert cycle.rho == pytest.approx((1.5 * (1 - t * t)) ** 2, abs=1e-8)
        assert cycle.attracting
    same_sign = (starts[:, 0] * starts[:, 1] > 0).long()
    assert len({(int(a), int(b)) for a, b in zip(found.cycle_label, same_sign, strict=True)}) == 2
    assert sum(cycle.n_starts for cycle in found.cycles) == 100


def test_slowly_attracting_cycles():
    found = find_fixed_points(lambda x: torch.tanh(-1.01 * x), cases.uniform(20, 1), max_iter=600)
    assert [cycle.period for cycle in found.cycles] == [2]
    assert found.cycles[0].n_starts == 20
    assert found.cycles[0].rho < 1


def test_orbits_on_neutral_cycles_are_not_described_one_by_one():
    found = find_fixed_points(lambda x: -x, cases.uniform(300, 2), unstable="newton")
    assert found.outcomes["cycle"] == 300
    assert found.truncated
    assert found.kind == ["marginal"]  # the origin, with eigenvalue −1: isolated, and of index 1
    assert found.index_sum == 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_not_isolated(rank):
    projector = torch.diag(torch.tensor([1.0, float(rank > 1), float(rank > 2)], dtype=torch.float64))
    found = find_fixed_points(lambda x: x @ projector, cases.uniform(40, 3))
    assert set(found.kind) == {"non_isolated"}
    assert found.count is None
    assert found.index_sum is None
    assert found.status.code == "non_isolated"
    assert np.isnan(found.scalars()["count"])
    assert find_fixed_points(lambda x: x @ projector, cases.uniform(1, 3)).kind == ["non_isolated"]


def test_a_line_of_attraction():
    A = torch.tensor([[1.0, 0.0], [0.3, 0.5]], dtype=torch.float64)
    found = find_fixed_points(lambda x: x @ A.T, cases.uniform(30, 2))
    assert set(found.kind) == {"non_isolated"}
    assert len(found) == 30


def test_a_marginal_point_is_isolated():
    found = find_fixed_points(torch.sin, cases.uniform(10, 1), unstable="newton", max_iter=300)
    assert found.kind == ["marginal"]
    assert found.points.abs().max() < 1e-6
    assert found.outcomes["slow"] == 10  # and nobody says that they arrive
    assert (found.label == -1).all()
    assert found.truncated
    assert found.index_sum is None
    assert "marginal" in found.index_reason


def test_a_bottleneck_is_no_fixed_point():
    # for gap → 0 orbits crawl through x = 0, where the residual is as small as the gap
    for gap in (1e-6, 1e-9, 1e-11):
        with pytest.raises(AnalysisError):
            find_fixed_points(
                lambda x, gap=gap: x + x**2 + gap, cases.uniform(20, 1, low=-0.4, high=0.0), unstable="newton"
            )


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.5, 4.0))
@settings(max_examples=15, deadline=None)
def test_no_false_fixed_points(seed, n, gain):
    function = random_network(n, 20, gain, seed)
    found = find_fixed_points(function, cases.uniform(30, n, seed), unstable="newton", throw=False, max_iter=200)
    assert all_true(found, function)
    for i, kind in enumerate(found.kind):
        J = torch.func.jacrev(lambda x: function(x[None])[0])(found.points[i])
        values = torch.linalg.eigvals(J)
        assert float(values.abs().max()) == pytest.approx(float(found.rho[i]), abs=1e-6)
        assert float(torch.linalg.matrix_norm(J, 2)) == pytest.approx(float(found.sigma[i]), rel=2e-3)
        if kind in ("attracting", "saddle", "repelling"):
            inside, outside = bool((values.abs() < 1).any()), bool((values.abs() > 1).any())
            assert kind == ("saddle" if inside and outside else "attracting" if inside else "repelling")
            assert found.index[i] == torch.linalg.det(torch.eye(n) - J).sign()
    at = torch.cdist(found.points, found.points).fill_diagonal_(torch.inf)
    assert not len(found) or at.min() > 1e-6


def test_three_hundred_values():
    # more than are looked at densely: Krylov spaces, and the index from the rows of J
    function = random_network(300, 20, 1.5, 3)
    found = find_fixed_points(function, cases.uniform(20, 300), unstable="newton", max_seeds=60, throw=False)
    assert all_true(found, function)
    assert len(found) >= 1
    for i in range(len(found)):
        J = torch.func.jacrev(lambda x: function(x[None])[0])(found.points[i])
        assert float(torch.linalg.eigvals(J).abs().max()) == pytest.approx(float(found.rho[i]), rel=1e-6)
        assert found.index[i] == torch.linalg.det(torch.eye(300, dtype=torch.float64) - J).sign()


def test_independence():
    function = random_network(4, 30, 2.0, 5)
    starts = cases.uniform(60, 4)
    sources = [str(i % 2) for i in range(60)]
    reference = find_fixed_points(function, starts, unstable="newton", max_iter=300, sources=sources)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = find_fixed_points(
        function, starts[order], unstable="newton", max_iter=300, sources=[sources[i] for i in order.tolist()]
    )
    batched = find_fixed_points(function, starts, unstable="newton", max_iter=300, sources=sources, batch_size=7)
    assert len(reference) > 2
    for other, labels in ((shuffled, reference.label[order]), (batched, reference.label)):
        assert other.kind == reference.kind
        assert torch.allclose(other.points, reference.points, rtol=0, atol=1e-9)
        assert torch.allclose(other.rho, reference.rho, rtol=0, atol=1e-9)
        assert torch.equal(other.label, labels)
        assert other.index_sum == reference.index_sum
        for name, coverage in reference.coverage.items():
            assert other.coverage[name].chao1 == coverage.chao1


def test_independence_of_threads():
    function = random_network(4, 1000, 1.2, 5)
    starts = cases.uniform(6, 4)
    one = find_fixed_points(function, starts)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = find_fixed_points(function, starts)
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(one.points, two.points, rtol=0, atol=1e-9)
    assert torch.equal(one.label, two.label)


def test_the_papers_rule():
    case = cases.doubled_tanh(2)
    starts = cases.uniform(100, 2)
    found = find_fixed_points(case.map, starts, rule="paper")
    assert found.rule_count == len(found) == 4
    assert (found.tol, found.max_iter) == (1e-5, 50)
    # a rate of .98 has not settled after 50 iterations: the rule has no verdict
    with pytest.raises(AnalysisError, match="undecided"):
        find_fixed_points(cases.slow_contraction(0.98).map, cases.uniform(10, 3), rule="paper")


def test_limits_of_the_papers_rule_that_are_no_fixed_points():
    # steps below 1e-5 everywhere, and no fixed point
    found = find_fixed_points(lambda x: x + 5e-6, cases.uniform(10, 1), rule="paper", throw=False)
    assert found.rule_count == 10
    assert len(found) == 0
    assert found.outcomes["slow"] == 10


def test_seeds_are_polished_first():
    case = cases.doubled_tanh(2)
    before = find_fixed_points(case.map, cases.uniform(100, 2), unstable="newton")
    after = find_fixed_points(lambda x: torch.tanh(2.1 * x), cases.uniform(5, 2), seeds=before.points)
    assert len(after) == 9
    assert after.kind == before.kind
    assert after.coverage["starts"].n_starts == 5


@pytest.mark.parametrize("unstable", [None, "newton"])
def test_bad_rows(unstable):
    starts = cases.uniform(30, 2)
    spoilt = torch.cat((torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0]], dtype=torch.float64), starts))
    good = find_fixed_points(cases.doubled_tanh(2).map, starts, unstable=unstable)
    mixed = find_fixed_points(cases.doubled_tanh(2).map, spoilt, unstable=unstable)
    assert torch.equal(mixed.label[2:], good.label)
    assert torch.allclose(mixed.points, good.points, rtol=0, atol=1e-12)
    assert [OUTCOMES[code] for code in mixed.outcome[:2].tolist()] == ["nonfinite"] * 2


def test_nothing_found():
    for function, code in (
        (lambda x: x + 1, "none"),
        (lambda x: torch.full_like(x, torch.nan), "nonfinite"),
        (lambda x: torch.remainder(x + 2**0.5, 1.0), "undecided"),
    ):
        with pytest.raises(AnalysisError):
            find_fixed_points(function, cases.uniform(5, 1), max_iter=100)
        found = find_fixed_points(function, cases.uniform(5, 1), max_iter=100, throw=False, unstable="newton")
        assert found.status.code == code
        assert len(found) == 0
        assert found.points.shape == (0, 1)
        assert found.truncated == (code == "undecided")
        assert found.scalars()["n_attracting"] == 0
        assert found.table() == []


def test_too_few_starts_count_nothing():
    found = find_fixed_points(cases.doubled_tanh(10).map, cases.uniform(60, 10))
    assert found.coverage["starts"].coverage < 0.5
    assert found.count is None
    assert found.status.code == "not_countable"
    assert np.isnan(found.scalars()["chao1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unstable": "anderson"}, "unstable='anderson'"),
        ({"rule": "book"}, "rule='book'"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"sources": ["a"]}, "one for each of the 5 starts"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        find_fixed_points(torch.sin, cases.uniform(5, 1), **options)


def test_no_starts():
    with pytest.raises(ValueError, match="one or more"):
        find_fixed_points(nn.Linear(3, 3), torch.empty(0, 3))
    function = SelfMap(nn.Linear(3, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="one or more"):
        find_fixed_points(function, torch.empty(0, 3))


def test_not_square():
    with pytest.raises(ValueError, match=r"Linear maps \[3\] \(3 values\) to 2 values"):
        find_fixed_points(nn.Linear(3, 2), torch.zeros(1, 3))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)

    def forward(self, x):
        return torch.tanh(0.5 * self.layer(x))


def networks():
    torch.manual_seed(0)
    yield "attention", Attention(), (5, 8)
    yield (
        "convolution",
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)),
        (1, 4, 4),
    )
    yield "batch norm", nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh()), (6,)


@pytest.mark.parametrize(("network", "shape"), [pytest.param(net, shape, id=name) for name, net, shape in networks()])
def test_networks_in_train_mode_under_inference(network, shape):
    network.train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    starts = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    rng = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = find_fixed_points(network, starts, unstable="newton", max_seeds=20)
    assert network.training
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert found.images().shape == (len(found), *shape)
    function = SelfMap(network, starts)
    assert all_true(found, function)
    assert not found.points.is_inference()


def test_results():
    found = find_fixed_points(cases.doubled_tanh(2).map, cases.uniform(100, 2), unstable="newton")
    for tensor in (found.points, found.rho, found.rho_error, found.sigma, found.residual, found.error_bound):
        assert tensor.dtype == torch.float64
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
    scalars = found.scalars()
    assert all(isinstance(value, float) for value in scalars.values())
    assert scalars["n_attracting"] == 4
    assert scalars["share_fixed"] == 1.0
    assert scalars["coverage"] == 1.0
    assert [row["kind"] for row in found.table()] == found.kind
    assert found.to_csv().count("\n") == 10
    assert found.to_dataframe().shape[0] == 9
    assert found.attracting.tolist() == [0, 1, 2, 3]


def test_chaos_has_no_cycles():
    # the logistic map at 3.9: cycles are dense in the attractor, and every one repels
    found = find_fixed_points(
        lambda x: 3.9 * x * (1 - x), cases.uniform(100, 1, low=0.1, high=0.9), unstable="newton", max_iter=300
    )
    assert found.cycles == ()
    assert found.outcomes["bounded"] >= 98
    assert found.points[:, 0].tolist() == pytest.approx([0, 1 - 1 / 3.9])
    assert found.kind == ["repelling"] * 2


@pytest.mark.parametrize("n", [20, 40])
def test_a_jordan_block_has_one_fixed_point(n):
    # I − J is singular to rounding: vectors of norm 1e15 have residuals that are rounding
    def function(x):
        return 0.99 * x + nn.functional.pad(x[:, 1:], (0, 1))

    found = find_fixed_points(function, cases.uniform(20, n, low=0.0), unstable="newton", throw=False)
    assert torch.equal(found.points, torch.zeros_like(found.points))
    assert len(found) <= 1
    assert found.count != 0  # it has one
    assert found.truncated


@pytest.mark.parametrize("unstable", [None, "newton"])
def test_a_drift_is_no_fixed_point(unstable):
    found = find_fixed_points(
        lambda x: torch.stack((x[:, 0] + 5e-12, x[:, 1] / 2), 1),
        cases.uniform(20, 2),
        unstable=unstable,
        throw=False,
    )
    assert not len(found)
    assert not found.status.ok


@pytest.mark.parametrize("unstable", [None, "newton"])
def test_a_crawl_to_a_fixed_point(unstable):
    found = find_fixed_points(
        lambda x: torch.stack(((1 - 1e-11) * x[:, 0] + 1e-12, x[:, 1] / 2), 1),
        cases.uniform(20, 2),
        unstable=unstable,
        throw=False,
    )
    assert len(found) <= 1
    for x, error in zip(found.points, found.error_bound, strict=True):
        assert (x - torch.tensor([0.1, 0.0], dtype=torch.float64)).norm() <= error


@pytest.mark.parametrize("n", [3, 40])
def test_lines_of_fixed_points_stay(n):
    projector = torch.diag(torch.tensor([1.0] + [0.0] * (n - 1), dtype=torch.float64))
    for function in (lambda x: 1 * x, lambda x: x @ projector):
        found = find_fixed_points(function, cases.uniform(20, n), unstable="newton", max_seeds=40)
        assert set(found.kind) == {"non_isolated"}
        assert found.count is None
        assert torch.isfinite(found.error_bound).all()


def test_a_multiple_root_is_not_counted():
    found = find_fixed_points(torch.sin, torch.zeros(1, 1, dtype=torch.float64))
    assert found.kind == ["marginal"]
    assert found.index.tolist() == [0]
    assert found.count is None


def not_a_number(x):
    """Where x ≤ 0 autograd says 0·∞."""
    return torch.where(x > 1, x.sqrt(), 0.5 * x - 0.5)


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("unstable", [None, "newton"])
def test_a_gradient_that_is_not_finite(n, unstable):
    found = find_fixed_points(not_a_number, cases.uniform(20, n, low=-2.0), unstable=unstable, max_seeds=20)
    assert found.kind[0] == "attracting"
    assert found.n_starts[0] == 20
    distance = (found.points[0] + 1).norm()
    assert distance <= found.error_bound[0] < 1e-9
    assert abs(found.rho[0] - 0.5) <= found.rho_error[0]


def test_a_jump_is_no_attractor():
    found = find_fixed_points(not_a_number, cases.uniform(20, 1, low=-2.0, high=2.0), unstable="newton")
    assert found.points[found.attracting].tolist() == [[-1.0]]  # not 1, the end of the other branch


def test_kinks():
    found = find_fixed_points(lambda x: torch.tanh(3 * x.abs()), cases.uniform(40, 3), unstable="newton")
    positive = (found.points > 0.5).all(1)
    assert len(found) > 1
    assert [kind == "attracting" for kind in found.kind] == positive.tolist() == [True] + [False] * (len(found) - 1)
    assert set(found.kind[1:]) == {"marginal"}  # they repel, though autograd says J = 0 along an axis
    assert found.index[1:].tolist() == [0] * (len(found) - 1)
    assert found.index_sum is None
    assert "kink" in found.index_reason
    found = find_fixed_points(lambda x: 2 * x.abs(), cases.uniform(20, 3), unstable="newton")
    assert found.kind == ["marginal"]
    assert found.index.tolist() == [0]


@pytest.mark.parametrize("unit", [1e-7, 1e-30])
def test_small_worlds(unit):
    found = find_fixed_points(
        lambda x: unit * torch.tanh(2 * x / unit), unit * cases.uniform(30, 1), unstable="newton", sources=["a"] * 30
    )
    assert found.kind == ["attracting", "attracting", "repelling"]
    exact = unit * torch.tensor([-cases.TANH_2, cases.TANH_2, 0.0], dtype=torch.float64)
    assert ((found.points[:, 0] - exact).abs() <= found.error_bound + 1e-15 * unit).all()
    assert (found.error_bound <= 1e-9 * unit).all()
    assert found.index_defect == 0


def test_small_cycles():
    found = find_fixed_points(lambda x: 1e-7 * torch.tanh(-1.5 * x / 1e-7), 1e-7 * cases.uniform(10, 1))
    assert [cycle.period for cycle in found.cycles] == [2]
    assert found.cycles[0].points.abs().flatten().tolist() == pytest.approx([1e-7 * cases.TANH_1_5] * 2, rel=1e-9)


def test_small_starts_that_go_far():
    found = find_fixed_points(cases.doubled_tanh(1).map, 1e-12 * cases.uniform(10, 1), unstable="newton")
    assert found.kind[:2] == ["attracting"] * 2
    assert found.points[:2, 0].tolist() == pytest.approx([-cases.TANH_2, cases.TANH_2], abs=1e-12)
