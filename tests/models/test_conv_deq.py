"""The convolutional deep-equilibrium model."""

import pytest
import torch

from fpstab.equilibrium import Anderson
from fpstab.models import ConvDEQ


def test_it_solves_its_equation_each_image_by_itself():
    net = ConvDEQ(width=6, size=16, tol=1e-6, solver=Anderson(max_iter=100), seed=0)
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    injected = net.injection(x)
    assert injected.shape == (3, 6, 4, 4)
    state = net.equilibrium(injected)
    z = torch.zeros_like(injected)
    for _ in range(300):
        z = torch.tanh(net.equilibrium.layer.f.inner(z) + injected)
    torch.testing.assert_close(state, z, rtol=0, atol=1e-4)
    torch.testing.assert_close(net(x), net.head(z.mean((2, 3))), rtol=0, atol=1e-4)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["random", "orthogonal"])
def test_the_scale_is_that_of_the_map(family):
    """W∗z of white noise, away from the border, has V times its mean square."""
    net = ConvDEQ(width=32, family=family, sqrt_v=0.5, seed=0)
    weight = net.equilibrium.layer.f.inner.weight.detach()
    z = torch.randn(4, 32, 34, 34, generator=torch.Generator().manual_seed(1))
    ratio = torch.nn.functional.conv2d(z, weight).square().mean() / z.square().mean()
    assert float(ratio) == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "goe"}, "family must be 'random' or 'orthogonal'"),
        ({"size": 30}, "size must be a positive multiple of 4"),
        ({"width": 0}, "width"),
        ({"channels": 0}, "channels"),
        ({"classes": 0}, "classes"),
        ({"sqrt_v": -0.5}, "sqrt_v"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ConvDEQ(**options)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 32, 32\]"):
        ConvDEQ(width=2)(torch.zeros(1, 1, 28, 28))
