import math

import pytest
import torch

from fpstab.fixed_points import fixed_point_report

ROOT = 0.9575040240772687  # tanh(2x) = x


def gain(x):
    return torch.tanh(2 * x)


def test_what_is_stored_and_what_is_recovered():
    data = torch.tensor([[ROOT, ROOT], [0.0, 0.0], [0.0, ROOT], [0.4, -0.4]], dtype=torch.float64)
    report = fixed_point_report(gain, data, tolerance=1e-3)
    assert report.stored.tolist() == [True, True, True, False]  # an attractor, the repelling point, a saddle, none
    # orbits that start on 0 and on the saddle stay there; the last one goes to an attractor far away
    assert report.recovered.tolist() == [True, True, True, False]
    torch.testing.assert_close(report.residual, (gain(data) - data).norm(dim=1), rtol=0, atol=1e-15)
    assert report.change is None
    assert report.basins.label.shape == (41, 41)


def test_the_tolerance_is_relative_to_the_spread_of_the_data():
    data = torch.tensor([[ROOT + 0.05], [-ROOT - 0.05]], dtype=torch.float64)  # both a spread of about 1 from the mean
    assert fixed_point_report(gain, data, tolerance=0.06).recovered.all()
    assert not fixed_point_report(gain, data, tolerance=0.04).recovered.any()


def test_a_single_point_is_measured_from_zero():
    assert fixed_point_report(gain, torch.tensor([[1.0]]), tolerance=0.05).recovered.all()
    assert not fixed_point_report(gain, torch.tensor([[1.0]]), tolerance=0.03).recovered.any()


def test_changes_since_an_earlier_moment():
    data = torch.tensor([[0.9, 0.9], [-0.9, 0.9], [0.9, -0.9], [-0.9, -0.9]])
    before = fixed_point_report(lambda x: torch.tanh(x / 2), data)
    after = fixed_point_report(gain, data, previous=before.found.points)
    assert [before.scalars()[key] for key in ("count", "n_births")] == [1, 0]
    assert [after.scalars()[key] for key in ("count", "n_births", "n_deaths")] == [9, 8, 0]


def test_points_of_before_do_not_count_as_starts():
    data = torch.tensor([[0.3], [0.4]])
    alone = fixed_point_report(gain, data)
    warm = fixed_point_report(gain, data, previous=alone.found.points)
    assert (
        [c.n_starts for c in warm.found.coverage.values()]
        == [c.n_starts for c in alone.found.coverage.values()]
        == [2, 2]
    )


def test_a_row_that_is_not_finite_leaves_the_others():
    report = fixed_point_report(gain, torch.tensor([[ROOT], [math.nan], [-0.5]], dtype=torch.float64), tolerance=1e-3)
    assert report.recovered.tolist() == [True, False, False]
    assert report.scalars()["residual_max"] == pytest.approx(math.tanh(1) - 0.5)


def test_equal_values_everywhere_get_a_box():
    assert fixed_point_report(gain, torch.full((2, 2), 0.5)).basins.window == ((-0.5, 1.5), (-0.5, 1.5))


def test_what_is_refused():
    with pytest.raises(ValueError, match="tolerance=0"):
        fixed_point_report(gain, torch.zeros(1, 2), tolerance=0)
    with pytest.raises(ValueError, match="3 values"):
        fixed_point_report(torch.nn.Linear(4, 3), torch.zeros(1, 4))
