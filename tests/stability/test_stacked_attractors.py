"""The classification of many chains against that of each, and against closed forms."""

import math

import pytest
import torch
from torch import nn

from fpstab.experiments.dynamics.models import GRID, stacks
from fpstab.maps import SelfMap
from fpstab.stability import classify_attractor
from fpstab.stability.attractors import default_starts
from fpstab.stability.stacked_attractors import classify_stack
from fpstab.stability.stacks import ChainStack


def plane_chains(*matrices, sigma=None):
    weights = torch.stack([torch.as_tensor(each, dtype=torch.float64) for each in matrices])[:, None]
    return ChainStack(weights, None, [sigma])


def rotation(angle, scale=1.0):
    return scale * torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )


def test_linear_maps():
    """A contraction, an expansion, a saddle, a projector, a rotation by a right angle and one by 1 rad."""
    stack = plane_chains(
        0.5 * torch.eye(2), 2 * torch.eye(2), torch.diag(torch.tensor([0.5, 2.0])), torch.diag(torch.tensor([1.0, 0.0])),
        rotation(math.pi / 2), rotation(1.0),
    )  # fmt: skip
    found = classify_stack(stack)
    assert found.labels == ("single", "unstable", "unstable", "line", "cycle", "cycle")
    assert found.careful.tolist() == [False, False, False, True, True, True]
    assert float(found.lyapunov[0]) == pytest.approx(math.log(0.5), abs=1e-12)
    assert found.counts[0] == {"fixed": 24}
    assert found.counts[1] == {"unstable": 24}
    assert torch.equal(found.points[0], torch.zeros(1, 2, dtype=torch.float64))
    assert found.scalars()["cycle"] == 2.0
    assert found.scalars()["n_careful"] == 3.0


def test_bistable_maps():
    """tanh(2x) in each coordinate has four attracting fixed points (±a, ±a), a = tanh(2a)."""
    found = classify_stack(plane_chains(2 * torch.eye(2), 0.9 * torch.eye(2), sigma=nn.Tanh()))
    assert found.labels == ("multiple", "single")
    assert not found.careful.any()
    assert found.points[0].shape == (4, 2)
    a = 0.5
    for _ in range(200):
        a = math.tanh(2 * a)
    assert torch.allclose(found.points[0].abs(), torch.full((4, 2), a, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.rho[0], torch.full((4,), 2 * (1 - a * a), dtype=torch.float64), atol=1e-12)


def test_some_orbits_leave():
    """elu(2x): above 0 everything doubles; below, x = e^{2x} − 1 attracts, at −0.7968…."""
    stack = ChainStack(torch.tensor([[[[2.0]]]]), None, [nn.ELU()])
    fixed = -0.5
    for _ in range(200):
        fixed = math.expm1(2 * fixed)
    most = classify_stack(stack, torch.tensor([[3.0], [-3.0], [-1.0]]))
    assert (most.labels, most.counts) == (("single",), ({"unstable": 1, "fixed": 2},))
    assert float(most.points[0]) == pytest.approx(fixed, abs=1e-12)
    assert float(most.lyapunov[0]) == pytest.approx(math.log(2 * math.exp(2 * fixed)), abs=1e-9)
    few = classify_stack(stack, torch.tensor([[3.0], [2.0], [-1.0]]))
    assert (few.labels, few.counts) == (("unstable",), ({"unstable": 2, "fixed": 1},))
    assert math.isnan(float(few.lyapunov[0]))


def test_an_unknown_kink_is_left_to_care():
    found = classify_stack(plane_chains(0.5 * torch.eye(2), sigma=nn.Hardtanh()))
    assert found.labels == ("single",)
    assert found.careful.tolist() == [True]


@pytest.mark.parametrize("activated", [True, False])
def test_labels_of_the_grid_are_those_of_each_network(activated):
    """A random sample of the networks that are decided together; those with care are decided by the same function."""
    draw = torch.Generator().manual_seed(11 + activated)
    n = 0
    starts = default_starts(2)
    for places, stack in stacks(GRID, activated=activated):
        if GRID[places[0]].depth == 4:
            continue
        chosen = torch.randperm(len(stack), generator=draw)[:2].tolist()
        part = stack.select(chosen)
        found = classify_stack(part)
        for i in (~found.careful).nonzero()[:, 0].tolist():
            one = classify_attractor(SelfMap(part.network(i), starts[:1], checked=True), starts, throw=False)
            assert (found.labels[i], found.counts[i]) == (one.label, {k: v for k, v in one.counts.items() if v})
            if one.label != "unstable":
                assert float(found.lyapunov[i]) == pytest.approx(one.lyapunov, abs=1e-5)
                assert len(found.points[i]) == int((one.fixed_points.n_starts > 0).sum())
            n += 1
    assert n >= 8


def test_a_line_of_fixed_points_with_row_sums_that_are_one_to_rounding():
    for a, b in ((0.3, 0.9), (0.505, 0.46), (0.1, 0.7)):
        W = torch.tensor([[a, 1 - a], [b, 1 - b]], dtype=torch.float64)
        found = classify_attractor(lambda x, W=W: torch.relu(x @ W.T), default_starts(2))
        assert found.label == "line"


def test_slow_escape_is_no_chaos():
    """x ↦ 1.0037x: a positive exponent, with a standard error of nothing, and no attractor."""
    scale = 1.0037
    found = classify_attractor(lambda x: scale * x, torch.tensor([[1.0], [2.0]]), throw=False)
    assert found.label == "unstable"
    assert found.counts == {"unstable": 2}


def test_no_starts():
    with pytest.raises(ValueError, match="starts"):
        classify_stack(plane_chains(torch.eye(2)), torch.empty(0, 2))


def test_the_picture():
    ax = classify_stack(plane_chains(0.5 * torch.eye(2))).plot()
    assert sum(bar.get_height() for bar in ax.patches) == 1
