import copy
import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import HealthCheck, given, settings
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from fpstab.experiments.training import lightning_cli
from fpstab.models import Autoencoder, DEQClassifier
from fpstab.rounding import spectral_norm
from fpstab.stability.parametrizations import (
    BlockSkew,
    BoundedSVD,
    Gershgorin,
    PerronFrobenius,
    Skew,
    certificates,
    constrain,
    orthogonality_penalty,
    singular_values,
)
from fpstab.stability.parametrizations._rounding import cast_number, defect
from fpstab.stability.parametrizations.singular_values import reflection_vectors, reflections

CERTIFIED = {
    "perron": lambda: PerronFrobenius(0.3, 0.9),
    "perron_one": lambda: PerronFrobenius(1.0, 1.0),
    "svd": lambda: BoundedSVD(0.2, 0.9),
    "svd_one": lambda: BoundedSVD(1.0, 1.0),
    "svd_negative": lambda: BoundedSVD(-1.5, -1.1),
    "svd_across": lambda: BoundedSVD(-0.5, 0.9),
    "gershgorin": lambda: Gershgorin(0.1, 0.9),
    "gershgorin_negative": lambda: Gershgorin(-1.5, -1.1),
    "gershgorin_real": lambda: Gershgorin(0.99, 1.01, eigenvalues="real"),
    "gershgorin_literal": lambda: Gershgorin(-0.3, 0.9, literal=True),
    "cayley": lambda: Skew(0.3, discrete="cayley", step=0.5),
    "cayley_one": lambda: Skew(discrete="cayley"),
    "expm": lambda: Skew(0.3, discrete="expm"),
}
FLOWS = {"skew": lambda: Skew(0.37), "block_skew": BlockSkew}
RECTANGULAR = ("perron", "svd")
KINDS = [*CERTIFIED, *FLOWS]


def make(kind: str) -> nn.Module:
    return {**CERTIFIED, **FLOWS}[kind]()


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def layer_of(kind: str, n: int, dtype: torch.dtype = torch.float64, seed: int = 0, p: int | None = None) -> nn.Linear:
    layer = nn.Linear(n, p or n, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(p or n, n, generator=seeded(seed), dtype=torch.float64) / math.sqrt(n))
    register_parametrization(layer, "weight", make(kind))
    return layer


def exact(w: Tensor) -> np.ndarray:
    return w.detach().double().numpy()


def norm_of(w: Tensor, which: str) -> float:
    """A lower bound of the norm of the weight as it is, up to the last bits of float64."""
    matrix = exact(w)
    if which == "inf":
        return max(math.fsum(map(abs, row)) for row in matrix.tolist())  # summed exactly
    if which == "2":
        return float(np.linalg.norm(matrix, 2)) * (1 - 1e-14)
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


def check_promise(layer: nn.Linear) -> None:
    certificate = layer.parametrizations.weight[0].certificate()
    assert certificate.certified
    weight = layer.weight
    assert torch.isfinite(weight).all()
    measured = norm_of(weight, certificate.norm)
    assert measured <= certificate.bound + (1e-14 if certificate.norm == "log 2" else 0.0)
    if certificate.norm == "2" and weight.dtype == torch.float32:  # and a proof that it is below
        assert spectral_norm(exact(weight)) <= certificate.bound


def set_free(layer: nn.Linear, size: float, seed: int, kind: str) -> None:
    """Free parameters of the given size: random, of one sign, of one entry, or of rank one."""
    for index, parameter in enumerate(layer.parametrizations.weight.parameters()):
        x = torch.randn(parameter.shape, generator=seeded(seed + index), dtype=torch.float64)
        if kind == "equal":
            x = torch.ones_like(x)
        elif kind == "sparse":
            x = torch.where(torch.rand(x.shape, generator=seeded(seed + 7), dtype=torch.float64) < 0.2, x, 0.0)
        elif kind == "signs":
            x = x.sign()
        elif kind == "one row" and x.dim() == 2:
            x = x[:1].expand_as(x)
        limit = torch.finfo(parameter.dtype).max
        with torch.no_grad():
            parameter.copy_((x * size).clamp(-limit, limit))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**20),
    half=st.integers(1, 4),
    log_size=st.sampled_from([-300.0, -30.0, -3.0, 0.0, 1.0, 3.0, 6.0, 20.0, 37.0, 150.0, 290.0]),
    pattern=st.sampled_from(["random", "equal", "sparse", "signs", "one row"]),
)
def test_promise_for_any_free_parameters(kind, dtype, seed, half, log_size, pattern):
    if kind in FLOWS:
        log_size = min(log_size, 37.0)  # the weight itself is as large as its parameters
    layer = layer_of(kind, 2 * half, dtype, seed)
    set_free(layer, 10.0 ** min(log_size, 38.0 if dtype == torch.float32 else 308.0), seed, pattern)
    if kind in FLOWS:
        weight = exact(layer.weight)
        off = weight - np.diag(np.diag(weight))
        assert (off == -off.T).all()
        assert (np.diag(weight) <= layer.parametrizations.weight[0].certificate().bound).all()
    else:
        check_promise(layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("eigenvalues", ["real", "complex"])
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize(("lo", "hi"), [(-1.5, -1.1), (0.0, 1.0), (0.99, 1.01), (1.0, 1.1), (-0.3, 0.7)])
def test_discs_are_in_the_range_in_exact_arithmetic(lo, hi, eigenvalues, literal, dtype):
    if literal and eigenvalues == "real":
        return
    structure = Gershgorin(lo, hi, eigenvalues=eigenvalues, literal=literal)
    for seed in range(5):
        weight = structure(torch.randn(7, 7, generator=seeded(seed)).to(dtype)).double()
        assert torch.equal(weight, weight.T) or eigenvalues == "complex"
        for index, row in enumerate(weight.tolist()):
            radius = sum(abs(Fraction(x)) for x in row) - abs(Fraction(row[index]))
            assert Fraction(row[index]) + radius <= Fraction(hi)
            assert Fraction(row[index]) - radius >= Fraction(lo)


@pytest.mark.parametrize("error", [1e-9, 1e-3, 0.5])
def test_the_bound_does_not_rest_on_the_accuracy_of_the_factors(error, monkeypatch):
    def inexact(x: Tensor) -> Tensor:
        return reflections(x) * (1 + error)

    monkeypatch.setattr(singular_values, "reflections", inexact)
    check_promise(layer_of("svd_one", 5))


@pytest.mark.parametrize("kind", RECTANGULAR)
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_rectangles_and_half_precision(kind, shape, dtype):
    layer = layer_of(kind, shape[1], dtype, p=shape[0])
    check_promise(layer)
    set_free(layer, 30.0, 1, "random")
    check_promise(layer)
    assert layer.weight.dtype == dtype


@pytest.mark.parametrize("size", [0.1, 1.0, 50.0])
def test_spectra_are_in_the_range(size):
    for seed in range(5):
        layers = {kind: layer_of(kind, 6, seed=seed) for kind in KINDS}
        for layer in layers.values():
            set_free(layer, size, seed, "random")
        eig = {kind: np.linalg.eigvals(exact(layer.weight)) for kind, layer in layers.items()}
        sv = {kind: np.linalg.svd(exact(layer.weight), compute_uv=False) for kind, layer in layers.items()}
        tol = 1e-9
        dominant = np.abs(eig["perron"]).max()
        assert 0.3 - tol <= dominant <= 0.9 + tol
        assert np.abs(eig["perron"] - dominant).min() < tol  # real and positive
        assert np.abs(eig["perron_one"]).max() == pytest.approx(1, abs=1e-10)
        assert sv["svd"].min() >= 0.2 - tol
        assert sv["svd"].max() <= 0.9 + tol
        assert sv["svd_one"] == pytest.approx(1, abs=1e-10)
        assert sv["svd_negative"].min() >= 1.1 - tol
        assert np.abs(eig["gershgorin"] - 0.5).max() <= 0.4 + tol
        assert np.abs(eig["gershgorin_negative"] + 1.3).max() <= 0.2 + tol
        assert np.abs(eig["gershgorin_real"].imag).max() < tol
        assert np.abs(eig["gershgorin_real"].real - 1).max() <= 0.01 + tol
        assert np.abs(eig["gershgorin_literal"] - 0.3).max() <= 0.6 + tol
        for kind, modulus in (("cayley", math.exp(-0.15)), ("cayley_one", 1.0), ("expm", math.exp(-0.3))):
            assert np.abs(eig[kind]) == pytest.approx(modulus, abs=1e-10)
        assert eig["skew"].real == pytest.approx(-0.37, abs=1e-10 * max(1, size))
        assert np.abs(eig["block_skew"].real).max() < 1e-10 * max(1, size)


def test_closed_forms():
    x = torch.tensor([[0.3, -2.0], [1.0, 5.0]], dtype=torch.float64)
    printed = Gershgorin(0.2, 1.0, literal=True)(x)
    torch.testing.assert_close(printed, torch.tensor([[0.6, 0.4], [0.4, 0.6]], dtype=torch.float64), atol=1e-12, rtol=0)
    signed = Gershgorin(0.2, 1.0)(x)  # with signs, two rows can be complex
    torch.testing.assert_close(signed, torch.tensor([[0.6, -0.4], [0.4, 0.6]], dtype=torch.float64), atol=1e-12, rtol=0)
    small = Gershgorin(0.0, 1.0)(x / 100)  # within its budget, a row is left as it is
    assert small[0, 1].item() == -0.02
    a, m = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    torch.testing.assert_close(
        PerronFrobenius(0.5, 0.9)(a, m), torch.full((2, 2), 0.35, dtype=torch.float64), atol=1e-12, rtol=0
    )
    lower = torch.tensor([[0.0, 0.0], [0.7, 0.0]], dtype=torch.float64)
    c, s = math.cos(0.35), math.sin(0.35)
    rotation = math.exp(-0.1) * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    torch.testing.assert_close(Skew(0.2, discrete="expm", step=0.5)(lower), rotation, atol=1e-12, rtol=0)
    half = 2 * math.atan(0.35 / 2)
    c, s = math.cos(half), math.sin(half)
    rotation = math.exp(-0.1) * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    torch.testing.assert_close(Skew(0.2, discrete="cayley", step=0.5)(lower), rotation, atol=1e-12, rtol=0)


def test_a_step_of_expm_is_the_flow_of_the_continuous_form():
    x = torch.randn(5, 5, generator=seeded(), dtype=torch.float64)
    flow = scipy.linalg.expm(0.3 * Skew(0.2)(x).numpy())
    np.testing.assert_allclose(Skew(0.2, discrete="expm", step=0.3)(x).numpy(), flow, atol=1e-11)


@pytest.mark.parametrize(("p", "k"), [(6, 6), (9, 4), (5, 1), (1, 1), (2, 2)])
def test_reflections_are_a_product_of_reflections_and_reach_every_orthogonal_matrix(p, k):
    x = torch.randn(p, k, generator=seeded(), dtype=torch.float64)
    product = -np.eye(p, k)
    for j in reversed(range(k)):
        v = x[:, j].numpy().copy()
        v[:j] = 0
        product = product - 2 * np.outer(v, v @ product) / (v @ v)
    np.testing.assert_allclose(reflections(x).numpy(), product, atol=1e-13)

    special = [np.eye(p, k), -np.eye(p, k), np.eye(p)[::-1, :k].copy()]
    for Q in [np.linalg.qr(x.numpy())[0], *special]:
        vectors, sign = reflection_vectors(Q)
        back = reflections(torch.from_numpy(vectors)).numpy()
        back[:, -1] *= sign
        np.testing.assert_allclose(back, Q, atol=1e-13)


def test_the_defect_is_an_upper_bound():
    U = torch.linalg.qr(torch.randn(30, 20, generator=seeded(), dtype=torch.float64))[0]
    assert 0 < defect(U) < 1e-11
    V = U * (1 + 1e-3)
    assert 1.001**2 - 1 <= float(defect(V)) < 20 * 0.0021


@pytest.mark.parametrize("kind", KINDS)
def test_members_survive_assignment_and_others_are_brought_in(kind):
    layer = layer_of(kind, 6)
    set_free(layer, 0.7, 3, "random")
    member = layer.weight.detach().clone()
    other = layer_of(kind, 6, seed=5)
    other.weight = member
    torch.testing.assert_close(other.weight, member, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 6])
def test_gradients_are_finite_and_move_the_weight_from_special_points(kind, n):
    for start in (torch.zeros(n, n), torch.eye(n), -torch.eye(n), torch.ones(n, n), 5 * torch.eye(n).flip(0)):
        layer = nn.Linear(n, n)
        register_parametrization(layer, "weight", make(kind))
        layer.weight = start
        if kind in CERTIFIED:
            check_promise(layer)
        target = torch.randn(n, n, generator=seeded(4))
        (layer.weight - target).square().sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["perron", "svd", "gershgorin", "gershgorin_real", "cayley", "expm"])
def test_gradient_is_right(kind):
    structure = make(kind)
    w = torch.randn(4, 4, generator=seeded(), dtype=torch.float64)
    free = structure.right_inverse(w)
    free = [x.clone() for x in (free if isinstance(free, tuple) else (free,))]
    free = [(x + 0.1 * torch.randn(x.shape, generator=seeded(2), dtype=x.dtype)).requires_grad_() for x in free]
    assert torch.autograd.gradcheck(structure, free, atol=1e-6)


def train(layer: nn.Module, steps: int, lr: float, outputs: int) -> None:
    x = torch.randn(16, 4, generator=seeded(1))
    target = 10 * torch.randn(16, outputs, generator=seeded(2))  # out of reach: it pulls beyond the bound
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", list(CERTIFIED))
def test_training_keeps_the_promise(kind):
    layer = layer_of(kind, 4, torch.float32)
    before = layer.weight.detach().clone()
    train(layer, 120, 0.1, 4)
    check_promise(layer)
    assert float((layer.weight - before).detach().abs().max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svd"])
def test_1500_steps_never_exceed_the_bound(kind):
    layer = layer_of(kind, 4, torch.float32)
    for _ in range(5):
        train(layer, 300, 0.1, 4)
        check_promise(layer)


def test_without_a_structure_training_leaves_the_range():
    layer = nn.Linear(4, 4)
    train(layer, 120, 0.1, 4)
    assert norm_of(layer.weight, "2") > 2


def test_soft_breaks_the_bound_and_certifies_nothing():
    layer = nn.Linear(4, 4)
    register_parametrization(layer, "weight", BoundedSVD(0.0, 0.9, soft=True))
    assert norm_of(layer.weight, "2") <= 0.9
    certificate = layer.parametrizations.weight[0].certificate()
    assert not certificate.certified
    assert certificate.bound == math.inf
    assert certificate.status.code == "uncertified"
    before = float(orthogonality_penalty(layer).detach())
    train(layer, 120, 0.1, 4)
    assert norm_of(layer.weight, "2") > 0.95
    assert float(orthogonality_penalty(layer).detach()) > before
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        orthogonality_penalty(layer).backward()
        optimizer.step()
    assert float(orthogonality_penalty(layer).detach()) < 0.5
    with pytest.raises(ValueError, match="soft=True"):
        orthogonality_penalty(nn.Linear(2, 2))


def test_penalty_is_equation_22():
    layer = nn.Linear(3, 3, dtype=torch.float64)
    register_parametrization(layer, "weight", BoundedSVD(0.0, 1.0, soft=True))
    set_free(layer, 1.0, 0, "random")
    chain = layer.parametrizations.weight
    expected = 0.0
    for factor in (chain.original0, chain.original2):
        F = exact(factor)
        expected += np.linalg.norm(np.eye(3) - F @ F.T, 2) + np.linalg.norm(np.eye(3) - F.T @ F, 2)
    assert float(orthogonality_penalty(layer).detach()) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_round_trip_and_copies(kind):
    layer = layer_of(kind, 6, seed=1)
    set_free(layer, 0.7, 3, "random")
    other = layer_of(kind, 6, seed=2)
    assert not torch.equal(other.weight, layer.weight) or kind == "gershgorin_literal"
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


def test_constrain_gives_each_layer_its_own_and_certificates_find_them():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 4)), nn.LayerNorm(4))
    structure = BoundedSVD(0.0, 0.8)
    assert constrain(net, structure) is net
    found = certificates(net)
    assert {name: certificate.bound for name, certificate in found.items()} == {"0.weight": 0.8, "2.0.weight": 0.8}
    assert found["0.weight"].scalars() == {"bound": 0.8, "certified": 1.0}
    assert "‖W‖₂ ≤ 0.8" in str(found["0.weight"])
    assert net[0].parametrizations.weight[0] is not net[2][0].parametrizations.weight[0]
    with pytest.raises(ValueError, match="'0' has a parametrisation already"):
        constrain(net, structure)
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        constrain(nn.ReLU(), structure)
    assert certificates(nn.Linear(2, 2)) == {}
    layer = constrain(nn.Linear(2, 2), structure)
    assert list(certificates(layer)) == ["weight"]
    mixed = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"layer '1'.*square"):
        constrain(mixed, Gershgorin(0, 1))
    assert certificates(mixed) == {}


def test_a_stable_autoencoder_contracts_and_a_stable_deq_has_one_equilibrium():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Autoencoder((12, 8, 3), output_activation=None, structure=BoundedSVD(0.0, 0.9))
    with torch.no_grad():
        for part in net.parameters():
            part.mul_(7.0).add_(0.3)
        x, y = 10 * torch.randn(2, 50, 12, generator=seeded()).double()
        net.double()
        assert ((net(x) - net(y)).norm(dim=1) <= 0.9**4 * (x - y).norm(dim=1)).all()
        assert len(certificates(net)) == 4

        deq = DEQClassifier(width=8, inputs=12, sqrt_v=3.0, seed=0, structure=BoundedSVD(0.0, 0.9)).double()
        assert list(certificates(deq)) == ["equilibrium.layer.f.inner.weight"]
        cell, injected = deq.equilibrium.layer.f, deq.injection(x)
        z = 100 * torch.randn(50, 8, generator=seeded(3), dtype=torch.float64)
        for _ in range(400):
            z = cell(z, injected)
        torch.testing.assert_close(z, deq.encode(x), atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="two parametrisations"):
        DEQClassifier(family="goe", keep_family=True, structure=BoundedSVD(0, 0.9))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: PerronFrobenius(-0.1, 1.0), ValueError, "lo must be ≥ 0"),
        (lambda: PerronFrobenius(1.0, 0.5), ValueError, "lo must not be above hi"),
        (lambda: BoundedSVD(0.0, math.inf), ValueError, "hi must be a finite number"),
        (lambda: BoundedSVD("0", 1.0), TypeError, "lo must be"),
        (lambda: Gershgorin(math.nan, 1.0), ValueError, "lo must be a finite"),
        (lambda: Gershgorin(0.0, 1.0, eigenvalues="imaginary"), ValueError, "'complex' or 'real'"),
        (lambda: Gershgorin(0.0, 1.0, eigenvalues="real", literal=True), ValueError, "printed form"),
        (lambda: Skew(-1.0), ValueError, "gamma must be ≥ 0"),
        (lambda: Skew(step=0.0), ValueError, "step must be > 0"),
        (lambda: Skew(discrete="euler"), ValueError, "'cayley' or 'expm'"),
        (lambda: BlockSkew().right_inverse(torch.eye(3)), ValueError, "even size"),
        (lambda: Skew().right_inverse(torch.ones(2, 3)), ValueError, "square"),
        (lambda: BoundedSVD(0, 1).right_inverse(torch.full((2, 2), math.nan)), ValueError, "4 of the 4 entries"),
        (lambda: BoundedSVD(0, 1).right_inverse(torch.ones(2, 2, 3)), ValueError, "expected a matrix"),
        (lambda: PerronFrobenius(0, 1).right_inverse(torch.ones(2, 2, dtype=torch.int64)), TypeError, "int64"),
    ],
)
def test_what_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@given(value=st.floats(-1e4, 1e4))
@settings(max_examples=30, deadline=None)
def test_cast_number(dtype, value):
    inner, outer = (cast_number(value, dtype, towards_zero=side) for side in (True, False))
    assert abs(inner) <= abs(value) <= abs(outer)
    assert torch.tensor(inner, dtype=dtype).item() == inner
    assert abs(outer - inner) <= 2 * torch.finfo(dtype).eps * abs(value) + torch.finfo(dtype).tiny


@pytest.mark.parametrize(
    ("name", "smaller", "count"),
    [("mnist_stable_autoencoder", "widths=[784,24,8]", 4), ("mnist_stable_deq", "width=24", 1)],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_one_step_of_each_configuration(name, smaller, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator=cpu", "--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.enable_model_summary=false", "--data.batch_size=16", "--model.net.structure.hi=0.92"]
    options += [f"--model.net.{smaller}"]
    with torch.random.fork_rng():
        cli = lightning_cli(["fit", "--config", name, *options])
    assert cli.trainer.global_step == 1
    found = certificates(cli.model.net)
    assert [certificate.bound for certificate in found.values()] == [0.92] * count
    for tensor in found:
        weight = cli.model.net.get_submodule(tensor.removesuffix(".weight")).weight
        assert spectral_norm(exact(weight)) <= 0.92
