import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cauchy, ks_1samp, norm, semicircular
from torch import Generator, Tensor, nn

from fpstab.ensembles import init

SQUARE = {
    "goe_": init.goe_,
    "antisymmetric_": init.antisymmetric_,
    "elliptic_": lambda w, *args, **kw: init.elliptic_(w, 0.3, *args, **kw),
    "haar_normal_": init.haar_normal_,
}
SCALED = {"random_": init.random_, "orthogonal_": init.orthogonal_, **SQUARE}
ALL = {**SCALED, "normal_": init.normal_, "cauchy_": init.cauchy_}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def empty(*shape: int) -> Tensor:
    return torch.full(shape, math.nan, dtype=torch.float64)


def tr_n(w: Tensor) -> float:
    return float(w.trace()) / len(w)


# -- what all have in common ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_fills_in_place_from_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    w = empty(30, 30)
    assert ALL[name](w, generator=seeded()) is w
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.isfinite(w).all()
    assert torch.equal(w, ALL[name](empty(30, 30), generator=seeded()))
    assert not torch.equal(w, ALL[name](empty(30, 30), generator=seeded(1)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_seed_is_one_matrix_in_every_type(name: str, dtype: torch.dtype) -> None:
    exact = ALL[name](empty(30, 30), generator=seeded())
    rounded = ALL[name](torch.empty(30, 30, dtype=dtype), generator=seeded())
    assert torch.equal(rounded, exact.to(dtype))


@pytest.mark.parametrize("name", ALL)
def test_without_a_generator_the_default_one_is_used(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        by_default = ALL[name](empty(12, 12))
    assert torch.equal(by_default, ALL[name](empty(12, 12), generator=seeded(5)))


@pytest.mark.parametrize("name", ALL)
def test_fills_a_parameter_that_is_being_trained(name: str) -> None:
    layer = nn.Linear(20, 20)
    version = layer.weight._version
    ALL[name](layer.weight, generator=seeded())
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None
    assert layer.weight._version > version
    strided = torch.empty(20, 40).T[::2]  # not contiguous
    assert torch.equal(ALL[name](strided, generator=seeded()), layer.weight)


@pytest.mark.parametrize("name", SCALED)
def test_v_is_the_mean_squared_singular_value(name: str) -> None:
    n, draws = 100, 20
    generator = seeded()
    found = [float(torch.linalg.svdvals(SCALED[name](empty(n, n), 0.7, generator=generator)).square().mean())
             for _ in range(draws)]  # fmt: skip
    # of one draw the spread is at most 0.49·√(2/3)/√50 (for the eigenvalues in the disc)
    assert sum(found) / draws == pytest.approx(0.49, rel=0.04)
    assert torch.equal(SCALED[name](empty(9, 9), 0.0, generator=generator), torch.zeros(9, 9, dtype=torch.float64))


@pytest.mark.parametrize("name", SCALED)
def test_every_scale_is_a_factor(name: str) -> None:
    one, other = (SCALED[name](empty(20, 20), scale, generator=seeded()) for scale in (1.0, 2.5))
    torch.testing.assert_close(other, 2.5 * one, rtol=1e-14, atol=0)


# -- each family ---------------------------------------------------------------------------------------------


def test_random_entries_are_gaussian_of_variance_v_over_fan_in() -> None:
    w = init.random_(empty(60, 10, 3, 5), 0.5, generator=seeded())
    assert ks_1samp(w.numpy().ravel(), norm(scale=0.5 / math.sqrt(150)).cdf).pvalue > 1e-3


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_orthogonal_rectangles_are_semi_orthogonal(rows: int, columns: int, seed: int) -> None:
    w = init.orthogonal_(empty(rows, columns), 1.5, generator=seeded(seed))
    gram = w.T @ w if rows >= columns else w @ w.T
    torch.testing.assert_close(gram, 2.25 * torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-13)


def test_orthogonal_convolutions_are_rows_of_one_matrix() -> None:
    w = init.orthogonal_(empty(4, 3, 2, 2), generator=seeded()).reshape(4, 12)
    torch.testing.assert_close(w @ w.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-13)


def haar_moments(draw) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """Means of Q₁₁, (tr Q)² and tr Q² with their standard errors: 0, 1, 1 for Haar's law on O(n)."""
    q = torch.stack([draw() for _ in range(3000)])
    traces = q.diagonal(dim1=1, dim2=2).sum(1)
    squares = (q @ q).diagonal(dim1=1, dim2=2).sum(1)
    samples = (q[:, 0, 0], traces**2, squares)
    return [(float(s.mean()), float(s.std()) / math.sqrt(len(s))) for s in samples]


def test_orthogonal_is_haar_distributed() -> None:
    generator = seeded()
    for (mean, error), exact in zip(
        haar_moments(lambda: init.orthogonal_(empty(3, 3), generator=generator)), (0, 1, 1), strict=True
    ):
        assert abs(mean - exact) < 4 * error
    raw = haar_moments(
        lambda: torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    )  # without the sign fix
    assert any(abs(mean - exact) > 10 * error for (mean, error), exact in zip(raw, (0, 1, 1), strict=True))


def test_goe() -> None:
    generator = seeded()
    draws = torch.stack([init.goe_(empty(40, 40), 0.8, generator=generator) for _ in range(100)])
    assert torch.equal(draws, draws.mT)
    upper = draws[:, *torch.triu_indices(40, 40, 1)].ravel()
    assert ks_1samp(upper.numpy(), norm(scale=math.sqrt(0.64 / 40)).cdf).pvalue > 1e-3
    diagonal = draws.diagonal(dim1=1, dim2=2).ravel()
    assert ks_1samp(diagonal.numpy(), norm(scale=math.sqrt(2 * 0.64 / 40)).cdf).pvalue > 1e-3
    eigenvalues = torch.linalg.eigvalsh(init.goe_(empty(400, 400), 0.8, generator=generator))
    assert ks_1samp(eigenvalues.numpy(), semicircular(scale=1.6).cdf).statistic < 0.02


def test_antisymmetric() -> None:
    w = init.antisymmetric_(empty(400, 400), 0.5, generator=seeded())
    assert torch.equal(w, -w.T)
    values = torch.linalg.eigvals(w)
    assert float(values.real.abs().max()) < 1e-12
    assert ks_1samp(values.imag.numpy(), semicircular(scale=1.0).cdf).statistic < 0.02


@pytest.mark.parametrize("tau", [-1.0, -0.6, 0.0, 0.5, 1.0])
def test_elliptic(tau: float) -> None:
    w = init.elliptic_(empty(500, 500), tau, 0.5, generator=seeded())
    assert tr_n(w @ w.T) == pytest.approx(0.25, rel=0.02)
    assert tr_n(w @ w) == pytest.approx(0.25 * tau, abs=0.01)
    values = torch.linalg.eigvals(w)
    assert float(values.real.max()) == pytest.approx(0.5 * (1 + tau), abs=0.05)
    assert float(values.imag.max()) == pytest.approx(0.5 * (1 - tau), abs=0.05)


def test_elliptic_contains_the_others() -> None:
    assert torch.equal(*(m := init.elliptic_(empty(9, 9), 1.0, generator=seeded()), m.T))
    assert torch.equal(*(m := init.elliptic_(empty(9, 9), -1.0, generator=seeded()), -m.T))
    iid = torch.stack([init.elliptic_(empty(30, 30), 0.0, generator=seeded(s)) for s in range(60)])
    assert ks_1samp(iid.numpy().ravel(), norm(scale=math.sqrt(1 / 30)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("law", ["disc", "circle"])
def test_haar_normal_matrices_are_normal(n: int, law: init.EigenvalueLaw) -> None:
    w = init.haar_normal_(empty(n, n), 0.5, law, generator=seeded(n))
    torch.testing.assert_close(w @ w.T, w.T @ w, rtol=0, atol=1e-13)
    if law == "circle":
        torch.testing.assert_close(w @ w.T, 0.25 * torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-13)


def test_haar_normal_has_the_eigenvalues_asked_for() -> None:
    pairs = torch.tensor([0.3 + 0.4j, -1.0 + 2.0j, 0.5 + 0j])
    found = torch.linalg.eigvals(init.haar_normal_(empty(5, 5), 2.0, pairs, generator=seeded()))
    expected = 2 * torch.tensor([0.3 + 0.4j, 0.3 - 0.4j, -1.0 + 2.0j, -1.0 - 2.0j, 0.5 + 0j], dtype=torch.complex128)
    for value in expected:
        assert float((found - value).abs().min()) < 1e-6
    reals = torch.tensor([3.0, -1.0, 0.5])
    w = init.haar_normal_(empty(3, 3), eigenvalues=reals, generator=seeded())
    assert torch.equal(w, w.T)
    torch.testing.assert_close(torch.linalg.eigvalsh(w), reals.sort().values.double())


def test_haar_normal_disc_is_uniform() -> None:
    values = torch.linalg.eigvals(init.haar_normal_(empty(401, 401), generator=seeded()))
    upper = values[values.imag > 0]
    assert len(upper) == 200
    assert ks_1samp(upper.abs().square().numpy() / 2, lambda x: x).pvalue > 1e-3
    assert ks_1samp(upper.angle().numpy() / math.pi, lambda x: x).pvalue > 1e-3


@pytest.mark.parametrize(("scale", "factor"), [("1/fan_in", 1 / 60), ("1/fan_out", 1 / 600), (0.3, 0.3), ("1/sqrt_fan_in", 60**-0.5)])  # fmt: skip
def test_normal_and_cauchy_have_the_scale_of_the_papers(scale: init.Scale, factor: float) -> None:
    w = init.normal_(empty(200, 20, 3), scale, generator=seeded())
    assert ks_1samp(w.numpy().ravel(), norm(scale=factor).cdf).pvalue > 1e-3
    w = init.cauchy_(empty(200, 20, 3), scale, generator=seeded())
    assert ks_1samp(w.numpy().ravel(), cauchy(scale=factor).cdf).pvalue > 1e-3


def test_a_bias_takes_a_number() -> None:
    b = init.cauchy_(empty(4000), 0.01, generator=seeded())
    assert ks_1samp(b.numpy(), cauchy(scale=0.01).cdf).pvalue > 1e-3


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("shape", [(3, 4), (3, 3, 3)])
def test_symmetric_families_need_square_matrices(name: str, shape: tuple[int, ...]) -> None:
    w = empty(*shape)
    with pytest.raises(ValueError, match=rf"{name}.*square.*random_ or orthogonal_"):
        SQUARE[name](w)
    assert w.isnan().all()


@pytest.mark.parametrize("name", ALL)
def test_wrong_tensors(name: str) -> None:
    with pytest.raises(TypeError, match="int64"):
        ALL[name](torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="complex64"):
        ALL[name](torch.zeros(3, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match="list"):
        ALL[name]([[1.0]])  # type: ignore[arg-type]
    for shape in ((5,), (0, 0)):
        with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
            ALL[name](torch.zeros(shape))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ALL)
def test_wrong_scales(name: str, scale: float) -> None:
    with pytest.raises(ValueError, match=f"is {scale}"):
        ALL[name](empty(3, 3), scale)


@pytest.mark.parametrize("tau", [-1.01, 2.0, math.nan])
def test_wrong_tau(tau: float) -> None:
    with pytest.raises(ValueError, match=f"tau is {tau}"):
        init.elliptic_(empty(3, 3), tau)


def test_wrong_laws() -> None:
    with pytest.raises(ValueError, match="'1/n'"):
        init.normal_(empty(3, 3), "1/n")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'square'"):
        init.haar_normal_(empty(3, 3), eigenvalues="square")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"real eigenvalues of shape \(2,\); expected \(3,\)"):
        init.haar_normal_(empty(3, 3), eigenvalues=torch.ones(2))
    with pytest.raises(ValueError, match=r"complex eigenvalues of shape \(3,\); expected \(2,\)"):
        init.haar_normal_(empty(3, 3), eigenvalues=torch.ones(3) * 1j)
    with pytest.raises(ValueError, match="must be real"):
        init.haar_normal_(empty(3, 3), eigenvalues=torch.tensor([1j, 1j]))
    with pytest.raises(ValueError, match="finite"):
        init.haar_normal_(empty(3, 3), eigenvalues=torch.tensor([1.0, math.nan, 1.0]))
