import math

import pytest
import torch
from torch import nn

from fpstab.jacobian import jacobian_norm, jacobian_spectrum
from fpstab.maps import SelfMap
from fpstab.results import AnalysisError
from tests.jacobian.maps import Autoencoder, brute_force, network, random
from tests.jacobian.test_products import Once


def dense(phi, x):
    J = brute_force(phi, x)
    return torch.linalg.eigvals(J).abs().amax(1), torch.linalg.matrix_norm(J, 2)


@pytest.mark.parametrize("method", ["auto", "dense", "arnoldi", "bottleneck"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
def test_all_methods_against_brute_force(method, rtol):
    phi, x = Autoencoder(90, 70, 50), random(6, 90)
    rho, sigma = dense(phi, x)
    found = jacobian_spectrum(phi, x, method=method, rtol=rtol, sigma=True)
    assert found.method == ("bottleneck" if method == "auto" else method)
    assert found.converged.all()
    for value, error, true in ((found.rho, found.rho_error, rho), (found.sigma, found.sigma_error, sigma)):
        assert ((value - true).abs() <= rtol * true).all()
        assert ((value - true).abs() <= error + 1e-14).all()
        assert (error <= rtol * value).all()
    assert (found.sigma >= found.rho * (1 - 2 * rtol)).all()
    torch.testing.assert_close(found.eigenvalue.abs(), found.rho)


def test_closed_forms_in_the_plane():
    turn = torch.tensor([[0.3, -0.4], [0.4, 0.3]], dtype=torch.float64)
    found = jacobian_spectrum(lambda x: x @ turn.T, torch.zeros(2, 2), sigma=True, rtol=1e-8)
    expected = torch.full((2,), 0.3 + 0.4j, dtype=torch.complex128)
    torch.testing.assert_close(found.eigenvalue, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.sigma, torch.full((2,), 0.5, dtype=torch.float64))
    skewed = torch.tensor([[0.9, 100.0], [0.0, 0.5]], dtype=torch.float64)
    found = jacobian_spectrum(lambda x: x @ skewed.T, torch.zeros(1, 2), rtol=1e-8)
    assert abs(float(found.rho) - 0.9) <= float(found.rho_error) <= 0.9e-8
    assert bool(found.non_normal)
    slopes = jacobian_spectrum(lambda x: torch.tanh(2 * x), torch.tensor([[0.0], [1.0]])).rho
    torch.testing.assert_close(slopes, torch.tensor([2.0, 2 / math.cosh(2) ** 2], dtype=torch.float64))


@pytest.mark.parametrize("method", ["arnoldi", "dense"])
def test_it_does_not_matter_who_else_is_there(method):
    phi = network(120, 80, 120, gain=1.5)
    x = random(12, 120)
    together = jacobian_spectrum(phi, x, method=method)
    order = torch.tensor([7, 2, 11, 0])
    some = jacobian_spectrum(phi, x[order], method=method)
    alone = torch.cat([jacobian_spectrum(phi, x[i : i + 1], method=method).rho for i in order])
    torch.testing.assert_close(some.rho, together.rho[order], rtol=1e-9, atol=0)
    torch.testing.assert_close(alone, together.rho[order], rtol=1e-9, atol=0)
    assert torch.equal(some.n_products, together.n_products[order])


def test_the_start_vector_is_drawn_from_the_generator_alone():
    phi, x = network(60, 60), random(2, 60)
    before = torch.get_rng_state()
    one, same, other = (
        jacobian_spectrum(phi, x, method="arnoldi", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.rho, same.rho)
    assert not torch.equal(one.rho, other.rho)
    torch.testing.assert_close(one.rho, other.rho, rtol=2e-3, atol=0)


@pytest.mark.parametrize("method", ["auto", "dense", "arnoldi"])
@pytest.mark.parametrize("n", [5, 70])
def test_a_row_that_is_not_finite_harms_no_other(method, n):
    W = 1.5 * random(n, n) / n**0.5

    def phi(x):
        return torch.tanh(x @ W) / (1 - (x[:, :1] == 7).double())  # infinite at one point

    x = random(5, n)
    clean = jacobian_spectrum(phi, x[[0, 2, 4]], method=method, sigma=True)
    x[1, 2], x[3, 0] = torch.nan, 7.0
    with pytest.raises(AnalysisError, match=r"at 2 of 5 points .* row 1"):
        jacobian_spectrum(phi, x, method=method)
    found = jacobian_spectrum(SelfMap(phi, x[:1]), x, method=method, sigma=True, throw=False)
    assert found.status.code == "nonfinite"
    assert torch.isfinite(found.rho).tolist() == [True, False, True, False, True]
    torch.testing.assert_close(found.rho[[0, 2, 4]], clean.rho, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.sigma[[0, 2, 4]], clean.sigma, rtol=1e-9, atol=0)
    assert math.isfinite(found.scalars()["rho_max"])


def test_a_finite_point_with_a_jacobian_that_is_not():
    root = jacobian_spectrum(torch.sqrt, torch.tensor([[0.0, 1.0], [1.0, 4.0]]), throw=False)
    assert torch.isnan(root.rho[0])
    assert float(root.rho[1]) == 0.5
    large = torch.ones(2, 80)
    large[0, 3] = 0.0
    root = jacobian_spectrum(torch.sqrt, large, throw=False, sigma=True)
    assert torch.isnan(root.rho).tolist() == torch.isnan(root.sigma).tolist() == [True, False]


def test_dead_and_constant_maps_have_radius_zero():
    for n in (3, 90):
        found = jacobian_spectrum(lambda x: torch.relu(x - 10), random(2, n), sigma=True)
        assert found.rho.tolist() == found.sigma.tolist() == found.rho_error.tolist() == [0.0, 0.0]
        assert found.converged.all()


def test_maps_between_spaces_have_a_norm_and_no_radius():
    phi, x = network(9, 4), random(3, 9)
    with pytest.raises(ValueError, match="map of a space to itself"):
        jacobian_spectrum(phi, x)
    for method in ("auto", "dense", "golub_kahan"):
        found = jacobian_norm(phi, x, method=method, rtol=1e-9)
        torch.testing.assert_close(found.sigma, torch.linalg.matrix_norm(brute_force(phi, x), 2), rtol=1e-9, atol=0)


def test_what_has_not_converged_is_said():
    orthogonal = torch.linalg.qr(random(300, 300))[0]
    with pytest.raises(
        AnalysisError, match=r"at 1 of 1 points the error estimate exceeds rtol=1e-06 after 20 products"
    ):
        jacobian_spectrum(lambda x: x @ orthogonal.T, torch.zeros(1, 300), rtol=1e-6, max_products=20)
    found = jacobian_spectrum(
        lambda x: x @ orthogonal.T, torch.zeros(1, 300), rtol=1e-6, max_products=20, sigma=True, throw=False
    )
    assert found.status.code == "not_converged"
    assert float(found.rho_error) >= abs(float(found.rho) - 1)
    assert found.scalars()["share_converged"] == 0


def test_with_n_products_no_point_is_left_undecided():
    orthogonal = torch.linalg.qr(random(120, 120))[0]  # all eigenvalues have modulus one
    found = jacobian_spectrum(lambda x: x @ orthogonal.T, torch.zeros(2, 120), rtol=1e-8, max_products=150)
    torch.testing.assert_close(found.rho, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (found.n_products <= 2 * 150).all()


def clustered(n, seed):
    """A normal matrix of complex pairs: one of modulus 0.909, all others between 0.855 and 0.9."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    moduli = 0.9 * (1 - 0.05 * torch.rand(n // 2, generator=generator, dtype=torch.float64))
    angles = 2 * math.pi * torch.rand(n // 2, generator=generator, dtype=torch.float64)
    moduli[0] = 0.909
    A = torch.zeros(n, n, dtype=torch.float64)
    for i, (r, t) in enumerate(zip(moduli, angles, strict=True)):
        block = torch.stack((torch.stack((t.cos(), -t.sin())), torch.stack((t.sin(), t.cos()))))
        A[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = r * block
    return Q @ A @ Q.T


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("method", ["auto", "arnoldi"])
def test_a_neighbour_that_settles_first_is_not_taken_for_the_leading_pair(method, rtol):
    for seed in range(12):
        A = clustered(60, seed)
        found = jacobian_spectrum(lambda x, A=A: x @ A.T, torch.zeros(1, 60), method=method, rtol=rtol)
        assert abs(float(found.rho) - 0.909) <= float(found.rho_error) + 1e-14 <= rtol
        assert int(found.n_products) <= 60  # what a dense Jacobian takes


def test_where_neighbours_have_not_settled_the_error_says_so():
    """More dimensions than products: too few to tell the leading pair from the others."""
    for seed in range(3):
        A = clustered(340, seed)
        found = jacobian_spectrum(lambda x, A=A: x @ A.T, torch.zeros(1, 340), throw=False)
        assert not found.converged.any()
        assert abs(float(found.rho) - 0.909) <= float(found.rho_error)
    few = jacobian_spectrum(lambda x: x @ A.T, torch.zeros(1, 340), throw=False, max_products=60)
    assert abs(float(few.rho) - 0.909) <= float(few.rho_error)


def test_without_second_derivatives():
    x, W = random(3, 60), random(60, 60) / 8

    def phi(z):
        return torch.tanh(Once.apply(z) @ W)

    rho, sigma = dense(phi, x)
    found = jacobian_spectrum(phi, x, sigma=True, rtol=1e-8)
    torch.testing.assert_close(found.rho, rho, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.sigma, sigma, rtol=1e-8, atol=0)
    with pytest.raises(AnalysisError, match="cannot be differentiated twice"):
        jacobian_norm(phi, x, method="golub_kahan")
    assert jacobian_norm(phi, x, method="golub_kahan", throw=False).status.code == "no_double_backward"


def test_modules_are_seen_in_eval_mode_and_left_alone():
    net = nn.Sequential(nn.Linear(50, 50), nn.BatchNorm1d(50), nn.Dropout(0.5)).train()
    weight = net[0].weight.detach().double()
    with torch.inference_mode():
        found = jacobian_spectrum(net, random(3, 50).float(), sigma=True)
    scale = 1 / (1 + net[1].eps) ** 0.5
    torch.testing.assert_close(
        found.sigma, (scale * torch.linalg.matrix_norm(weight, 2)).expand(3), rtol=1e-3, atol=0, check_dtype=False
    )
    assert all(module.training for module in net.modules())
    assert net[0].weight.grad is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "power"}, "method='power': expected one of 'auto'"),
        ({"rtol": 0.0}, "rtol=0.0"),
        ({"max_products": 1}, "max_products=1"),
        ({"method": "bottleneck"}, "has no known split"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        jacobian_spectrum(torch.tanh, random(2, 3), **arguments)


def test_no_points():
    phi = SelfMap(torch.tanh, random(1, 60))
    found = jacobian_spectrum(phi, random(0, 60), sigma=True)
    assert found.rho.shape == found.sigma.shape == (0,)
    assert math.isnan(found.scalars()["rho_max"])
    assert found.table() == []


def test_results_are_detached_float64_and_make_tables():
    found = jacobian_spectrum(Autoencoder(60, 50), random(2, 60), sigma=True)
    for name in ("rho", "rho_error", "sigma", "sigma_error", "condition"):
        tensor = getattr(found, name)
        assert tensor.dtype == torch.float64
        assert not tensor.requires_grad
    rows = found.table()
    assert [row["point"] for row in rows] == [0, 1]
    assert math.hypot(rows[1]["eigenvalue_real"], rows[1]["eigenvalue_imag"]) == pytest.approx(rows[1]["rho"])
    scalars = found.scalars()
    assert scalars["rho_max"] == float(found.rho.max())
    assert scalars["share_expanding"] == float((found.rho > 1).double().mean())
    assert all(isinstance(value, float) for value in scalars.values())
