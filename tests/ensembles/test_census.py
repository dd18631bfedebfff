"""The census of many networks: hand systems, and one network at a time without any shortcut."""

import pytest
import torch

from fpstab.ensembles import RandomNetworkBatch, RandomNetworks
from fpstab.ensembles.census import FixedPointCensus, fixed_point_census, grid
from fpstab.ensembles.states import LiveStates
from fpstab.fixed_points import OUTCOMES, find_fixed_points

FIXED, CYCLE, SLOW, BOUNDED, DIVERGED, NONFINITE = range(6)


def layer(*rows, activation="hardtanh"):
    return RandomNetworkBatch((torch.tensor([rows], dtype=torch.float64),), (), activation)


def plain(net, starts=None):
    """The papers' search as one would write it: outcome and limit of every start."""
    x = grid() if starts is None else starts
    outcome, limit = torch.full((len(x),), -1), x.clone()
    with torch.no_grad():
        for _ in range(50):
            y = net(x)
            now = ((y - x).norm(dim=1) < 1e-5) & (outcome < 0)
            outcome[now], limit[now] = FIXED, y[now]
            x = y
    return outcome, limit


def test_the_grid():
    nodes = grid()
    assert len(nodes) == 41**2
    assert (nodes == 0).all(1).sum() == 1
    expected = torch.tensor([-1 + 0.05 * k for k in range(41)], dtype=torch.float64)
    torch.testing.assert_close(nodes[:41, 1], expected)
    torch.testing.assert_close(nodes[::41, 0], expected)


@pytest.mark.parametrize("merge", [True, False])
def test_twice_the_identity(merge):
    census = fixed_point_census(layer([2, 0], [0, 2]), merge=merge)
    assert census.q.tolist() == [9]
    assert census.q_stable.tolist() == [4]
    assert census.basin_sizes(0) == [400] * 4 + [20] * 4 + [1]
    expected = {(a, b) for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)}
    assert {tuple(point) for point in census.points.tolist()} == expected
    assert {tuple(p) for p, rho in zip(census.points.tolist(), census.rho, strict=True) if rho < 1} == {
        (a, b) for a, b in expected if a and b
    }
    assert float(census.share("fixed")) == 1


@pytest.mark.parametrize("merge", [True, False])
def test_minus_twice_the_identity(merge):
    census = fixed_point_census(layer([-2, 0], [0, -2]), merge=merge)
    assert census.q.tolist() == [1]
    assert census.q_stable.tolist() == [0]
    assert census.points.tolist() == [[0.0, 0.0]]
    assert census.basin_sizes(0) == [1]
    assert census.periods(0) == [2]
    assert int((census.outcome == CYCLE).sum()) == 1680


@pytest.mark.parametrize("merge", [True, False])
def test_one_direction_grows_and_one_shrinks(merge):
    census = fixed_point_census(layer([2, 0], [0, 0.5]), merge=merge)
    assert census.q.tolist() == [3]
    assert census.q_stable.tolist() == [2]
    assert census.basin_sizes(0) == [820, 820, 41]
    torch.testing.assert_close(
        census.points.sort(0).values[:, 0], torch.tensor([-1.0, 0.0, 1.0]).double(), atol=1e-3, rtol=0
    )


def test_a_rotation_has_a_long_period():
    angle = torch.tensor(2 * torch.pi / 7, dtype=torch.float64)
    turn = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
    census = fixed_point_census(layer(*turn, activation="identity"))
    assert census.basin_sizes(0) == [1]
    assert census.periods(0) == [7]
    wild = fixed_point_census(layer([0.6, -0.8], [0.8, 0.6], activation="identity"))  # no angle of finite order
    assert wild.periods(0) == []
    assert int((wild.outcome == BOUNDED).sum()) == 1680
    assert wild.scalars()["share_bounded"] == 1680 / 1681


def test_slow_and_diverging_orbits():
    slow = fixed_point_census(layer([0.95, 0], [0, 0.95], activation="identity"))
    assert (slow.outcome[slow.outcome != FIXED] == SLOW).all()
    assert int((slow.outcome == SLOW).sum()) > 1600
    far = fixed_point_census(layer([3, 0], [0, 3], activation="identity"))
    assert int((far.outcome == DIVERGED).sum()) == 1680
    assert far.q.tolist() == [1]  # the origin is a node


def test_networks_without_a_fixed_point_count():
    batch = RandomNetworkBatch((torch.tensor([[[-2.0]], [[2.0]], [[-2.0]]]).double(),), (torch.zeros(3, 1).double(),))
    starts = torch.tensor([[0.5], [-0.5], [0.7]])
    census = fixed_point_census(batch, starts=starts)
    assert census.q.tolist() == [0, 2, 0]
    assert census.scalars()["p_q0"] == pytest.approx(2 / 3)
    assert [row["q"] for row in census.table()] == [0, 2, 0]
    assert census.table()[0]["basins"] == ""
    nothing = fixed_point_census(batch.take(slice(0, 1)), starts=starts)
    assert len(nothing.points) == 0
    assert nothing.label.tolist() == [[-1] * 3]


@pytest.mark.parametrize(
    ("depth", "activation", "bias"), [(2, "hardtanh", "same"), (3, "hardtanh", "none"), (2, "tanh", "same")]
)
def test_against_one_network_at_a_time(depth, activation, bias):
    batch = RandomNetworks(depth, 20, activation=activation, bias=bias).from_seeds(range(10))
    census = fixed_point_census(batch, block=4)
    assert isinstance(census, FixedPointCensus)
    for i in range(10):
        outcome, limit = plain(batch.network(i))
        assert torch.equal(outcome == FIXED, census.outcome[i] == FIXED)
        rows = outcome == FIXED
        apart = (census.points[census.label[i][rows]] - limit[rows]).norm(dim=1)
        assert float(apart.max()) < 1e-3 if len(apart) else True
        found = find_fixed_points(batch.network(i), grid(), rule="paper", throw=False)
        assert found.rule_count == int(census.q[i])
    if bias == "none":
        assert bool((census.q % 2 == 1).all())  # 0 and pairs ±x
        assert all(1 in census.basin_sizes(i) or len(census.basin_sizes(i)) == 1 for i in range(10))


def test_shortcuts_change_nothing_that_the_papers_count():
    batch = RandomNetworks(4, 20).from_seeds(range(12))
    fast, slow = fixed_point_census(batch), fixed_point_census(batch, merge=False)
    assert torch.equal(fast.label, slow.label)
    torch.testing.assert_close(fast.points, slow.points)
    assert float((fast.outcome != slow.outcome).double().mean()) < 0.05  # chaos or a long transient
    alone = fixed_point_census(batch.take(slice(3, 4)))
    assert torch.equal(alone.outcome[0] == FIXED, fast.outcome[3] == FIXED)


def test_live_states_merge_bit_by_bit():
    batch = RandomNetworks(1).from_seeds([0, 1])
    starts = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [0.0, 1.0 + 2**-52]], dtype=torch.float64)
    live = LiveStates(batch, starts)
    twins, others = live.duplicates()
    assert sorted(zip(twins.tolist(), others.tolist(), strict=True)) == [(1, 0), (5, 4)]  # not across networks
    places, near = live.neighbours(8)
    assert sorted(zip(places.tolist(), near.tolist(), strict=True)) == [(1, 0), (3, 0), (5, 4), (7, 4)]
    assert len(live.neighbours(1)[0]) == 6


def test_ragged_states_are_evaluated_by_their_own_network():
    batch = RandomNetworks(3, 10).from_seeds(range(5))
    live = LiveStates(batch, torch.rand(1500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    live.keep(
        torch.rand(len(live), generator=torch.Generator().manual_seed(1))
        < torch.tensor([1, 0.5, 0.01, 0.0, 0.3])[live.net]
    )
    images = live.images()
    for i in range(5):
        mine = live.net == i
        torch.testing.assert_close(images[mine], batch.network(i)(live.x[mine]).detach())


def test_bad_input():
    with pytest.raises(ValueError, match="map 2 values to 3"):
        fixed_point_census(RandomNetworkBatch((torch.ones(1, 3, 2).double(),)))
    three = RandomNetworks(1, dim=3).from_seeds([0])
    with pytest.raises(ValueError, match=r"give starts \[S, 3\]"):
        fixed_point_census(three)
    with pytest.raises(ValueError, match=r"shape \(4, 2\)"):
        fixed_point_census(three, starts=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="block=0"):
        fixed_point_census(three, starts=torch.zeros(4, 3), block=0)
    with pytest.raises(ValueError, match="resolution=1"):
        grid(1)
    with pytest.raises(ValueError, match="outcome='chaos'"):
        fixed_point_census(three, starts=torch.zeros(1, 3)).share("chaos")
    assert OUTCOMES[BOUNDED] == "bounded"
