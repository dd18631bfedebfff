"""Births and deaths."""

import pytest
import torch

from fpstab.fixed_points import track
from tests import cases


def test_points_that_moved_a_little():
    before = cases.doubled_tanh(3).points
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(before), generator=generator)
    after = before[order] + 0.05 * torch.randn(before.shape, generator=generator, dtype=torch.float64)
    moved = track(before, after)
    assert torch.equal(moved.matched[:, 0], torch.arange(27))
    assert torch.equal(order[moved.matched[:, 1]], torch.arange(27))
    assert torch.allclose(moved.distance, (after[moved.matched[:, 1]] - before).norm(dim=1))
    assert len(moved.births) == len(moved.deaths) == 0


def test_a_pitchfork():
    # the origin goes on as a repeller, two attractors are born
    before, after = torch.zeros(1, 1), torch.tensor([[-0.4], [0.001], [0.4]])
    moved = track(before, after)
    assert moved.matched.tolist() == [[0, 1]]
    assert moved.births.tolist() == [0, 2]
    back = track(after, before)
    assert back.deaths.tolist() == [0, 2]


def test_the_tolerance():
    before, after = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.2], [1.6]])
    assert track(before, after, tolerance=0.3).matched.tolist() == [[0, 0]]
    assert track(before, after, tolerance=0.3).scalars()["n_births"] == 1
    assert track(before, after, tolerance=0.0).matched.shape == (0, 2)
    with pytest.raises(ValueError, match="tolerance"):
        track(before, after, tolerance=-1.0)


def test_nothing_before_or_after():
    points = torch.zeros(2, 5)
    assert track(torch.empty(0, 5), points).births.tolist() == [0, 1]
    assert track(points, torch.empty(0, 5)).deaths.tolist() == [0, 1]
    assert track(torch.empty(0, 5), torch.empty(0, 5)).scalars()["n_survivors"] == 0
    with pytest.raises(ValueError, match="5 values"):
        track(points, torch.zeros(2, 4))
