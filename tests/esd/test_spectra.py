import math
import warnings
from collections.abc import Callable

import numpy as np
import powerlaw
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fpstab.esd import WeightSpectrum, fit_power_law, spectra, weight_spectrum
from fpstab.results import AnalysisError

Array = NDArray[np.generic]
EPS = float(np.finfo(np.float64).eps)


def squares(*matrices: Array | Tensor) -> NDArray[np.float64]:
    """Squared singular values by SVD in double precision, pooled, ascending."""
    pooled = []
    for matrix in matrices:
        array = np.asarray(matrix.detach().resolve_conj().numpy() if isinstance(matrix, Tensor) else matrix)
        array = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
        pooled.append(np.linalg.svd(array, compute_uv=False) ** 2)
    return np.sort(np.concatenate(pooled))


def assert_spectrum(spectrum: WeightSpectrum, expected: NDArray[np.float64]) -> None:
    """All eigenvalues, to the rounding of a Gram matrix."""
    eigenvalues = spectrum.eigenvalues
    assert (eigenvalues.dtype, eigenvalues.device.type, eigenvalues.requires_grad) == (torch.float64, "cpu", False)
    assert eigenvalues.numel() + spectrum.n_zero == expected.size
    atol = 4 * max(spectrum.matrix_shape) * EPS * expected[-1]
    np.testing.assert_allclose(eigenvalues, expected[spectrum.n_zero :], rtol=0, atol=atol)
    assert (expected[: spectrum.n_zero] <= atol).all()


def gaussian(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cauchy(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).cauchy_(generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=80, deadline=None)
@given(
    p=st.integers(1, 40),
    n=st.integers(1, 40),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 999),
)
def test_squared_singular_values(p: int, n: int, dtype: torch.dtype, seed: int) -> None:
    weight = gaussian(p, n, dtype=dtype, seed=seed)
    spectrum = weight_spectrum(weight)
    assert_spectrum(spectrum, squares(weight.double()))
    assert (spectrum.eigenvalues.diff() >= 0).all()
    assert spectrum.matrix_shape == (p, n)
    assert spectrum.n_matrices == 1


@settings(max_examples=60, deadline=None)
@given(p=st.integers(2, 30), n=st.integers(2, 30), data=st.data(), seed=st.integers(0, 999))
def test_the_rank_is_counted(p: int, n: int, data: st.DataObject, seed: int) -> None:
    rank = data.draw(st.integers(1, min(p, n)))
    left, right = gaussian(p, rank, seed=seed), gaussian(rank, n, seed=seed + 1)
    weight = ((left * 8).round() + 20 * torch.eye(p, rank)) @ ((right * 8).round() + 20 * torch.eye(rank, n))
    assert np.linalg.matrix_rank(weight.numpy()) == rank  # entries are integers: nothing is rounded
    spectrum = weight_spectrum(weight)
    assert spectrum.eigenvalues.numel() == rank
    assert spectrum.n_zero == min(p, n) - rank
    if rank > 1:
        assert spectrum.status.code == ("ok" if rank == min(p, n) else "rank_deficient")
    if spectrum.status.code == "rank_deficient":
        assert f"{spectrum.n_zero} of {min(p, n)} eigenvalues" in spectrum.status.message


def by_powerlaw(sample: NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(powerlaw.Fit(sample, verbose=0, parameter_ranges={"alpha": [1, None]}).power_law.alpha)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(80, 80), (60, 150), (150, 60)])
@pytest.mark.parametrize("entries", [gaussian, cauchy])
def test_the_exponent_of_a_weight_is_that_of_svd_and_powerlaw(
    entries: Callable[..., Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for seed in range(4):
        weight = entries(*shape, dtype=dtype, seed=seed)
        alpha = fit_power_law(weight_spectrum(weight).eigenvalues).alpha
        assert alpha == pytest.approx(by_powerlaw(squares(weight)), rel=1e-6, abs=0), seed


def test_a_gram_matrix_in_float32_would_not_do() -> None:
    u = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    left, right = (torch.linalg.qr(gaussian(100, 100, seed=seed)).Q for seed in (0, 1))
    weight = (left * u**-2 @ right).float()  # λ = u⁻⁴, exponent 1.25, over nine decades
    exact = fit_power_law(squares(weight)).alpha
    assert exact == pytest.approx(1.25, rel=0.01)
    assert fit_power_law(weight_spectrum(weight).eigenvalues).alpha == pytest.approx(exact, rel=1e-6, abs=0)
    single = torch.linalg.eigvalsh(weight @ weight.T).double()
    assert fit_power_law(single[single > 0]).alpha != pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("shape", [(12, 5, 7), (12, 3, 4, 2), (4, 6, 2, 3, 2), (6, 1, 3, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(shape: tuple[int, ...], groups: int) -> None:
    weight = gaussian(*shape)
    per_group = shape[0] // groups
    blocks = [weight[g * per_group : (g + 1) * per_group] for g in range(groups)]

    flat = weight_spectrum(weight, groups=groups)
    assert_spectrum(flat, squares(*(block.reshape(per_group, -1) for block in blocks)))
    assert flat.matrix_shape == (per_group, math.prod(shape[1:]))
    assert flat.n_matrices == groups

    positions = list(np.ndindex(*shape[2:]))
    sliced = weight_spectrum(weight, conv="slices", groups=groups)
    assert_spectrum(sliced, squares(*(block[(slice(None), slice(None), *at)] for block in blocks for at in positions)))
    assert sliced.matrix_shape == (per_group, shape[1])
    assert sliced.n_matrices == groups * len(positions)


@pytest.mark.parametrize(("groups", "depth"), [(3, 4), (12, 1), (12, 3)])
def test_groups_are_the_blocks_of_a_block_diagonal_matrix(groups: int, depth: int) -> None:
    weight = gaussian(12, depth, 3, 3)
    rows = 12 // groups
    block_diagonal = torch.block_diag(*(part.reshape(rows, -1) for part in weight.split(rows)))
    assert_spectrum(weight_spectrum(weight, groups=groups), squares(block_diagonal))


@pytest.mark.parametrize("slices", [False, True])
def test_slices_of_a_matrix_are_the_matrix(slices: bool) -> None:
    weight = gaussian(7, 5)
    assert_spectrum(weight_spectrum(weight, conv="slices" if slices else "flatten"), squares(weight))


@pytest.mark.parametrize("shape", [(30, 500), (500, 30), (9, 200, 3)])
def test_a_gram_matrix_in_chunks(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra, "_CHUNK", 1000)
    weight = gaussian(*shape, dtype=torch.float32)
    assert_spectrum(weight_spectrum(weight), squares(weight.reshape(shape[0], -1)))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex(dtype: torch.dtype) -> None:
    weight = torch.complex(gaussian(20, 30), gaussian(20, 30, seed=1)).to(dtype)
    expected = squares(weight)
    for view in (weight, weight.conj(), weight.mT, weight.mH):
        assert_spectrum(weight_spectrum(view), expected)
    assert_spectrum(weight_spectrum(weight.mH.imag), squares(weight.imag))  # a lazily negated view


@pytest.mark.parametrize(
    "convert",
    [
        lambda w: w.numpy(),
        lambda w: w.numpy()[::-1, ::-1],
        lambda w: np.asfortranarray(w.numpy()),
        lambda w: np.broadcast_to(w.numpy(), w.shape),  # read-only
        lambda w: w.T.contiguous().T,
        lambda w: torch.stack([w, w], -1)[..., 0],
        lambda w: w.clone().requires_grad_(),
        lambda w: nn.Parameter(w),
        lambda w: w.requires_grad_() * 1,
        lambda w: w.to_sparse(),
        lambda w: w.to_mkldnn() if torch.backends.mkldnn.is_available() else w,
    ],
)
def test_what_holds_the_weight(convert: Callable[[Tensor], Tensor | Array]) -> None:
    weight = gaussian(20, 25, dtype=torch.float32)
    before = weight.clone()
    assert_spectrum(weight_spectrum(convert(weight)), squares(before))
    assert torch.equal(weight, before)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sparse(dtype: torch.dtype) -> None:
    weight = gaussian(20, 25, dtype=dtype).relu()
    expected = squares(weight.double())
    assert_spectrum(weight_spectrum(weight.to_sparse_csr()), expected)
    assert_spectrum(weight_spectrum(weight.to_sparse_csc()), expected)
    assert_spectrum(weight_spectrum(weight.to_sparse_coo()), expected)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8(dtype: torch.dtype) -> None:
    weight = gaussian(20, 25).to(dtype)
    assert_spectrum(weight_spectrum(weight), squares(weight.double()))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel and other:UserWarning")
def test_quantised_tensors_are_read_with_their_scale() -> None:
    weight = gaussian(20, 25, dtype=torch.float32)
    one = torch.quantize_per_tensor(weight, 0.02, 3, torch.qint8)
    assert_spectrum(weight_spectrum(one), squares(((weight / 0.02).round() + 3).clamp(-128, 127).sub(3) * 0.02))
    scales = torch.linspace(0.01, 0.05, 20)
    many = torch.quantize_per_channel(weight, scales, torch.zeros(20, dtype=torch.int64), 0, torch.qint8)
    assert_spectrum(weight_spectrum(many), squares(many.dequantize()))


def test_under_other_modes() -> None:
    weight = gaussian(20, 25, dtype=torch.float32)
    with torch.inference_mode():
        assert_spectrum(weight_spectrum(weight.clone()), squares(weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_spectrum(weight_spectrum(weight), squares(weight))
    with torch.device("meta"):
        assert_spectrum(weight_spectrum(weight), squares(weight))
        assert weight_spectrum(weight * 0, throw=False).eigenvalues.device.type == "cpu"


@pytest.mark.parametrize("scale", [1e150, 1e-140, 1e6, 1e-6, 3.7])
@pytest.mark.parametrize("entries", [gaussian, cauchy])
def test_scale(entries: Callable[..., Tensor], scale: float) -> None:
    weight = entries(50, 70)
    fit, other = (fit_power_law(weight_spectrum(w).eigenvalues) for w in (weight, weight * scale))
    assert other.alpha == pytest.approx(fit.alpha, rel=1e-6, abs=0)
    assert other.ks_distance == pytest.approx(fit.ks_distance, rel=1e-6, abs=0)
    assert other.n_tail == fit.n_tail


def test_the_threshold_scales_and_drops_what_is_below_it() -> None:
    for scale in (1.0, 2.0**100, 2.0**-100):
        # 1e-9² is 1e-18 of the largest: below 30 eps, the threshold of a 30 × 30 matrix; 1e-6² is above
        spectrum = weight_spectrum(
            torch.diag(torch.tensor([1.0, 1e-6, 1e-9] + [0.5] * 27, dtype=torch.float64)) * scale
        )
        assert spectrum.n_zero == 1
        assert spectrum.threshold == 30 * EPS * scale**2
        assert float(spectrum.eigenvalues[0]) == pytest.approx(1e-12 * scale**2, rel=1e-9)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-160, 1e160, 1e307])
def test_squares_that_leave_float64(scale: float) -> None:
    weight = gaussian(30, 40).clamp(-3, 3)
    spectrum = weight_spectrum(weight * scale, throw=False)
    assert spectrum.status.code == "out_of_range"
    assert spectrum.eigenvalues.numel() == 0
    assert f"{float((weight * scale).abs().max()):g}" in spectrum.status.message


def test_float32_at_the_ends_of_its_range() -> None:
    weight = gaussian(30, 40, dtype=torch.float32).clamp(-3, 3)
    for scale in (1e-30, 1e-44, 1e38):
        scaled = weight * scale
        largest = float(squares(scaled)[-1])
        assert float(weight_spectrum(scaled).eigenvalues[-1]) == pytest.approx(largest, rel=1e-12, abs=0)


ORTHOGONAL = [(20, 20), (150, 150), (40, 600), (600, 40), (32, 32, 3, 3)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("shape", ORTHOGONAL)
def test_orthogonal_matrices_are_constant(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    for gain in (1.0, 0.37):
        weight = torch.empty(shape, dtype=computed)
        nn.init.orthogonal_(weight, gain, generator=torch.Generator().manual_seed(1))
        spectrum = weight_spectrum(weight.to(dtype))
        assert spectrum.status.code == "constant"
        assert str(dtype) in spectrum.status.message
        assert spectrum.eigenvalues.numel() == min(shape[0], math.prod(shape[1:]))
        tolerance = 0.1 if dtype == torch.float8_e4m3fn else 0.01
        assert float(spectrum.eigenvalues[0]) == pytest.approx(gain**2, rel=tolerance)


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
def test_orthogonal_parametrisations_are_constant(orthogonal_map: str) -> None:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(200, 200), orthogonal_map=orthogonal_map)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(gaussian(*parameter.shape, dtype=torch.float32), alpha=0.1)
    assert weight_spectrum(layer.weight).status.code == "constant"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_multiples_of_the_identity_are_constant(dtype: torch.dtype) -> None:
    for weight in (torch.eye(30, dtype=dtype), 3 * torch.eye(25, 40, dtype=dtype), torch.eye(30, dtype=dtype)[:, :3]):
        assert weight_spectrum(weight).status.code == "constant"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_tall_gaussian_matrix_is_not_constant(dtype: torch.dtype) -> None:
    # its eigenvalues spread by 4 √(short/long), 6 % here: seven times the eps of bfloat16, and no rounding
    assert weight_spectrum(gaussian(100_000, 20, dtype=dtype)).status.code == "ok"


def test_equal_up_to_a_visible_difference_is_not_constant() -> None:
    diagonal = torch.ones(100, dtype=torch.float64)
    diagonal[0] = 1 + 1e-9
    assert weight_spectrum(torch.diag(diagonal)).status.code == "ok"
    assert weight_spectrum(torch.diag(diagonal).float()).status.code == "constant"


@pytest.mark.parametrize(
    ("weight", "code", "says"),
    [
        (torch.zeros(3, 4), "all_zero", "12 weights are zero"),
        (torch.zeros(2, 3, 2), "all_zero", "12 weights are zero"),
        (torch.full((3, 4), math.nan), "not_finite", "12 NaN and 0 infinite values among 12"),
        (torch.tensor([[1.0, math.inf], [math.nan, -math.inf]]), "not_finite", "1 NaN and 2 infinite values among 4"),
        (torch.tensor([[1.0, 2.0], [3.0, math.inf]]).half(), "not_finite", "0 NaN and 1 infinite values among 4"),
        (torch.tensor([[1.0, complex(0, math.inf)]]), "not_finite", "0 NaN and 1 infinite values among 2"),
        (torch.full((2, 2), math.nan).to(torch.float8_e4m3fn), "not_finite", "4 NaN"),
        (torch.zeros(0, 5), "empty", "(0, 5)"),
        (torch.zeros(5, 0), "empty", "(5, 0)"),
        (torch.zeros(4, 3, 0), "empty", "(4, 3, 0)"),
        (torch.zeros(3, 4, device="meta"), "meta", "meta device"),
        (torch.ones(3, 4, dtype=torch.int8), "quantized", "torch.int8"),
        (torch.ones(3, 4, dtype=torch.bool), "quantized", "torch.bool"),
        (np.ones((3, 4), dtype=np.int64), "quantized", "torch.int64"),
    ],
)
@pytest.mark.parametrize("conv", ["flatten", "slices"])
def test_no_spectrum(weight: Tensor | Array, code: str, says: str, conv: spectra.Conv) -> None:
    spectrum = weight_spectrum(weight, conv=conv, throw=False)
    assert spectrum.status.code == code
    assert says in spectrum.status.message
    assert spectrum.eigenvalues.shape == (0,)
    assert (spectrum.eigenvalues.dtype, spectrum.eigenvalues.device.type) == (torch.float64, "cpu")
    with pytest.raises(AnalysisError) as error:
        weight_spectrum(weight, conv=conv)
    assert error.value.status == spectrum.status


def test_a_single_nan_is_found_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra, "_CHUNK", 100)
    weight = gaussian(20, 300)
    weight[13, 287] = math.nan
    assert weight_spectrum(weight, throw=False).status.code == "not_finite"


def test_zeros_are_counted() -> None:
    assert weight_spectrum(torch.zeros(3, 4), throw=False).n_zero == 3
    assert weight_spectrum(torch.zeros(4, 3, 5), conv="slices", throw=False).n_zero == 15
    spectrum = weight_spectrum(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    assert (spectrum.eigenvalues.tolist(), spectrum.n_zero) == ([1.0, 4.0], 1)


def test_a_single_row() -> None:
    spectrum = weight_spectrum(torch.tensor([[3.0, 4.0]]))
    assert (spectrum.eigenvalues.tolist(), spectrum.status.code) == ([25.0], "ok")


def test_a_solver_that_fails_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigvalsh", fail)
    spectrum = weight_spectrum(gaussian(5, 5), throw=False)
    assert spectrum.status.code == "no_convergence"
    assert "did not converge" in spectrum.status.message


@pytest.mark.parametrize("shape", [(), (7,)])
def test_not_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not a matrix") as error:
        weight_spectrum(torch.ones(shape), throw=False)
    assert str(shape) in str(error.value)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="conv='fft' is unknown"):
        weight_spectrum(torch.ones(2, 2), conv="fft")  # type: ignore[arg-type]
    for groups in (0, -1, 4):
        with pytest.raises(ValueError, match=rf"groups={groups} does not divide .*\(6, 2, 3\)"):
            weight_spectrum(torch.ones(6, 2, 3), groups=groups)
