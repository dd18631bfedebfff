"""A network's equilibria: how they are found, and how stable they are."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.equilibrium import FixedPointLayer, PhantomGradient, Picard, equilibrium_report
from fpstab.equilibrium.reports import equilibrium_layers
from fpstab.results import AnalysisError
from tests.equilibrium.problems import Cell, batch, unrolled

WIDTH = 12


class Network(nn.Module):
    """Equilibria, one after the other, behind a linear layer."""

    def __init__(self, *layers):
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH).double()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(torch.zeros_like(x), x)
        return x


def rotated(radius):
    """z → Wz + x, with eigenvalues on a circle, in complex pairs."""
    W = radius * torch.linalg.qr(batch(WIDTH, WIDTH))[0]
    linear = nn.Linear(WIDTH, WIDTH, bias=False).double()
    linear.weight.data.copy_(W)

    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, z, x):
            return linear(z) + x

    return Affine()


def test_rates_of_a_known_map():
    """ρ of a rotation scaled by .8 is .8, for every point; plain iteration falls by .8 a step, and so does its adjoint."""
    network = Network(FixedPointLayer(rotated(0.8), Picard(200)))
    report = equilibrium_report(network, batch(16, WIDTH), rtol=1e-6)
    (layer,) = report.layers.values()
    np.testing.assert_allclose(layer.rho, 0.8, rtol=1e-5)
    assert bool((layer.rho_error <= 1e-6 * 0.8 * 2).all())
    scalars = report.scalars()
    for key in ("forward/rate_median", "backward/rate_median", "sqrt_v"):
        assert scalars[key] == pytest.approx(0.8, rel=1e-3), key
    assert scalars["speedup"] == pytest.approx(1, rel=1e-2)
    assert scalars["predicted_iterations"] == pytest.approx(math.log(1e-5) / math.log(0.8), rel=1e-5)
    assert scalars["orthogonality_defect"] == pytest.approx(0, abs=1e-12)
    assert scalars["share_expanding"] == scalars["dropped"] == scalars["fallback"] == 0
    assert layer.training == {}


def test_the_spectral_radius_is_numpys():
    cell, x = Cell(WIDTH, radius=0.9), batch(6, WIDTH)
    network = Network(FixedPointLayer(cell, tol=1e-10))
    report = equilibrium_report(network, x, rtol=1e-8)
    z = unrolled(cell, torch.zeros_like(x), network.stem(x)).detach()
    W = cell.W.detach().numpy()
    slopes = (1 - cell(z, network.stem(x)).detach() ** 2).numpy()
    radii = [np.abs(np.linalg.eigvals(slope[:, None] * W)).max() for slope in slopes]
    np.testing.assert_allclose(report.layers["layers.0"].rho, radii, rtol=1e-6)
    odd = np.linalg.norm((W - W.T) / 2) / np.linalg.norm(W)
    assert report.scalars()["symmetry_defect"] == pytest.approx(odd)


def test_points_of_another_dtype():
    network = Network(FixedPointLayer(Cell(WIDTH)))
    report = equilibrium_report(network, batch(3, WIDTH).float())
    assert report.status.ok
    assert report.layers["layers.0"].rho.dtype == torch.float64


def test_tuple_states_and_phantom_gradients():
    class Pair(nn.Module):
        def forward(self, z, x):
            first, second = z
            return 0.5 * second + x, -0.5 * first

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = FixedPointLayer(Pair(), backward=PhantomGradient())

        def forward(self, x):
            first, second = self.layer((torch.zeros_like(x), torch.zeros_like(x)), x)
            return first + second

    (layer,) = equilibrium_report(Two(), batch(16, 4, dtype=torch.float32)).layers.values()
    torch.testing.assert_close(layer.rho, torch.full((16,), 0.5, dtype=torch.float64), rtol=1e-2, atol=0)
    torch.testing.assert_close(layer.eigenvalue.imag.abs(), layer.rho, rtol=1e-2, atol=1e-6)
    assert layer.backward is None
    assert layer.weight == {}


def test_several_layers_and_paths():
    network = Network(FixedPointLayer(rotated(0.5)), FixedPointLayer(rotated(0.7)))
    holder = nn.ModuleDict({"net": network})
    x = batch(3, WIDTH)
    both = equilibrium_report(holder, x, map="net").scalars()
    assert both["net.layers.0/rho_max"] == pytest.approx(0.5, rel=1e-2)
    assert both["net.layers.1/rho_max"] == both["rho_max"] == pytest.approx(0.7, rel=1e-2)
    second = equilibrium_report(holder, x, layer="net.layers.1", map="net").scalars()
    assert second["rho_max"] == pytest.approx(0.7, rel=1e-2)
    assert "forward/iterations_mean" in second
    assert list(equilibrium_layers(network.layers[0], None)) == ["layer"]


def test_layers_that_are_not_there_or_not_called():
    with pytest.raises(AnalysisError, match=r"Linear holds no fpstab\.equilibrium\.FixedPointLayer"):
        equilibrium_report(nn.Linear(2, 2), torch.ones(1, 2))
    network = Network(FixedPointLayer(Cell(WIDTH)))
    network.spare = FixedPointLayer(Cell(WIDTH))
    report = equilibrium_report(network, batch(2, WIDTH))
    assert report.status.ok
    assert "does not call spare" in report.status.message
    nothing = equilibrium_report(network, batch(2, WIDTH), layer="spare")
    assert nothing.status.code == "no_equilibrium"
    assert nothing.layers == nothing.scalars() == {}


def test_a_map_without_a_derivative():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return 0.5 * z

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError("no backward")

    network = nn.Sequential(FixedPointLayer(Half.apply))
    with pytest.raises(AnalysisError, match=r"derivative of f in z cannot be computed.*no backward"):
        equilibrium_report(network, batch(2, WIDTH))


def test_the_network_is_as_it_was():
    network = Network(FixedPointLayer(Cell(WIDTH), Picard(3))).train()  # too few: the layer would warn
    with torch.no_grad():
        last = network.layers[0].last
        equilibrium_report(network, batch(2, WIDTH))
    assert network.training
    assert network.layers[0].last is last
    assert not network.layers[0]._forward_pre_hooks
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_picture():
    report = equilibrium_report(Network(FixedPointLayer(rotated(0.8), Picard(200))), batch(5, WIDTH))
    ax = report.plot()
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), 0.8, rtol=1e-2)
    assert "ρ" in ax.get_xlabel()
    assert report.plot(ax) is ax
