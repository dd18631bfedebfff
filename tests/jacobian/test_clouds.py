import math

import pytest
import torch

from fpstab.esd import tail_verdict, weight_spectrum
from fpstab.jacobian import jacobian_eigenvalues, jacobian_singular_values, jacobian_tails
from fpstab.maps import SelfMap
from fpstab.results import AnalysisError
from tests.jacobian.maps import Autoencoder, brute_force, network, random


def by_place(values):
    return sorted(values.tolist(), key=lambda z: (round(z.real, 8), round(z.imag, 8)))


@pytest.mark.parametrize(
    "phi", [network(20, 30, 20), Autoencoder(20, 12, 5), Autoencoder(20, 30)], ids=["dense", "narrow", "wide"]
)
def test_eigenvalues_against_brute_force(phi):
    x = random(3, 20)
    found = jacobian_eigenvalues(phi, x).eigenvalues
    assert found.shape == (3, 20)
    assert (found.abs().diff(dim=1) <= 1e-12).all()
    for ours, J in zip(found, brute_force(phi, x), strict=True):
        theirs = torch.linalg.eigvals(J)
        cost = (ours[:, None] - theirs).abs()
        assert float(cost.amin(0).max()) < 1e-7  # zeros of a low rank are found to the root of rounding
        torch.testing.assert_close(ours.sum().real, J.trace(), rtol=1e-9, atol=1e-10)


def test_singular_values_against_the_gram_matrix():
    for shape in ((12, 7), (7, 12)):
        phi, x = network(*shape), random(3, shape[0])
        cloud = jacobian_singular_values(phi, x)
        J = brute_force(phi, x)
        gram = torch.linalg.eigvalsh(J @ J.mT).flip(1)
        torch.testing.assert_close(cloud.eigenvalues, gram, rtol=1e-9, atol=1e-14)
        assert cloud.shape == (shape[1], shape[0])
        assert cloud.scalars()["sigma_max"] == pytest.approx(float(torch.linalg.matrix_norm(J, 2).max()))


def test_many_points_are_taken_in_parts(monkeypatch):
    phi, x = Autoencoder(20, 5), random(7, 20)
    whole, values = jacobian_eigenvalues(phi, x), jacobian_singular_values(phi, x)
    monkeypatch.setattr("fpstab.jacobian.clouds._ENTRIES", 1000)
    torch.testing.assert_close(
        jacobian_eigenvalues(phi, x).eigenvalues.abs(), whole.eigenvalues.abs(), rtol=1e-9, atol=1e-14
    )
    torch.testing.assert_close(
        jacobian_singular_values(phi, x).singular_values, values.singular_values, rtol=1e-9, atol=1e-14
    )


def test_rows_that_are_not_finite_are_said_and_harm_no_other():
    x = torch.tensor([[1.0, 4.0], [0.0, 1.0], [torch.nan, 1.0]])
    for analysis, name in ((jacobian_eigenvalues, "eigenvalues"), (jacobian_singular_values, "singular_values")):
        with pytest.raises(AnalysisError, match="at 2 of 3 points"):
            analysis(torch.sqrt, x)
        found = getattr(analysis(torch.sqrt, x, throw=False), name)
        assert torch.isnan(found.abs()).any(1).tolist() == [False, True, True]
        torch.testing.assert_close(found[0].abs(), torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert [verdict.status.ok for verdict in jacobian_tails(torch.sqrt, x)] == [True, False, False]


def test_no_points_and_other_spaces():
    phi = SelfMap(torch.tanh, random(1, 3))
    assert jacobian_eigenvalues(phi, random(0, 3)).eigenvalues.shape == (0, 3)
    assert math.isnan(jacobian_singular_values(phi, random(0, 3)).scalars()["sigma_max"])
    with pytest.raises(ValueError, match="map of a space to itself"):
        jacobian_eigenvalues(network(3, 2), random(1, 3))


def test_tails_of_light_and_heavy_layers():
    g = torch.Generator().manual_seed(0)
    light = torch.randn(100, 100, generator=g, dtype=torch.float64)
    heavy = torch.empty(100, 100, dtype=torch.float64).cauchy_(generator=g)
    x = torch.zeros(1, 100)
    assert str(jacobian_tails(lambda z: torch.tanh(z @ light.T), x)[0]) == str(tail_verdict(light)) == "light"
    assert jacobian_tails(lambda z: torch.tanh(z @ heavy.T), x)[0].label == "heavy"
    cloud = jacobian_singular_values(lambda z: torch.tanh(z @ heavy.T), x)
    torch.testing.assert_close(cloud.eigenvalues[0].flip(0), weight_spectrum(heavy).eigenvalues, rtol=1e-6, atol=1e-6)
