import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.krylov import arnoldi, gmres, golub_kahan, leading_eigenvalue, orthogonalize


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def apply(A):
    return lambda v: (A @ v[:, :, None])[:, :, 0]


def pick(A):
    return lambda rows: apply(A[rows])


def start(b, n, seed=5):
    return random(n, seed=seed).expand(b, n)


def radius(A):
    return torch.linalg.eigvals(A).abs().amax(1)


def quasi_triangular(n, moduli, seed=0):
    """A non-normal matrix with 2×2 rotation blocks on its diagonal: its eigenvalues have the given moduli."""
    angles = torch.linspace(0.3, 2.8, len(moduli), dtype=torch.float64)
    A = torch.triu(random(n, n, seed=seed) / n**0.5, 1)
    for i, (r, t) in enumerate(zip(moduli, angles, strict=True)):
        block = torch.stack((torch.stack((t.cos(), -t.sin())), torch.stack((t.sin(), t.cos()))))
        A[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = r * block
    Q = torch.linalg.qr(random(n, n, seed=seed + 1))[0]
    return Q @ A @ Q.T


class TestGMRES:
    @given(st.integers(1, 60), st.integers(0, 10**6))
    @settings(max_examples=25, deadline=None)
    def test_solves_what_a_direct_solver_solves(self, n, seed):
        A = random(3, n, n, seed=seed) / n**0.5 + 1.5 * torch.eye(n, dtype=torch.float64)
        b = random(3, n, seed=seed + 1)
        solution = gmres(apply(A), b, tol=1e-10, max_iter=400)
        direct = torch.linalg.solve(A, b)
        assert solution.converged.all()
        residual = torch.linalg.vector_norm(apply(A)(solution.x) - b, dim=1)
        torch.testing.assert_close(solution.residual, residual, rtol=1e-6, atol=1e-13)
        assert (residual <= 1e-10 * b.norm(dim=1)).all()
        condition = torch.linalg.cond(A)
        assert ((solution.x - direct).norm(dim=1) <= 2e-10 * condition * direct.norm(dim=1)).all()

    def test_needs_no_more_products_than_scipy(self):
        A, b = random(1, 200, 200) / 20 + torch.eye(200, dtype=torch.float64), random(1, 200, seed=1)
        count = []
        scipy.sparse.linalg.gmres(
            A[0].numpy(), b[0].numpy(), rtol=1e-9, restart=60, callback=count.append, callback_type="pr_norm"
        )
        ours = gmres(apply(A), b, tol=1e-9, restart=60, max_iter=200)
        assert ours.converged.all()
        assert ours.n_products <= len(count) + 4

    def test_rows_do_not_know_of_one_another(self):
        n = 30
        A = random(6, n, n) / n**0.5 - 1.5 * torch.eye(n, dtype=torch.float64)
        A[1], A[2], A[3] = 0.0, torch.eye(n), A[3] * 1e-6
        b = random(6, n, seed=1)
        b[4], b[5, 3] = 0.0, torch.nan
        together = gmres(apply(A), b, tol=1e-10)
        assert together.converged.tolist() == [True, False, True, True, True, False]
        assert torch.equal(together.x[4], torch.zeros(n, dtype=torch.float64))
        assert torch.equal(together.x[1], torch.zeros(n, dtype=torch.float64))
        for i in (0, 2, 3):
            alone = gmres(apply(A[i : i + 1]), b[i : i + 1], tol=1e-10)
            torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=0)

    def test_an_operator_that_explodes_in_one_row(self):
        A = random(2, 5, 5) + 4 * torch.eye(5, dtype=torch.float64)
        A[1, 2, 2] = torch.inf
        solution = gmres(apply(A), random(2, 5, seed=1))
        assert solution.converged.tolist() == [True, False]
        assert torch.isfinite(solution.x).all()

    def test_a_singular_but_consistent_system(self):
        A = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))[None]
        solution = gmres(apply(A), torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
        torch.testing.assert_close(solution.x, torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64))

    def test_the_budget_is_kept_and_tolerances_may_differ(self):
        A, b = random(2, 80, 80) / 5, random(2, 80, seed=1)
        assert gmres(apply(A), b, tol=1e-12, max_iter=7).n_products <= 8
        A = random(2, 80, 80) / 9 + 2 * torch.eye(80, dtype=torch.float64)
        solution = gmres(apply(A), b, tol=torch.tensor([1e-1, 1e-9], dtype=torch.float64))
        assert solution.converged.all()
        assert solution.residual[0] > 1e-6


class TestArnoldi:
    def test_rotations_and_scalings_in_the_plane(self):
        blocks = [
            [[0.6, -0.8], [0.8, 0.6]],
            [[0.0, -0.5], [0.5, 0.0]],
            [[1e-9, 50.0], [0.0, 0.9]],
            [[2.0, 0.0], [0.0, 2.0]],
        ]
        A = torch.tensor(blocks, dtype=torch.float64)
        found = arnoldi(apply(A), start(4, 2), tol=1e-8)
        expected = torch.tensor([0.6 + 0.8j, 0.5j, 0.9, 2.0], dtype=torch.complex128)
        torch.testing.assert_close(found.eigenvalue, expected, rtol=0, atol=1e-12)
        assert found.converged.all()
        assert (found.error >= (found.eigenvalue - expected).abs()).all()

    @pytest.mark.parametrize("rtol", [1e-3, 1e-8])
    def test_known_radius_of_784_dimensional_quasi_triangular_matrices(self, rtol):
        moduli = torch.linspace(0.2, 0.8, 392, dtype=torch.float64)
        moduli[7], moduli[200] = 1.05, 0.98
        A = torch.stack([quasi_triangular(784, moduli), quasi_triangular(784, moduli * 0.5, seed=3)])
        found = arnoldi(apply(A), start(2, 784), tol=rtol, max_products=2000, take=pick(A))
        error = (found.eigenvalue.abs() - torch.tensor([1.05, 0.525], dtype=torch.float64)).abs()
        assert found.converged.all()
        assert (error <= rtol * found.eigenvalue.abs()).all()
        assert (error <= found.error).all()

    @given(
        st.sampled_from(["ginibre", "symmetric", "skew", "product", "low rank"]),
        st.integers(3, 90),
        st.integers(0, 10**6),
    )
    @settings(max_examples=30, deadline=None)
    def test_against_dense_eigenvalues(self, kind, n, seed):
        A = random(4, n, n, seed=seed) / n**0.5
        A = {
            "ginibre": A,
            "symmetric": A + A.mT,
            "skew": A - A.mT,
            "product": A @ A.flip(0) @ A,
            "low rank": A[:, :, :3] @ A[:, :3],
        }[kind]
        found = arnoldi(apply(A), start(4, n, seed=seed + 1), tol=1e-8, max_products=1000, take=pick(A))
        error = (found.eigenvalue.abs() - radius(A)).abs()
        assert found.converged.all()
        assert (error <= 1e-8 * radius(A)).all()
        assert (error <= found.error + 1e-14).all()  # the dense values are rounded, too

    def test_power_iteration_would_be_wrong_here(self):
        A = torch.block_diag(*[torch.tensor([[0.0, -r], [r, 0.0]]) for r in (0.9, 0.5, 0.3)]).double()[None]
        v = start(1, 6)[0]
        for _ in range(200):
            v = A[0] @ v
            v = v / v.norm()
        assert abs(float(v @ A[0] @ v)) < 0.1  # the Rayleigh quotient
        torch.testing.assert_close(arnoldi(apply(A), start(1, 6)).eigenvalue, torch.tensor([0.9j]).to(torch.complex128))

    def test_a_residual_is_no_error_far_from_normal(self):
        """Triangular matrices with a large upper part: small residuals far from any eigenvalue."""
        n = 60
        A = torch.triu(4 * random(8, n, n) / n**0.5, 1)
        A += torch.diag_embed(torch.linspace(-0.9, 0.85, n, dtype=torch.float64).expand(8, n))
        found = arnoldi(apply(A), start(8, n), tol=1e-3, max_products=60)
        error = (found.eigenvalue.abs() - 0.9).abs()
        assert (error > found.residual).any()
        assert (error <= found.error).all()
        assert (found.condition > 50).all()

    def test_rows_do_not_know_of_one_another(self):
        n = 120
        A = random(7, n, n) / n**0.5
        A[1], A[2], A[3] = 0.0, torch.eye(n), A[3] + A[3].mT
        A[4], A[5, 0, 0] = A[4] * 1e-120, torch.nan
        together = arnoldi(apply(A), start(7, n), max_products=200, take=pick(A))
        assert together.converged.tolist() == [True] * 5 + [False, True]
        assert torch.isnan(together.eigenvalue[5].real)
        assert together.eigenvalue[1] == 0
        assert float(together.error[1]) == 0
        order = torch.tensor([6, 3, 0, 4])
        shuffled = arnoldi(apply(A[order]), start(4, n), max_products=200)
        for name in ("eigenvalue", "error", "condition"):
            one, other = getattr(shuffled, name), getattr(together, name)[order]
            torch.testing.assert_close(one, other, rtol=1e-7 if name == "error" else 1e-9, atol=0)
        assert torch.equal(shuffled.n_products, together.n_products[order])

    def test_what_a_dense_solver_would_take_for_defective(self):
        A = torch.tensor([[[0.9, 1.0], [0.0, 0.9]], [[0.9, 1.0], [1e-14, 0.9]]], dtype=torch.float64)
        H = torch.cat((A, torch.zeros(2, 1, 2, dtype=torch.float64)), 1)
        theta, error, _, condition = leading_eigenvalue(H)
        true = torch.tensor([0.9, 0.9 + 1e-7], dtype=torch.float64)
        assert ((theta.abs() - true).abs() <= error).all()
        assert (error < 1e-5).all()
        assert (condition > 1e6).all()

    def test_the_budget_is_kept_and_said(self):
        A = torch.linalg.qr(random(1, 200, 200))[0]  # all moduli equal: slow
        products = []
        found = arnoldi(lambda v: products.append(1) or apply(A)(v), start(1, 200), tol=1e-10, max_products=47)
        assert len(products) == 47 == int(found.n_products)
        assert not found.converged.any()
        assert float(found.error) > 1e-10

    @pytest.mark.parametrize("tol", [1e-2, 1e-3])
    def test_restarts_among_moduli_that_cluster(self, tol):
        """Normal matrices whose leading pair stands out by one per cent, in more dimensions than the space holds."""
        moduli = 0.9 - 0.045 * torch.rand(8, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        angles = 2 * torch.pi * torch.rand(8, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        moduli[:, 0] = 0.909
        z = torch.polar(moduli, angles)
        A = torch.zeros(8, 200, 200, dtype=torch.float64)
        even = torch.arange(0, 200, 2)
        A[:, even, even], A[:, even + 1, even + 1] = z.real, z.real
        A[:, even, even + 1], A[:, even + 1, even] = -z.imag, z.imag
        found = arnoldi(apply(A), start(8, 200), tol=tol, max_products=1000, take=pick(A))
        assert ((found.eigenvalue.abs() - 0.909).abs() <= found.error + 1e-14)[found.converged].all()
        assert found.converged.double().mean() > 0.7

    def test_a_space_that_grows_to_the_whole_holds_all_eigenvalues(self):
        A = torch.linalg.qr(random(3, 100, 100))[0]
        found = arnoldi(apply(A), start(3, 100), tol=1e-10, take=pick(A))
        assert found.converged.all()
        assert (found.n_products <= 100).all()
        assert ((found.eigenvalue.abs() - 1).abs() <= 1e-12).all()

    def test_one_dimension(self):
        found = arnoldi(lambda v: -3 * v, torch.ones(2, 1, dtype=torch.float64))
        torch.testing.assert_close(found.eigenvalue, torch.tensor([-3.0, -3.0]).to(torch.complex128))

    def test_bad_sizes(self):
        with pytest.raises(ValueError, match="keep=9"):
            arnoldi(lambda v: v, torch.ones(1, 20), keep=9, basis_size=10)


class TestGolubKahan:
    @given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 10**6))
    @settings(max_examples=30, deadline=None)
    def test_against_dense_singular_values(self, m, n, seed):
        A = random(3, m, n, seed=seed)
        found = golub_kahan(
            apply(A),
            apply(A.mT),
            start(3, n, seed=seed + 1),
            tol=1e-8,
            max_products=2000,
            take=lambda rows: (apply(A[rows]), apply(A[rows].mT)),
        )
        sigma = torch.linalg.matrix_norm(A, 2)
        assert found.converged.all()
        torch.testing.assert_close(found.sigma, sigma, rtol=1e-8, atol=0)
        assert (found.sigma <= sigma * (1 + 1e-13)).all()  # from below
        assert ((found.sigma - sigma).abs() <= found.error + 1e-14 * sigma).all()

    def test_rows_do_not_know_of_one_another(self):
        A = random(5, 40, 60)
        A[1], A[2, 3, 3], A[3] = 0.0, torch.inf, A[3, :, :1] * A[3, :1]
        found = golub_kahan(
            apply(A), apply(A.mT), start(5, 60), take=lambda rows: (apply(A[rows]), apply(A[rows].mT)), tol=1e-6
        )
        assert found.converged.tolist() == [True, True, False, True, True]
        assert torch.isnan(found.sigma[2])
        assert found.sigma[1] == 0
        alone = golub_kahan(apply(A[4:]), apply(A[4:].mT), start(1, 60), tol=1e-6)
        torch.testing.assert_close(alone.sigma[0], found.sigma[4], rtol=1e-12, atol=0)
        assert alone.n_products[0] == found.n_products[4]

    def test_the_budget_is_kept_and_bad_sizes(self):
        A = torch.linalg.qr(random(1, 90, 90))[0] + 0.01 * random(1, 90, 90, seed=2)
        found = golub_kahan(apply(A), apply(A.mT), start(1, 90), tol=1e-12, max_products=11)
        assert int(found.n_products) == 10
        assert not found.converged.any()
        with pytest.raises(ValueError, match="keep=20"):
            golub_kahan(apply(A), apply(A.mT), start(1, 90), keep=20)


@given(st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_what_is_left_is_orthogonal_however_much_cancels(k, seed):
    basis = torch.linalg.qr(random(2, 40, k, seed=seed))[0].mT.contiguous()
    inside, outside = random(2, k, seed=seed + 1), random(2, 40, seed=seed + 2)
    w = (inside[:, None] @ basis)[:, 0] + 1e-9 * outside
    rest, h, norm = orthogonalize(basis, w)
    assert float((basis @ (rest / norm[:, None])[:, :, None]).abs().max()) < 1e-14
    np.testing.assert_allclose(((h[:, None] @ basis)[:, 0] + rest).numpy(), w.numpy(), atol=1e-14)
