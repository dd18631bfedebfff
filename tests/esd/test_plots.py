import io
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from fpstab.esd import LayerESD, esd_report
from fpstab.esd.plots import plot_bulk, plot_exponents, plot_layer, plot_report


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cauchy(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).cauchy_(generator=torch.Generator().manual_seed(seed))


def layer_of(weight: Tensor) -> LayerESD:
    return esd_report(linear(weight)).layers[0]


def drawn(ax: Axes) -> tuple[np.ndarray, list[Line2D]]:
    """The dots as rows (log₁₀ λ, log₁₀ density), and the lines of the power law or what stands in its place."""
    dots, *lines = ax.get_lines()
    assert dots.get_marker() == "o"
    return np.asarray(dots.get_xydata()), [line for line in lines if line.get_label() != "Marchenko–Pastur"]


def bulk_of(ax: Axes) -> np.ndarray:
    """The Marchenko–Pastur curve."""
    (line,) = [line for line in ax.get_lines() if line.get_label() == "Marchenko–Pastur"]
    return np.asarray(line.get_xydata())


def render(figure: Figure) -> bytes:
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=40)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _no_pyplot_state() -> object:
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


def integral(dots: np.ndarray) -> float:
    """Of the drawn density over λ: the bins are of equal width in log₁₀ λ, around the dots."""
    x, y = dots.T
    half = np.diff(x).min() / 2
    np.testing.assert_allclose(np.diff(x) / (2 * half), np.round(np.diff(x) / (2 * half)), atol=1e-6)
    return float((10**y * (10 ** (x + half) - 10 ** (x - half))).sum())


@pytest.mark.parametrize("weight", [gaussian(100, 150), cauchy(120, 120), gaussian(30, 30), gaussian(2, 60)])
def test_the_density_integrates_to_one(weight: Tensor) -> None:
    layer = layer_of(weight)
    dots, _ = drawn(plot_layer(layer))
    if layer.n > 2:
        assert integral(dots) == pytest.approx(1, rel=1e-6)
    logs = np.log10(np.linalg.svd(weight.numpy(), compute_uv=False) ** 2)
    assert logs.min() <= dots[:, 0].min() <= dots[:, 0].max() <= logs.max()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-9, 1e9))
def test_every_eigenvalue_is_in_a_bin(seed: int, scale: float) -> None:
    # 2 √n = 10 bins, of which the first and last are never empty: 25 eigenvalues, none lost to rounding
    dots, _ = drawn(plot_layer(layer_of(scale * gaussian(25, 40, seed=seed))))
    width = (dots[-1, 0] - dots[0, 0]) / 9
    counts = 25 * 10 ** dots[:, 1] * (10 ** (dots[:, 0] + width / 2) - 10 ** (dots[:, 0] - width / 2))
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
    assert round(counts.sum()) == 25


@pytest.mark.parametrize("weight", [gaussian(100, 150), cauchy(120, 120), 1e140 * gaussian(60, 60)])
def test_the_line_is_the_power_law(weight: Tensor) -> None:
    layer = layer_of(weight)
    assert layer.alpha is not None
    assert layer.xmin is not None
    _, (law, cutoff) = drawn(plot_layer(layer))
    (x0, x1), (y0, y1) = law.get_xdata(), law.get_ydata()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(-layer.alpha, rel=1e-9)
    assert x0 == pytest.approx(math.log10(layer.xmin), rel=1e-12)
    assert x1 == pytest.approx(2 * math.log10(float(torch.linalg.svdvals(weight)[0])), rel=1e-12)
    assert list(cutoff.get_xdata()) == [x0, x0]
    # the area under c (λ/x_min)^−α beyond x_min, c·x_min/(α−1), is the share of the tail
    assert 10 ** (y0 + x0) / (layer.alpha - 1) == pytest.approx(layer.n_tail / layer.n, rel=1e-9)


def test_the_line_passes_through_the_dots_of_a_true_power_law() -> None:
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    values = u ** (-1 / 1.5)  # α = 2.5
    dots, (law, _) = drawn(plot_layer(layer_of(torch.diag(values.sqrt()))))
    x0, y0 = law.get_xydata()[0]
    crowded = dots[dots[:, 0] < dots[0, 0] + 1]
    np.testing.assert_allclose(crowded[:, 1], y0 - 2.5 * (crowded[:, 0] - x0), atol=0.03)


def test_labels() -> None:
    layer = layer_of(cauchy(60, 80))
    assert layer.alpha is not None
    ax = plot_layer(layer)
    assert ax.get_title() == "weight  60×80\nheavy (entries)"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    law = f"α = {layer.alpha:.2f} ± {layer.sigma:.2f},  D = {layer.ks_distance:.3f}"
    assert texts == ["60 eigenvalues", "Marchenko–Pastur", law]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("log₁₀ λ", "log₁₀ density")


def test_where_it_is_drawn() -> None:
    layer = layer_of(gaussian(30, 40))
    ax = Figure().subplots()
    assert plot_layer(layer, ax) is ax
    assert layer.plot(ax) is ax
    own = layer.plot()
    assert own.figure is not ax.figure
    assert isinstance(own.figure, Figure)


@pytest.mark.parametrize(
    ("weight", "code", "n"),
    [
        (torch.full((30, 30), math.nan), "not_finite", 0),
        (torch.zeros(30, 30), "all_zero", 0),
        (torch.zeros(0, 30), "empty", 0),
        (torch.zeros(30, 30, device="meta"), "meta", 0),
        (torch.eye(30), "constant", 30),
        (7e70 * torch.eye(30, dtype=torch.float64), "constant", 30),
        (gaussian(1, 30), "too_few", 1),
        (gaussian(10, 30), "too_few", 10),
    ],
)
def test_a_layer_without_a_power_law(weight: Tensor, code: str, n: int) -> None:
    layer = layer_of(weight)
    ax = plot_layer(layer)
    said = [text.get_text() for text in (ax.get_legend().get_texts() if n else ax.texts)]
    assert code in said
    if n:
        dots, (nothing,) = drawn(ax)
        assert len(nothing.get_xdata()) == 0
        assert np.isfinite(dots).all()
    else:
        assert not ax.lines
    assert render(ax.figure)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-153, 1e-100, 1e100, 1e152])
def test_extreme_scales(scale: float) -> None:
    weight = gaussian(30, 100)
    layer, other = layer_of(weight), layer_of(weight * scale)
    assert other.status.ok
    dots, lines = drawn(plot_layer(layer))
    moved, moved_lines = drawn(ax := plot_layer(other))
    shift = 2 * math.log10(scale) * np.array([1, -1])
    np.testing.assert_allclose(moved, dots + shift, rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved_lines[0].get_xydata(), lines[0].get_xydata() + shift, rtol=0, atol=1e-6)
    assert render(ax.figure)  # type: ignore[arg-type]


def test_a_layer_that_could_not_be_read() -> None:
    ax = esd_report(nn.LazyLinear(3)).layers[0].plot()
    assert [text.get_text() for text in ax.texts] == ["uninitialized"]


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (3, (1, 3)), (4, (1, 4)), (5, (2, 4)), (24, (6, 4))])
def test_a_report(count: int, grid: tuple[int, int]) -> None:
    report = esd_report(nn.Sequential(*(nn.Linear(3, 4) for _ in range(count))))
    figure = plot_report(report)
    assert (axes := figure.axes)[0].get_gridspec().get_geometry() == grid
    assert [ax.get_title() for ax in axes[:count]] == [f"{i}  4×3\ntoo_few" for i in range(count)]
    assert len(axes) == math.prod(grid)
    assert not any(ax.axison for ax in axes[count:])
    assert figure.get_suptitle() == ""


def test_more_layers_than_panels() -> None:
    report = esd_report(nn.Sequential(*(nn.Linear(3, 4) for _ in range(27))))
    figure = report.plot()
    assert len(figure.axes) == 24
    assert figure.axes[-1].get_title() == "23  4×3\ntoo_few"
    assert figure.get_suptitle() == "the first 24 of 27 layers"


@pytest.mark.parametrize(
    ("net", "include"), [(nn.ReLU(), None), (nn.Linear(3, 4), "decoder"), (nn.Linear(3, 4), [r"^$\frac$", "^dec$"])]
)
def test_no_layers(net: nn.Module, include: str | list[str] | None) -> None:
    report = esd_report(net, include=include)
    figure = report.plot()
    assert figure.get_suptitle().replace("\n", " ") == report.status.message
    assert not any(ax.axison for ax in figure.axes)
    assert render(figure)


def test_a_name_is_no_mathematics() -> None:
    figure = esd_report(nn.ModuleDict({r"$\frac$": nn.Linear(3, 4)})).plot()
    assert figure.axes[0].get_title() == r"$\frac$  4×3" "\ntoo_few"
    assert render(figure)


def test_a_whole_figure_renders() -> None:
    report = esd_report(
        nn.Sequential(linear(gaussian(30, 40)), linear(cauchy(30, 40)), nn.LazyLinear(3), nn.Linear(2, 9))
    )
    assert render(report.plot()).startswith(b"\x89PNG")


# -- the bulk ------------------------------------------------------------------------------------------------


def spiked(p: int, n: int, seed: int = 0) -> Tensor:
    """Gaussian with six singular values far above its bulk."""
    left, right = (torch.linalg.qr(gaussian(side, 6, seed=seed + side))[0] for side in (p, n))
    return gaussian(p, n, seed=seed) + 3 * (p**0.5 + n**0.5) * left @ right.T


def trapezoid(curve: np.ndarray) -> float:
    return float(np.trapezoid(curve[:, 1], curve[:, 0]))


@pytest.mark.parametrize("scale", [1.0, 1e-100, 1e140])
@pytest.mark.parametrize(("weight", "n_spikes"), [(gaussian(150, 300), 0), (spiked(60, 300), 6)])
def test_the_curve_is_the_share_of_the_bulk(weight: Tensor, n_spikes: int, scale: float) -> None:
    layer = layer_of(weight * scale)
    assert layer.spikes == n_spikes
    assert layer.bulk is not None
    curve = bulk_of(plot_bulk(layer))
    assert trapezoid(curve) == pytest.approx(1 - n_spikes / layer.n, rel=1e-2)
    # the edges of Gaussian entries of unit variance, (√n ± √p)², on the complement of the spikes
    p, n = (math.sqrt(side - n_spikes) for side in weight.shape)
    assert curve[0, 0] / scale**2 == pytest.approx((n - p) ** 2, abs=0.01 * (n + p) ** 2)
    assert curve[-1, 0] / scale**2 == pytest.approx((n + p) ** 2, rel=0.03)
    # the same curve on logarithmic axes, where it is positive
    np.testing.assert_allclose(10 ** bulk_of(plot_layer(layer)), curve[:-1], rtol=1e-9)


@pytest.mark.parametrize("weight", [gaussian(150, 300), spiked(60, 200), 1e-140 * gaussian(60, 70)])
def test_the_histogram_is_a_density(weight: Tensor) -> None:
    layer = layer_of(weight)
    ax = plot_bulk(layer)
    heights, edges, _ = ax.patches[0].get_data()  # type: ignore[attr-defined]
    values = np.linalg.svd(weight.numpy(), compute_uv=False) ** 2
    counts, _ = np.histogram(values, edges)
    np.testing.assert_allclose(heights * np.diff(edges) * values.size, counts, atol=1e-6)
    inside = (values <= ax.get_xlim()[1]).sum()
    assert counts.sum() == inside >= values.size - layer.spikes
    low, high = ax.get_ylim()
    assert low == 0
    assert high >= heights.max()


def test_labels_of_the_bulk() -> None:
    layer = layer_of(spiked(60, 80))
    assert layer.bulk is not None
    ax = plot_bulk(layer)
    assert ax.get_title() == "weight  60×80\nlight+spikes"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    ks = f"n·KS = {layer.bulk.n_ks:.2f} (light below {layer.bulk.n_ks_threshold:.2f})"
    assert sorted(texts) == sorted(["Marchenko–Pastur", "6 spikes beyond", ks])
    (edge,) = [line for line in ax.get_lines() if "spikes" in str(line.get_label())]
    assert list(edge.get_xdata()) == [layer.bulk.spike_edge] * 2


@pytest.mark.parametrize(
    ("weight", "code", "n"),
    [
        (torch.full((30, 30), math.nan), "not_finite", 0),
        (torch.zeros(30, 30), "all_zero", 0),
        (torch.eye(30), "constant", 30),
        (gaussian(1, 30), "too_few", 1),
        (gaussian(10, 30), "too_few", 10),
    ],
)
def test_a_layer_without_a_bulk(weight: Tensor, code: str, n: int) -> None:
    ax = plot_bulk(layer_of(weight))
    assert [text.get_text() for text in ax.texts] == ([] if n else [code])
    assert bool(ax.patches) == bool(n)
    assert render(ax.figure)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [3e-153, 1e-100, 1e100, 1e152])
@pytest.mark.parametrize("entries", [gaussian, cauchy])
def test_bulks_render_at_extreme_scales(entries: Callable[..., Tensor], scale: float) -> None:
    weight = entries(30, 100)
    layer = layer_of(weight * (scale / float(weight.abs().max() if scale > 1 else 1)))
    assert layer.status.ok
    assert render(plot_bulk(layer).figure)  # type: ignore[arg-type]


def test_all_bulks_of_a_report() -> None:
    report = esd_report(nn.Sequential(linear(gaussian(30, 40)), linear(cauchy(30, 40)), nn.LazyLinear(3)))
    figure = plot_report(report, plot_bulk)
    assert [ax.get_xlabel() for ax in figure.axes] == ["λ", "λ", ""]
    assert render(figure)


def test_exponents_over_training() -> None:
    figure = plot_exponents({"a": ([0, 10, 20], [2.0, math.nan, 4.0]), "b": ([0], [1.5])})
    (ax,) = figure.axes
    lines = ax.get_lines()
    assert [line.get_label() for line in lines] == ["a", "b"]
    np.testing.assert_allclose(10.0 ** np.asarray(lines[0].get_ydata()), [2, math.nan, 4])
    assert list(lines[0].get_xdata()) == [0, 10, 20]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert [tick.get_text() for tick in ax.get_yticklabels()][:3] == ["1.5", "2", "3"]
    assert render(figure)


def test_no_exponents_and_many() -> None:
    assert render(plot_exponents({}))
    many = plot_exponents({str(i): ([0, 1], [2.0, 3.0]) for i in range(40)})
    assert len(many.axes[0].get_lines()) == 24
    assert render(plot_exponents({"all": ([0, 1], [math.nan, math.nan])}))
