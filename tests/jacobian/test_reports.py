import numpy as np
import pytest
import torch
from torch import nn

from fpstab.esd import tail_verdict
from fpstab.jacobian import jacobian_report


def linear(n=40, seed=0):
    W = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / n**0.5
    return W, lambda x: x @ W.T


def test_at_the_data():
    W, function = linear()
    x = torch.rand(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    report = jacobian_report(function, x, sigma=True, rtol=1e-8)
    np.testing.assert_allclose(report.spectrum.rho, np.abs(np.linalg.eigvals(W)).max(), rtol=1e-7)
    np.testing.assert_allclose(report.spectrum.sigma, np.linalg.norm(W, 2), rtol=1e-7)
    np.testing.assert_allclose(report.residual, np.linalg.norm(x @ W.T - x, axis=1), rtol=1e-12)
    assert report.cloud is None
    assert "tail_verdict" not in report.scalars()


def test_the_residual_is_that_of_the_data_wherever_the_spectrum_is():
    x, origin = torch.full((3, 2), 0.5), torch.zeros(1, 2)
    report = jacobian_report(lambda x: torch.tanh(2 * x), x, at=origin)
    assert report.spectrum.rho.tolist() == [pytest.approx(2.0)]
    assert report.residual.tolist() == [pytest.approx((np.tanh(1) - 0.5) * 2**0.5)] * 3


def test_the_whole_spectrum_at_the_first_point():
    W, function = linear(100)
    report = jacobian_report(function, torch.zeros(2, 100), whole=True)
    expected = np.linalg.eigvals(W)
    found = report.cloud.eigenvalues
    assert found.shape == (1, 100)
    np.testing.assert_allclose(np.sort(found[0].abs()), np.sort(np.abs(expected)), rtol=1e-8)
    assert report.tail.label == tail_verdict(W).label
    assert report.scalars()["tail_verdict"] == report.tail.code


def test_points_without_a_result_leave_the_others():
    x = torch.tensor([[1.0, 1.0], [torch.nan, 0.0]])
    report = jacobian_report(lambda x: x**2 / 4, x)
    assert report.status.ok
    assert report.spectrum.rho[0] == pytest.approx(0.5)
    assert torch.isnan(report.spectrum.rho[1])
    nothing = jacobian_report(lambda x: x**2 / 4, torch.full((2, 2), torch.nan), whole=True)
    assert nothing.status.code == "nonfinite"
    assert "tail_verdict" not in nothing.scalars()


def test_a_map_between_spaces_is_refused():
    with pytest.raises(ValueError, match=r"4 values.* to 3 values"):
        jacobian_report(nn.Linear(4, 3), torch.zeros(1, 4))
