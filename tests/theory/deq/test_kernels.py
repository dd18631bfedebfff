import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from fpstab.results import AnalysisError
from fpstab.theory import deq

GRAM = [[1.0, 0.5, 0.9], [0.5, 1.3, 0.2], [0.9, 0.2, 1.0]]


def two(kernels: deq.WideKernels) -> tuple[Tensor, Tensor]:
    assert kernels.nngp is not None
    assert kernels.ntk is not None
    return kernels.nngp, kernels.ntk


def iterated(V: float, gram: np.ndarray, value, slopes) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """The kernels by iteration of closed forms: value and slopes map the covariance of h to E φφ' and E φ'φ'."""
    k = gram.copy()
    for _ in range(3000):
        k = value(V * k) + gram
    kappa = slopes(V * k)
    return k, k * kappa / (1 - V * kappa)


def diagonals(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.diag(c)[:, None], np.diag(c)[None, :]


def test_erf_is_the_arcsine_kernel() -> None:
    def outer(c: np.ndarray) -> np.ndarray:
        one, other = diagonals(c)
        return (1 + 2 * one) * (1 + 2 * other)

    for family in ("iid", "orthogonal"):
        nngp, ntk = two(deq.wide_kernels(family, 1.5, "erf", GRAM))  # type: ignore[arg-type]
        k, theta = iterated(
            1.5,
            np.array(GRAM),
            lambda c: 2 / np.pi * np.arcsin(2 * c / np.sqrt(outer(c))),
            lambda c: 4 / np.pi / np.sqrt(outer(c) - 4 * c**2),
        )
        np.testing.assert_allclose(nngp.numpy(), k, rtol=1e-8)
        np.testing.assert_allclose(ntk.numpy(), theta, rtol=1e-7)


def test_relu_is_the_arccosine_kernel() -> None:
    def angle(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one, other = diagonals(c)
        size = np.sqrt(one * other)
        return np.arccos(np.clip(c / size, -1, 1)), size

    def value(c: np.ndarray) -> np.ndarray:
        t, size = angle(c)
        return size / (2 * np.pi) * (np.sin(t) + (np.pi - t) * np.cos(t))

    nngp, ntk = two(deq.wide_kernels("iid", 1.1, "relu", torch.tensor(GRAM)))
    k, theta = iterated(1.1, np.array(GRAM), value, lambda c: (np.pi - angle(c)[0]) / (2 * np.pi))
    np.testing.assert_allclose(nngp.numpy(), k, rtol=1e-7)
    np.testing.assert_allclose(ntk.numpy(), theta, rtol=1e-6)


@pytest.mark.parametrize("family", ["iid", "goe", "antisymmetric", deq.Elliptic(0.5)], ids=str)
def test_the_linear_ntk_goes_with_the_square_of_m2(family: deq.Family) -> None:
    V = 0.15
    m2 = deq.linear_moments(family, V).m2
    assert m2 is not None
    nngp, ntk = two(deq.wide_kernels(family, V, "linear", GRAM))
    torch.testing.assert_close(nngp, m2 * torch.tensor(GRAM, dtype=torch.float64))
    torch.testing.assert_close(ntk, m2**2 * torch.tensor(GRAM, dtype=torch.float64))
    # and the equations of the cavity know it too: hard-tanh on small inputs is linear
    small = 1e-4 * np.array(GRAM)
    near, ntk = two(deq.wide_kernels(family, V, "hardtanh", small))
    np.testing.assert_allclose(near.numpy(), m2 * small, rtol=1e-8)
    np.testing.assert_allclose(ntk.numpy(), m2**2 * small, rtol=1e-8)


def test_the_diagonal_is_the_single_input() -> None:
    nngp, _ = two(deq.wide_kernels("goe", 0.6, "tanh", GRAM))
    for i in range(3):
        assert float(nngp[i, i]) == pytest.approx(deq.cavity_solution("goe", 0.6, "tanh", GRAM[i][i]).z2, rel=1e-8)
    assert torch.linalg.eigvalsh(nngp)[0] > 0
    collinear, _ = two(deq.wide_kernels("goe", 0.6, "tanh", [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]))
    np.testing.assert_allclose(collinear.numpy() / float(collinear[0, 0]), np.sign(collinear.numpy()), rtol=1e-9)


ACTIVATE = {"hardtanh": torch.nn.functional.hardtanh, "tanh": torch.tanh, "erf": torch.erf, "relu": torch.relu}


def sampled(family: deq.Family, V: float, activation: str, seed: int, n: int = 200) -> tuple[Tensor, Tensor]:
    """The kernels of one network, by autograd through the iteration, for enough random readouts v."""
    generator = Generator().manual_seed(seed)
    w = deq.sample_weight(family, V, n, generator=generator).requires_grad_()
    q = torch.linalg.qr(torch.randn(n, 2, generator=generator, dtype=torch.float64)).Q
    x = (q @ torch.linalg.cholesky(torch.tensor(GRAM, dtype=torch.float64)[:2, :2]).T).T * math.sqrt(n)
    z = torch.zeros_like(x)
    for _ in range(60):
        z = ACTIVATE[activation](z @ w.T) + x
    nngp = (z @ z.T / n).detach()
    ntk, readouts = torch.zeros(2, 2, dtype=torch.float64), 8
    for _ in range(readouts):
        v = torch.randn(n, generator=generator, dtype=torch.float64) / math.sqrt(n)
        f = z @ v
        g = torch.stack([torch.autograd.grad(f[i], w, retain_graph=True)[0].ravel() for i in range(2)])
        ntk += g @ g.T / n / readouts
    return nngp, ntk


@pytest.mark.parametrize(
    ("family", "V", "activation"),
    [
        ("iid", 0.8, "hardtanh"),
        ("orthogonal", 1.2, "tanh"),
        ("goe", 0.25, "tanh"),
        ("goe", 0.15, "hardtanh"),
        ("antisymmetric", 0.15, "erf"),
        ("antisymmetric", 0.15, "relu"),
    ],
)
def test_against_autograd(family: deq.FamilyName, V: float, activation: deq.Activation) -> None:
    draws = [sampled(family, V, activation, seed) for seed in range(4)]
    nngp, ntk = two(deq.wide_kernels(family, V, activation, np.array(GRAM)[:2, :2]))
    torch.testing.assert_close(sum(d[0] for d in draws) / 4, nngp, rtol=0.08, atol=0.02)  # type: ignore[arg-type]
    torch.testing.assert_close(sum(d[1] for d in draws) / 4, ntk, rtol=0.16, atol=0.04)  # type: ignore[arg-type]


def test_bad_input() -> None:
    for gram, message in (
        ([[1.0, 0.5]], r"shape \(1, 2\)"),
        ([[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "negative eigenvalue"),
        ([[0.0]], "not positive"),
        ([[math.nan]], "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            deq.wide_kernels("iid", 0.5, "tanh", gram)
    with pytest.raises(AnalysisError, match="no solution"):
        deq.wide_kernels("goe", 3.0, "hardtanh", GRAM)
    assert deq.wide_kernels("goe", 3.0, "hardtanh", GRAM, throw=False).status.code == "no_equilibrium"
    assert deq.wide_kernels("goe", 3.0, "linear", GRAM, throw=False).status.code == "diverges"
    with pytest.raises(AnalysisError, match="the NTK diverges"):
        deq.wide_kernels("iid", 9.0, "hardtanh", GRAM)
    lost = deq.wide_kernels("iid", 9.0, "hardtanh", GRAM, throw=False)
    assert lost.status.code == "diverges"
    assert lost.scalars() == {}
    with pytest.raises(AnalysisError, match="no theory"):
        deq.wide_kernels("haar_disc", 0.1, "tanh", GRAM)
    assert deq.wide_kernels("haar_disc", 0.1, "linear", GRAM).scalars()["nngp"] > 1
