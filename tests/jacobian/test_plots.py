import numpy as np
import torch

from fpstab.jacobian import jacobian_eigenvalues, jacobian_singular_values, jacobian_spectrum
from fpstab.jacobian.plots import plot_cloud
from tests.jacobian.maps import Autoencoder, network, random


def dots(ax):
    return np.concatenate([collection.get_offsets() for collection in ax.collections])


def test_leading_eigenvalues_come_with_their_conjugates():
    turn = torch.tensor([[0.6, -1.2], [1.2, 0.6]], dtype=torch.float64)
    ax = jacobian_spectrum(lambda x: x @ turn.T, torch.zeros(1, 2)).plot()
    np.testing.assert_allclose(sorted(dots(ax).tolist()), [[0.6, -1.2], [0.6, 1.2]])
    assert "1 of 1 points expand" in ax.get_title()


def test_clouds_show_every_eigenvalue_and_the_unit_circle():
    cloud = jacobian_eigenvalues(network(12, 12, gain=2.0), random(3, 12))
    ax = cloud.plot()
    assert len(dots(ax)) == 36
    outside = dots(ax.axes)[len(ax.collections[0].get_offsets()) :]
    assert (np.hypot(*outside.T) > 1).all()
    np.testing.assert_allclose(np.hypot(*ax.lines[0].get_data()), 1.0)


def test_very_many_are_thinned():
    ax = plot_cloud(random(50_001).to(torch.complex128))
    assert 10_000 < len(dots(ax)) <= 20_000


def test_the_density_of_the_squared_singular_values_has_the_mass_that_is_not_zero():
    cloud = jacobian_singular_values(Autoencoder(30, 10), random(4, 30))
    ax = cloud.plot()
    values, edges, _ = ax.patches[0].get_data()
    np.testing.assert_allclose((values * np.diff(edges)).sum(), 1 / 3)
    assert "67 % zero" in ax.get_title()


def test_nothing_to_draw_is_said():
    assert jacobian_singular_values(torch.zeros_like, random(2, 3)).plot().get_title() == "JJᵀ = 0"
    bad = torch.full((1, 3), torch.nan)
    assert jacobian_singular_values(torch.tanh, bad, throw=False).plot().get_title() == "no finite point"
    assert len(dots(jacobian_spectrum(torch.tanh, bad, throw=False).plot())) == 0
