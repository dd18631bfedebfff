"""Basins on windows and planes."""

import pytest
import torch
from torch import nn

from fpstab.fixed_points import basins
from fpstab.results import AnalysisError
from tests import cases


@pytest.mark.parametrize("rule", [None, "paper"])
def test_the_papers_grid(rule):
    found = basins(cases.doubled_tanh(2).map, rule=rule)
    nodes = torch.linspace(-1, 1, 41, dtype=torch.float64)
    assert found.label.shape == (41, 41)
    points = found.fixed_points.points
    for i, y in enumerate(nodes.tolist()):
        for j, x in enumerate(nodes.tolist()):
            signs = torch.tensor([round(20 * x), round(20 * y)]).sign()  # 0 on the axes, which lead to saddles
            assert torch.equal(points[found.label[i, j]].round().long(), signs)
    assert found.fixed_points.kind == ["attracting"] * 4 + ["saddle"] * 4 + ["repelling"]
    assert found.fractions.tolist() == pytest.approx([400 / 1681] * 4 + [20 / 1681] * 4 + [1 / 1681])
    assert found.undecided == 0


def test_intervals_hold_the_true_share():
    # the left half of the window, and its right: x ↦ tanh 2x in the first coordinate
    squash = torch.tensor([1.0, 0.1], dtype=torch.float64)
    for resolution in (10, 21, 64):
        found = basins(lambda x: torch.tanh(2 * x) * squash, ((-1, 2), (0, 1)), resolution)
        assert found.intervals[0, 0] <= 1 / 3 <= found.intervals[0, 1]
        assert found.intervals[1, 0] <= 2 / 3 <= found.intervals[1, 1]
        assert (found.intervals[:, 0] <= found.fractions).all()
        assert (found.fractions <= found.intervals[:, 1]).all()
        assert 0 < found.boundary < 2 / resolution


def test_cycles_have_basins():
    found = basins(cases.flipped_tanh(2).map, resolution=10)
    assert found.label.unique().tolist() == [0, 1]
    assert len(found.fixed_points) == 0
    assert found.fractions.tolist() == [0.5, 0.5]


def test_planes_of_a_space():
    case = cases.doubled_tanh(5)
    origin = 0.3 * torch.ones(5)
    u, v = torch.zeros(5), torch.zeros(5)
    u[1], v[3] = 1.0, 1.0
    found = basins(case.map, resolution=8, plane=(origin, u, v))
    points = found.fixed_points.points
    nodes = torch.linspace(-1, 1, 8, dtype=torch.float64)
    for i, t in enumerate(nodes.tolist()):
        for j, s in enumerate(nodes.tolist()):
            expected = torch.tensor([0.3, 0.3 + s, 0.3, 0.3 + t, 0.3]).sign()
            assert torch.equal(points[found.label[i, j]].sign().float(), expected)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh())
    image = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert basins(net, resolution=3, plane=tuple(image)).label.shape == (3, 3)


def test_undecided_nodes_are_not_hidden():
    def function(p):
        x, y = p[:, :1], p[:, 1:]
        return torch.where(y > 0, torch.cat((x / 2, y / 2 + 0.5), 1), torch.cat((1 - 1.9 * x**2, y), 1))  # chaos below

    found = basins(function, resolution=10, max_iter=100)
    assert (found.label[:5] == -1).all()
    assert (found.label[5:] == 0).all()
    assert found.undecided == 0.5
    assert found.fixed_points.truncated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": ((1, -1), (0, 1))}, "window="),
        ({"resolution": 1}, "resolution=1"),
        ({"plane": (torch.zeros(2), torch.zeros(2), torch.ones(2))}, "parallel"),
        ({"plane": (torch.zeros(2), torch.ones(3), torch.ones(2))}, r"\[2, 3, 2\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        basins(torch.sin, **arguments)


def test_maps_of_other_spaces():
    with pytest.raises(ValueError, match="plane="):
        basins(nn.Linear(3, 3))
    with pytest.raises(AnalysisError):
        basins(lambda x: x + 1, resolution=3)
    assert basins(lambda x: x + 1, resolution=3, throw=False).status.code == "none"


def test_scalars_and_table():
    found = basins(cases.doubled_tanh(2).map, resolution=10)
    assert found.scalars()["largest_basin"] == pytest.approx(0.25)
    assert found.scalars()["share_attracted"] == pytest.approx(1)
    assert [row["fraction"] for row in found.table()] == pytest.approx([0.25] * 4)
