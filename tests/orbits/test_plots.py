import io

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fpstab.orbits import (
    Orbits,
    expansivity,
    plot_chains,
    plot_dots,
    plot_matrix,
    plot_pairs,
    plot_shadowing,
    shadowing,
)
from tests.orbits import brute


def sample(n=40, classes=4):
    rng = np.random.default_rng(0)
    return Orbits(brute.softmax(2 * rng.normal(size=(n, 4, 3))), rng.integers(0, classes, n))


def draws(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_matrix_shows_every_value():
    constant = expansivity(sample()).block
    ax = constant.plot()
    np.testing.assert_array_equal(ax.images[0].get_array(), constant.matrix)
    assert len(ax.texts) == 16
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", "3"]
    assert "N = 40" in ax.get_title()
    draws(ax.figure)


def test_matrix_with_zeros_and_gaps():
    orbits = sample()
    outputs = orbits.outputs.clone()
    outputs[1] = outputs[0]
    labels = [0, 1, *[2] * 38]
    constant = expansivity(Orbits(outputs, labels)).definition
    draws(plot_matrix(constant, names=["no", "yes", "maybe"]).figure)
    draws(plot_dots(constant, names=["no", "yes", "maybe"]).figure)
    draws(plot_matrix(expansivity(Orbits(np.zeros((4, 2, 2)), [0, 1, 0, 1])).mean).figure)
    draws(plot_dots(expansivity(Orbits(np.zeros((4, 2, 2)), [0, 1, 0, 1])).mean).figure)


def test_dots_are_full_where_another_class_is_nearer():
    outputs = np.array([[0.0], [4.0], [1.0], [1.5], [9.0], [9.1]])[:, None].repeat(2, 1)
    constant = expansivity(Orbits(outputs, [0, 0, 1, 1, 2, 2], "logit")).mean
    ax = plot_dots(constant)
    dots = [c for c in ax.collections if len(c.get_offsets()) and np.isfinite(c.get_offsets()).all()]
    full = {
        (int(b), round(float(value), 6), index // 3)
        for index, c in enumerate(ax.collections)
        if c in dots and len(c.get_facecolors()) and c.get_facecolors()[0][3] > 0
        for b, value in c.get_offsets()
    }
    # seen from class 0 (its images are 4 apart), class 1 is nearer, at 1
    assert full == {(0, 1.0, 1)}
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([4.0, 0.5, 0.1])
    draws(ax.figure)


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (60,)])
def test_images_of_pairs_and_chains(shape):
    orbits = sample()
    images = torch.randn(40, *shape)
    found = expansivity(orbits).block
    figure = plot_pairs(found.pairs, images, count=3)
    between = [pair for pair in found.pairs if pair.classes[0] != pair.classes[1]][:3]
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"{p.classes[0]} · {p.i}" for p in between] + [f"{p.classes[1]} · {p.j}" for p in between]
    assert figure.axes[3].get_xlabel() == f"block {between[0].block}\n{between[0].value:.2e}"
    draws(figure)
    chains = shadowing(orbits)
    strip = plot_chains(chains, TensorDataset(images, orbits.labels))
    assert [ax.get_title().split(" · ")[-1] for ax in strip.axes] == [str(i) for i in (chains.tracer, *chains.chain)]
    draws(strip)
    draws(plot_chains(chains, images, classes=chains.classes(), names=["a", "b", "c", "d"]))


def test_pictures_of_nothing():
    draws(plot_pairs((), torch.zeros(3, 2, 2)))
    nothing = shadowing(Orbits(np.zeros((3, 4, 2)), [0, 0, 1]), throw=False)
    draws(plot_chains(nothing, torch.zeros(3, 2, 2)))
    draws(nothing.plot().figure)


def test_deltas_against_epsilons():
    for rule in ("best_traced", "curve"):
        found = shadowing(sample(), rule=rule)
        ax = plot_shadowing(found)
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), found.epsilons)
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.deltas)
        draws(ax.figure)
