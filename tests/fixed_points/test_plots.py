"""Pictures say what the results say."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fpstab.fixed_points import basins, find_fixed_points
from fpstab.fixed_points.plots import plot_images
from tests import cases


def offsets(ax):
    return {each.get_label(): np.asarray(each.get_offsets()) for each in ax.collections}


def test_basins_are_filled_and_marked():
    found = basins(cases.doubled_tanh(2).map, ((-1, 1), (-1.5, 1.5)), resolution=20, unstable="newton")
    ax = found.plot()
    colours = np.asarray(ax.images[0].get_array())
    assert colours.shape == (20, 20, 3)
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 4
    assert (colours[:10, :10] == colours[0, 0]).all()
    marks = offsets(ax)
    assert {name: len(where) for name, where in marks.items()} == {"attracting": 4, "saddle": 4, "repelling": 1}
    assert np.allclose(marks["repelling"], 0, atol=1e-9)
    assert ax.get_title() == "4 attracting, 4 saddle, 1 repelling"


def test_undecided_nodes_are_grey():
    found = basins(lambda x: x + torch.tensor([1.0, 0.0]), resolution=3, throw=False)
    colours = np.asarray(found.plot().images[0].get_array())
    assert np.allclose(colours, 0.93)


def test_planes_are_projected():
    case = cases.doubled_tanh(3)
    u, v = torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0])
    found = basins(case.map, resolution=4, plane=(torch.zeros(3) + 0.1, u, v))
    marks = offsets(found.plot())["attracting"]
    assert np.allclose(np.unique(marks[:, 0].round(6)), [-cases.TANH_2 - 0.1, cases.TANH_2 - 0.1], atol=1e-5)
    assert np.allclose(
        np.unique(marks[:, 1].round(6)), [(-cases.TANH_2 - 0.1) / 2, (cases.TANH_2 - 0.1) / 2], atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (3, 2, 3)])
def test_images(shape):
    n = int(np.prod(shape))
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(5, *shape, generator=generator, dtype=torch.float64) - 0.5
    found = find_fixed_points(lambda x: torch.tanh(2 * x), starts)
    figure = found.plot()
    assert isinstance(figure, Figure)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == len(found) == 5
    picture = np.asarray(shown[0].images[0].get_array())
    assert picture.shape == ((2, 3, 3) if shape[0] == 3 and len(shape) == 3 else (2, 3))
    if picture.ndim == 2:
        assert np.allclose(picture.ravel(), found.points[0])
    assert "1 start" in shown[0].get_title()
    assert found.images().shape == (5, *shape)
    assert found.points.shape == (5, n)


def test_points_of_a_plane_and_a_line():
    found = find_fixed_points(cases.flipped_tanh(2).map, cases.uniform(20, 2), unstable="newton")
    ax = found.plot()
    assert set(offsets(ax)) == {"repelling"}
    assert len(ax.lines) == 2
    line = find_fixed_points(cases.doubled_tanh(1).map, cases.uniform(20, 1), unstable="newton").plot()
    assert np.allclose(offsets(line)["repelling"], [[0, 2]], atol=1e-8)
    with pytest.raises(ValueError, match="no image"):
        plot_images(found)


def test_convergence():
    found = find_fixed_points(cases.slow_contraction(0.5).map, cases.uniform(50, 3))
    ax = found.plot_convergence()
    assert len(ax.lines) == 32
    for line in ax.lines:
        steps, logs = line.get_data()
        # halved at every iteration
        assert np.allclose(np.diff(logs[:20]), np.log10(0.5), atol=1e-3)
        assert len(steps) in found.n_iterations
