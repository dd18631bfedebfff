"""The deep-equilibrium transformer: causal, with the gradient of its equilibrium, its families where they belong."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fpstab.equilibrium import Anderson, Picard, equilibrium_report
from fpstab.models import DEQTransformer
from fpstab.models.transformer import CausalAttention


def tokens(count, length, vocabulary, seed=0):
    return torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))


def tiny(**options):
    settings = {"vocabulary": 7, "length": 6, "width": 8, "heads": 2, "seed": 0, "solver": Anderson(max_iter=200)}
    return DEQTransformer(**settings | options)


def test_attention_is_torchs():
    attention = CausalAttention(12, 3, torch.Generator().manual_seed(0))
    h = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    q, k, v = (part(h).view(2, 5, 3, 4).transpose(1, 2) for part in (attention.query, attention.key, attention.value))
    expected = attention.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(h), expected)


@pytest.mark.parametrize("family", ["random", "orthogonal", "goe", "antisymmetric", "elliptic", "haar_normal"])
def test_what_comes_later_is_not_heard(family):
    net = tiny(family=family, sqrt_v=0.8, tol=1e-10).double()
    text = tokens(4, 6, 7)
    changed = text.clone()
    changed[:, 3] = (text[:, 3] + 1) % 7
    with torch.no_grad():
        before, after = net(text), net(changed)
    assert bool(net.equilibrium.layer.last.forward.converged.all())
    assert float((before - after)[:, :3].abs().max()) < 1e-7
    assert float((before - after)[:, 3:].abs().amax(-1).min()) > 1e-4


def test_the_gradient_is_that_of_the_unrolled_iteration():
    net = tiny(sqrt_v=0.5, tol=1e-12).double()
    text = tokens(2, 4, 7)
    x = (net.tokens(text) + net.places[:4]).detach().requires_grad_()
    weights = [layer.weight for layer in net.equilibrium.layer.f.dense]
    towards = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    implicit = torch.autograd.grad((net.equilibrium(x) * towards).sum(), [x, *weights])
    z = torch.zeros_like(x)
    for _ in range(150):
        z = net.equilibrium.layer.f(z, x)
    unrolled = torch.autograd.grad((z * towards).sum(), [x, *weights])
    for ours, theirs in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_gradcheck():
    net = tiny(width=4, vocabulary=3, length=3, inner=4, sqrt_v=0.5, tol=1e-13).double()
    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net.equilibrium, (x,), eps=1e-6, atol=1e-6)


def test_families_are_on_the_dense_maps_only():
    nets = {family: tiny(family=family, sqrt_v=2.0, inner=8) for family in ("random", "orthogonal", "goe")}
    dense = {family: [layer.weight.detach() for layer in net.equilibrium.layer.f.dense] for family, net in nets.items()}
    for weight in dense["orthogonal"]:
        torch.testing.assert_close(weight.T @ weight, 4 * torch.eye(8))
    for weight in dense["goe"]:
        assert torch.equal(weight, weight.T)
    for net in nets.values():
        block = net.equilibrium.layer.f
        assert all(not layer.bias.any() for layer in block.dense)
        attention = block.attention
        for layer in (attention.query, attention.key, attention.value, attention.out, net.head):
            assert 0.8 / math.sqrt(8) < float(layer.weight.detach().abs().max()) <= 1 / math.sqrt(8)  # torch's default
        assert all(bool((norm.weight == 1).all()) for norm in block.norms)
    wide = tiny(family="random", sqrt_v=2.0, width=64, heads=2)
    first = wide.equilibrium.layer.f.dense[0].weight
    assert first.shape == (256, 64)
    assert 0.95 < float(first.detach().square().mean()) * 64 / 4 < 1.05  # V/fan-in
    assert tiny(family="goe").equilibrium.layer.f.dense[0].weight.shape == (8, 8)


def test_the_monitor_measures_a_dense_map_and_the_jacobian():
    net = tiny(family="orthogonal", sqrt_v=0.7, inner=8, tol=1e-8).double()
    text = tokens(2, 3, 7)
    report = equilibrium_report(net, text, rtol=1e-6)
    (layer,) = report.layers.values()
    assert layer.weight["sqrt_v"] == pytest.approx(0.7)
    assert layer.weight["orthogonality_defect"] == pytest.approx(0, abs=1e-6)
    x = (net.tokens(text) + net.places[:3]).detach()
    z = net.equilibrium(x).detach()
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, i=i: net.equilibrium.layer.f(flat.view(1, 3, 8), x[i : i + 1]).flatten(), z[i].flatten()
        )
        rho = float(torch.linalg.eigvals(jacobian).abs().max())
        assert float(layer.rho[i]) == pytest.approx(rho, rel=1e-3)


def test_seeds_solvers_and_shorter_sequences():
    text = tokens(3, 4, 7)
    assert torch.equal(tiny()(text), tiny()(text))
    assert not torch.equal(tiny()(text), tiny(seed=1)(text))
    torch.testing.assert_close(
        tiny(tol=1e-6)(text), tiny(tol=1e-6, solver=Picard(max_iter=300))(text), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": 1}, "vocabulary must be an integer ≥ 2"),
        ({"heads": 3}, "heads must be a positive divisor of width=8"),
        ({"family": "goe", "inner": 32}, "inner must be width=8"),
        ({"family": "cauchy"}, "family must be one of"),
        ({"embedding_std": 0}, "embedding_std must be a positive number"),
        ({"length": 0}, "length must be a positive integer"),
        ({"inner": 0}, "inner must be None or a positive integer"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 7, dtype=torch.long), "length=6"),
        (torch.zeros(2, 0, dtype=torch.long), "length=6"),
        (torch.zeros(2, 3), "integers"),
        (torch.zeros(3, dtype=torch.long), r"\[B, T\]"),
        (torch.full((1, 2), 7), "vocabulary=7"),
        (torch.full((1, 2), -1), "vocabulary=7"),
    ],
)
def test_bad_tokens(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny()(bad)
