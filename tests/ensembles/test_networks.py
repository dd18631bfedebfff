"""Batches of random networks against one network at a time, and their laws against scipy's."""

import math

import pytest
import scipy.stats
import torch

from fpstab.ensembles import RandomNetworkBatch, RandomNetworks
from fpstab.ensembles.distributions import distribution_of
from fpstab.ensembles.networks import activation_module


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("activation", ["hardtanh", "tanh", "sigmoid", "erf", "leaky_relu", "PReLU", "identity"])
@pytest.mark.parametrize("bias", ["same", "unit", "none"])
def test_a_batch_is_its_networks(activation, bias):
    law = RandomNetworks(3, 7, 2, activation=activation, bias=bias, distribution="normal", scale=0.6)
    batch = law.sample(4, generator())
    x = torch.randn(4, 5, 2, dtype=torch.float64, generator=generator(1))
    y, J = batch(x), batch.jacobian(x)
    assert y.shape == (4, 5, 2)
    for i in range(4):
        net = batch.network(i)
        assert len(net) == 6  # the activation after the last layer, too
        torch.testing.assert_close(y[i], net(x[i]).detach(), rtol=1e-13, atol=1e-13)
        each = torch.stack([torch.autograd.functional.jacobian(net, point) for point in x[i]])
        torch.testing.assert_close(J[i], each, rtol=1e-12, atol=1e-13)
    assert not y.requires_grad
    assert not J.requires_grad


def test_shapes_and_scales():
    law = RandomNetworks(3, 50, 2)
    assert law.widths == (2, 50, 50, 2)
    assert law.scales == (1 / 2, 1 / 50, 1 / 50)
    assert RandomNetworks(3, 50, 2, scale="1/fan_out").scales == (1 / 50, 1 / 50, 1 / 2)
    assert RandomNetworks(2, 25, 4, scale="1/sqrt_fan_in").scales == (1 / 2, 1 / 5)
    assert RandomNetworks(2, 25, 4, scale=0.3).scales == (0.3, 0.3)
    batch = law.sample(3, generator())
    assert [tuple(w.shape) for w in batch.weights] == [(3, 50, 2), (3, 50, 50), (3, 2, 50)]
    assert [tuple(b.shape) for b in batch.biases] == [(3, 50), (3, 50), (3, 2)]
    assert RandomNetworks(3, 50, 2, bias="none").sample(1, generator()).biases == ()
    assert RandomNetworks(1, 50, 3).widths == (3, 3)


def test_scale_and_biases_are_those_of_the_reading():
    for distribution in ("cauchy", "normal"):
        batch = RandomNetworks(2, 400, 2, distribution=distribution).sample(60, generator())
        spread = (lambda t: float(t.abs().median())) if distribution == "cauchy" else (lambda t: float(t.std()))
        assert spread(batch.weights[0]) == pytest.approx(1 / 2, rel=0.03)
        assert spread(batch.weights[1]) == pytest.approx(1 / 400, rel=0.03)
        assert spread(batch.biases[0]) == pytest.approx(1 / 2, rel=0.03)
        unit = RandomNetworks(2, 400, 2, distribution=distribution, bias="unit").sample(60, generator())
        assert spread(unit.biases[0]) == pytest.approx(1, rel=0.03)
        assert torch.equal(unit.weights[0], batch.weights[0])


def test_the_first_networks_do_not_depend_on_how_many_are_drawn():
    for distribution in ("cauchy", "normal", "uniform", "student-t(3)", "stable(1.5)"):
        law = RandomNetworks(2, 5, distribution=distribution)
        few, many = law.sample(2, generator(3)), law.sample(6, generator(3))
        assert all(torch.equal(a, b[:2]) for a, b in zip(few.weights, many.weights, strict=True))
        named = law.from_seeds([11, 3])
        assert torch.equal(named.weights[0][1], few.weights[0][0])
        assert not torch.equal(few.weights[0][0], few.weights[0][1])


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    RandomNetworks(2).from_seeds([1])(torch.zeros(1, 1, 2, dtype=torch.float64))
    assert torch.equal(state, torch.get_rng_state())


LAWS = {
    "normal": scipy.stats.norm,
    "cauchy": scipy.stats.cauchy,
    "uniform": scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "student-t(0.7)": scipy.stats.t(0.7),
    "student-t(5)": scipy.stats.t(5),
    "stable(1)": scipy.stats.cauchy,
    "stable(2)": scipy.stats.norm(scale=math.sqrt(2)),
}


@pytest.mark.parametrize("name", list(LAWS))
def test_distributions(name):
    draws = distribution_of(name)(20_000, generator(5))
    assert draws.dtype == torch.float64
    assert bool(draws.isfinite().all())
    assert scipy.stats.kstest(draws.numpy(), LAWS[name].cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_stable_by_its_characteristic_function(alpha):
    draws = distribution_of(f"stable({alpha})")(100_000, generator(5))
    for t in (0.3, 1.0, 2.0):
        assert float(torch.cos(t * draws).mean()) == pytest.approx(math.exp(-(t**alpha)), abs=0.01)
    assert abs(float(torch.sin(draws).mean())) < 0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth=0"),
        ({"depth": 2.0}, TypeError, "depth=2.0"),
        ({"depth": True}, TypeError, "depth=True"),
        ({"depth": 2, "width": 0}, ValueError, "width=0"),
        ({"depth": 2, "dim": -1}, ValueError, "dim=-1"),
        ({"depth": 2, "distribution": "levy"}, ValueError, "levy"),
        ({"depth": 2, "distribution": "stable(2.5)"}, ValueError, "0 < α ≤ 2"),
        ({"depth": 2, "distribution": "student-t(0)"}, ValueError, "ν > 0"),
        ({"depth": 2, "distribution": "student-t(1.2.3)"}, ValueError, r"1\.2\.3"),
        ({"depth": 2, "activation": "softmax"}, ValueError, "softmax"),
        ({"depth": 2, "bias": "zero"}, ValueError, "bias='zero'"),
        ({"depth": 2, "scale": "1/n"}, ValueError, "scale='1/n'"),
        ({"depth": 2, "scale": 0.0}, ValueError, "scale=0.0"),
        ({"depth": 2, "scale": math.inf}, ValueError, "scale=inf"),
        ({"depth": 2, "scale": math.nan}, ValueError, "scale=nan"),
    ],
)
def test_bad_laws(arguments, error, message):
    with pytest.raises(error, match=message):
        RandomNetworks(**arguments)


def test_bad_batches():
    law = RandomNetworks(2, 5)
    with pytest.raises(ValueError, match="count=0"):
        law.sample(0, generator())
    with pytest.raises(ValueError, match="no seeds"):
        law.from_seeds([])
    batch = law.sample(2, generator())
    for shape in ((2, 2), (3, 4, 2), (2, 4, 3)):
        with pytest.raises(ValueError, match=r"expected \[2, B, 2\]"):
            batch(torch.zeros(shape))
        with pytest.raises(ValueError, match=r"expected \[2, B, 2\]"):
            batch.jacobian(torch.zeros(shape))
    with pytest.raises(ValueError, match="layer 1 takes 4"):
        RandomNetworkBatch((torch.ones(1, 3, 2), torch.ones(1, 2, 4)))
    with pytest.raises(ValueError, match=r"expected \[count, n_out, n_in\]"):
        RandomNetworkBatch((torch.ones(3, 2),))
    with pytest.raises(ValueError, match="biases"):
        RandomNetworkBatch((torch.ones(1, 3, 2),), (torch.ones(1, 2),))
    with pytest.raises(IndexError):
        batch.network(2)


def test_activation_names():
    assert activation_module("HardTanh").__class__ is torch.nn.Hardtanh
    assert activation_module("leaky_relu").negative_slope == 0.01
    with pytest.raises(ValueError, match="choose one of"):
        activation_module("threshold")
