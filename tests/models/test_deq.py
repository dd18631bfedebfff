"""Deep-equilibrium models: the equation they solve, its gradient, their families, and what they do without equilibria."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.ensembles import orthogonality_defect, symmetry_defect
from fpstab.equilibrium import Anderson, Broyden, Picard
from fpstab.models import AutoencoderTask, DEQAutoencoder, DEQClassifier

pytestmark = pytest.mark.filterwarnings("ignore:FixedPointLayer")


def images(n=6, values=12, seed=0):
    return torch.randn(n, 1, values // 4, 4, generator=torch.Generator().manual_seed(seed))


def by_iteration(net, x):
    """The equilibrium by numpy, in plain steps."""
    inner = net.equilibrium.layer.f.inner
    W, b = (p.detach().double().numpy() for p in (inner.weight, inner.bias))
    x = x.flatten(1).double().numpy()
    if net.equilibrium.layer.f.reading == "B":
        U = net.injection
        x = x @ U.weight.detach().double().numpy().T + U.bias.detach().double().numpy()
    z = np.zeros((len(x), len(W)))
    for _ in range(300):
        z = np.tanh(z @ W.T + b) + x if net.equilibrium.layer.f.reading == "A" else np.tanh(z @ W.T + b + x)
    return z


@pytest.mark.parametrize("reading", ["A", "B"])
@pytest.mark.parametrize("solver", [Picard(100), Anderson(), Broyden()])
def test_both_readings_solve_their_equation(reading, solver):
    net = DEQClassifier(inputs=12, classes=3, reading=reading, sqrt_v=0.6, solver=solver, tol=1e-6, seed=1)
    x = images()
    expected = by_iteration(net, x)
    assert expected.shape == (6, 12 if reading == "A" else 128)
    np.testing.assert_allclose(net.encode(x).detach(), expected, atol=2e-5)
    head = net.head
    np.testing.assert_allclose(
        net(x).detach(), expected @ head.weight.detach().numpy().T + head.bias.detach().numpy(), atol=5e-5
    )


@pytest.mark.parametrize("reading", ["A", "B"])
def test_the_gradient_is_that_of_many_steps(reading):
    net = DEQClassifier(
        None if reading == "A" else 9, 12, 3, reading, family="orthogonal", sqrt_v=0.7, tol=1e-10, seed=2
    ).double()
    x = images().double()
    net(x).square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    injected = net.injection(x.flatten(1))
    z = torch.zeros_like(injected)
    for _ in range(150):
        z = net.equilibrium.layer.f(z, injected)
    net.head(z).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-7, atol=1e-8)


def test_without_an_equilibrium_there_is_the_gradient_of_one_step():
    net = DEQClassifier(8, 12, 3, sqrt_v=5.0, solver=Picard(max_iter=3), tol=1e-9, seed=0)
    x = images()
    net(x).square().sum().backward()
    layer = net.equilibrium.layer
    assert not layer.last.forward.converged.any()
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    injected = net.injection(x.flatten(1))
    with torch.no_grad():
        z = layer(layer.f(torch.zeros_like(injected), injected), injected)
    net.head(layer.f(z, injected)).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
        assert parameter.grad.abs().max() > 0


def test_far_beyond_the_critical_scale_it_learns_and_stays_finite():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 12, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    net = DEQClassifier(24, 12, 3, sqrt_v=8.0, solver=Anderson(max_iter=15), seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses, unconverged = [], []
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        unconverged.append(1 - net.equilibrium.layer.last.forward.converged.double().mean().item())
    assert unconverged[0] > 0.5
    assert losses[-1] < 0.5 * losses[0]
    assert all(bool(parameter.isfinite().all()) for parameter in net.parameters())


def inner(net):
    return net.equilibrium.layer.f.inner.weight.detach().double()


def test_families():
    def weight(family, **options):
        return inner(DEQClassifier(60, 12, family=family, sqrt_v=0.7, seed=3, **options))

    assert orthogonality_defect(weight("orthogonal")) < 1e-6
    assert symmetry_defect(weight("goe")) == 0
    assert symmetry_defect(weight("antisymmetric")) == pytest.approx(1)
    assert symmetry_defect(weight("elliptic", tau=0.6)) == pytest.approx(math.sqrt(0.2), rel=0.1)
    normal = weight("haar_normal")
    torch.testing.assert_close(normal @ normal.T, normal.T @ normal, rtol=0, atol=1e-6)
    for family in ("random", "orthogonal", "goe", "antisymmetric", "elliptic", "haar_normal"):
        assert float(weight(family).square().sum() / 60) == pytest.approx(0.49, rel=0.25)


@pytest.mark.parametrize(
    ("family", "defect"),
    [
        ("goe", symmetry_defect),
        ("orthogonal", orthogonality_defect),
        ("antisymmetric", lambda w: 1 - symmetry_defect(w)),
    ],
)
def test_keep_family(family, defect):
    def trained(keep):
        net = DEQClassifier(16, 12, 3, family=family, sqrt_v=0.4, keep_family=keep, seed=0)
        before = inner(net).clone()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(10):
            loss = nn.functional.cross_entropy(net(images(6)), torch.tensor([0, 1, 2, 0, 1, 2]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (inner(net) - before).abs().max() > 1e-3
        return defect(inner(net))

    assert trained(keep=True) < 1e-5
    assert trained(keep=False) > 0.02


def test_one_seed_one_network_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second, other = (DEQClassifier(8, 12, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not torch.equal(pairs[0][0], pairs[0][2])
    for name, parameter in first.named_parameters():  # torch's own bounds
        if name.startswith(("injection", "head")):
            fan_in = 12 if name.startswith("injection") else 8
            assert parameter.abs().max() <= fan_in**-0.5


def test_autoencoder():
    net = DEQAutoencoder(12, 8, sqrt_v=0.5, tol=1e-6, seed=0)
    x = images()
    code = net.encode(x)
    z = torch.zeros(6, 8)
    for _ in range(100):
        z = torch.tanh(net.equilibrium.layer.f.inner(z) + net.injection(x.flatten(1)))
    torch.testing.assert_close(code, z, rtol=0, atol=1e-5)
    torch.testing.assert_close(net(x), net.decode(code).reshape(x.shape))
    assert DEQAutoencoder(12, 8, output_activation=None, seed=0)(x).min() < 0 < net(x).min()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*but have no `val_dataloader`")
def test_an_autoencoder_trains():
    data = DataLoader(TensorDataset(images(32).sigmoid()), 8)
    task = AutoencoderTask(DEQAutoencoder(12, 16, family="goe", sqrt_v=0.4, keep_family=True, seed=0))
    trainer = pl.Trainer(
        max_epochs=12,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = trainer.validate(task, data, verbose=False)[0]["val/loss"]
    trainer.fit(task, data)
    assert trainer.validate(task, data, verbose=False)[0]["val/loss"] < 0.9 * before
    assert symmetry_defect(inner(task.net)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "wigner"}, "family must be one of random, orthogonal"),
        ({"sqrt_v": -1.0}, "sqrt_v"),
        ({"sqrt_v": math.nan}, "sqrt_v"),
        ({"tau": 2.0}, "tau"),
        ({"reading": "C"}, "reading must be 'A' or 'B'"),
        ({"reading": "A", "width": 128}, "width must be inputs=784"),
        ({"width": 0}, "width"),
        ({"inputs": 0}, "inputs"),
        ({"classes": 0}, "classes"),
        ({"keep_family": True}, "keep_family=True does not go with family='random'"),
        ({"activation": "tanhh"}, "no activation is named"),
        ({"tol": 0.0}, "tol"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DEQClassifier(**options)
    if options.keys() & {"reading", "classes"} or options == {"width": 0}:
        return
    with pytest.raises(ValueError, match=message):
        DEQAutoencoder(**options)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"expected 784 values a sample, got \[2, 3\]"):
        DEQClassifier(width=4)(torch.zeros(2, 3))
