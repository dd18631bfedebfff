import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.plots import plot_bound, plot_brackets


@pytest.fixture(autouse=True)
def _no_pyplot_state():
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


def lines(ax):
    return {
        line.get_label(): np.asarray(line.get_xydata())
        for line in ax.get_lines()
        if not line.get_label().startswith("_")
    }


def rendered(ax):
    ax.get_figure().savefig(buffer := io.BytesIO(), format="png", dpi=40)
    return buffer.getvalue()


def test_brackets_over_training():
    series = {
        "value": ([0, 10, 20], [2.0, 4.0, math.inf]),
        "spectral_product": ([0, 10, 20], [8.0, 16.0, 32.0]),
        "sampled_lower": ([0, 20], [1.0, 3.0]),
        "slopes_lower": ([0, 10], [0.0, math.nan]),
    }
    ax = plot_brackets(series)
    drawn = lines(ax)
    np.testing.assert_allclose(
        drawn["product of norms"], [[0, math.log10(8)], [10, math.log10(16)], [20, math.log10(32)]]
    )
    np.testing.assert_allclose(drawn["certified bound"], [[0, math.log10(2)], [10, math.log10(4)], [20, math.nan]])
    np.testing.assert_allclose(drawn["Jacobian at the points"], [[0, 0], [20, math.log10(3)]])
    assert np.isnan(drawn["some network of these slopes"][:, 1]).all()
    assert "ECLipsE-Fast" not in drawn
    (shaded,) = ax.collections  # where both ends are known: at step 0 alone there is no area
    assert ax.get_xlabel() == "step"
    assert {"1", "2", "5", "10"} <= {tick.get_text() for tick in ax.get_yticklabels()}
    assert len(rendered(ax)) > 1000
    assert shaded is not None


def test_the_shaded_bracket():
    ax = plot_brackets({"value": ([0, 5], [10.0, 100.0]), "sampled_lower": ([0, 5], [1.0, 10.0])})
    (shaded,) = ax.collections
    corners = {tuple(corner) for corner in shaded.get_paths()[0].vertices}
    assert {(0.0, 0.0), (0.0, 1.0), (5.0, 1.0), (5.0, 2.0)} <= corners


@pytest.mark.parametrize("values", [[3.0, 3.0], [1e-9, 1e9], [0.5, 2.0]])
def test_there_are_always_ticks(values):
    ax = plot_brackets({"value": ([0, 1], values)})
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert 1 <= len(ticks) <= 30


def test_nothing_to_draw():
    assert len(rendered(plot_brackets({}))) > 1000
    assert len(rendered(plot_brackets({"value": ([], [])}))) > 1000
    assert len(rendered(plot_brackets({"value": ([0], [math.nan])}))) > 1000


def test_one_bound():
    bound = lipschitz_bound([[[1.0], [1.0]], [[1.0, -1.0]]], slopes=(0.0, 1.0))
    ax = plot_bound(bound)
    drawn = lines(ax)
    assert drawn["certified bound"][0, 1] == pytest.approx(math.log10(bound.value))
    assert drawn["product of norms"][0, 1] == pytest.approx(math.log10(2.0), abs=1e-9)
    assert np.isnan(drawn["Jacobian at the points"][0, 1])
    assert ax.get_title() == f"{bound.method}, certified"
    assert "1" in [text.get_text() for text in ax.texts]
    assert len(rendered(ax)) > 1000


def test_on_given_axes():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert plot_brackets({"value": ([0], [1.0])}, axes[0]) is axes[0]
    assert plot_bound(lipschitz_bound([[[2.0]]]), axes[1]) is axes[1]
