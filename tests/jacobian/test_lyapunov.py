import math

import numpy as np
import pytest
import torch

from fpstab.jacobian import lyapunov_exponents
from fpstab.results import AnalysisError
from tests.jacobian.maps import network, random


def henon(x):
    return torch.stack((1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]), 1)


def test_linear_maps_have_the_logarithms_of_their_moduli():
    turn = torch.tensor([[0.3, -0.4], [0.4, 0.3]], dtype=torch.float64)
    A = torch.block_diag(torch.tensor([[1.2]], dtype=torch.float64), turn)
    found = lyapunov_exponents(lambda x: x @ A.T, torch.zeros(2, 3), k=3, steps=100)
    expected = torch.tensor([1.2, 0.5, 0.5], dtype=torch.float64).log().expand(2, 3)
    torch.testing.assert_close(found.exponents, expected, rtol=1e-12, atol=1e-12)
    assert float(found.standard_error.max()) < 1e-12


def test_the_henon_attractor():
    """Exponents .41922 and ln .3 − .41922 (Sprott, Chaos and Time-Series Analysis, 2003)."""
    found = lyapunov_exponents(henon, 0.1 * random(20, 2), k=2, steps=1500)
    torch.testing.assert_close(
        found.exponents.sum(1), torch.full((20,), math.log(0.3), dtype=torch.float64), rtol=1e-9, atol=0
    )  # J has determinant −.3 everywhere
    mean, spread = float(found.exponents[:, 0].mean()), float(found.exponents[:, 0].std())
    assert mean == pytest.approx(0.41922, abs=4 * spread / 20**0.5 + 1e-4)
    assert 0.5 < float(found.standard_error[:, 0].mean()) / spread < 2  # the error that is claimed is the one there is
    assert found.scalars()["share_chaotic"] == 1


def test_against_a_product_of_jacobians_by_numpy():
    phi, x = network(6, 6, gain=1.6), random(2, 6)
    found = lyapunov_exponents(phi, x, k=3, steps=40, transient=5, generator=torch.Generator().manual_seed(3))
    for b in range(2):
        point = x[b]
        Q = np.linalg.qr(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).numpy())[0]
        logs = []
        for _ in range(45):
            J = torch.autograd.functional.jacobian(lambda z: phi(z[None])[0], point).numpy()
            Q, R = np.linalg.qr(J @ Q)
            logs.append(np.log(np.abs(np.diag(R))))
            point = phi(point[None])[0].detach()
        np.testing.assert_allclose(found.exponents[b].numpy(), np.sort(np.mean(logs[5:], 0))[::-1], rtol=1e-9)
        torch.testing.assert_close(found.points[b], point, rtol=1e-9, atol=0)


def test_an_orbit_that_explodes_harms_no_other():
    x = torch.tensor([[0.1, 0.1], [3.0, 3.0], [0.2, 0.1]])
    with pytest.raises(AnalysisError, match="1 of 3 orbits left the finite numbers"):
        lyapunov_exponents(henon, x, steps=50)
    found = lyapunov_exponents(henon, x, steps=50, throw=False)
    alone = lyapunov_exponents(henon, x[[0, 2]], steps=50)
    assert torch.isnan(found.exponents[1, 0])
    torch.testing.assert_close(found.exponents[[0, 2]], alone.exponents, rtol=1e-9, atol=1e-12)
    assert math.isfinite(found.scalars()["lyapunov_max"])


def test_a_kernel_has_exponent_minus_infinity():
    found = lyapunov_exponents(lambda x: x * torch.tensor([0.5, 0.0]), torch.ones(1, 2), k=2, steps=20)
    assert float(found.exponents[0, 0]) == pytest.approx(math.log(0.5))
    assert float(found.exponents[0, 1]) == -math.inf


@pytest.mark.parametrize(
    ("arguments", "message"), [({"k": 3}, "k=3"), ({"steps": 19}, "steps=19"), ({"transient": -1}, "transient=-1")]
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        lyapunov_exponents(henon, torch.zeros(1, 2), **arguments)
