"""Recall and baselines, on maps whose fixed points are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.experiments.applications import recall
from fpstab.experiments.applications.baselines import kmeans, mutual_information, nearest, purity
from fpstab.experiments.applications.pictures import show_images
from fpstab.experiments.applications.recall import one_pass, share


class Doubled(nn.Module):
    """x → tanh(2x), coordinate by coordinate: attractors at ±0.9575 in each, 0 repels."""

    def forward(self, x):
        return torch.tanh(2 * x)


class Halved(nn.Module):
    """x → x/2 + 1/4 in every coordinate: one fixed point, 1/2."""

    def forward(self, x):
        return x / 2 + 0.25


A = 0.9575040240772687


def test_who_is_stored_and_who_is_recalled():
    psi = torch.tensor([[A, A], [0.93, -0.98], [0.0, 0.0], [-0.5, -0.5]])
    starts = torch.tensor([[0.1, 0.2], [0.3, -3.0], [-0.1, -0.2], [-0.01, 0.5]])
    found = recall(Doubled(), psi, starts, tolerance=0.05)
    assert found.stored.tolist() == [True, True, False, False]
    # the second is off by (0.0275, 0.0225); the last one's orbit ends at (−A, −A)
    expected = [0.0, math.hypot(A - 0.93, 0.98 - A) / 2**0.5, 0.0, A - 0.5]
    assert found.distance.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.recalled.tolist() == [0, 1, -1, -1]
    assert found.settled == 1.0
    residual = np.tanh(2 * psi.double().numpy()) - psi.double().numpy()
    assert found.residual.tolist() == pytest.approx(np.sqrt((residual**2).mean(1)).tolist(), abs=1e-12)
    slope = 2 * (1 - np.tanh(2 * psi.double().numpy()) ** 2)  # J is diagonal
    assert found.rho.tolist() == pytest.approx(slope.max(1).tolist(), rel=2e-3)
    scalars = found.scalars()
    assert (scalars["n_stored"], scalars["n_exemplars"], scalars["n_attractors"]) == (2, 4, 4)
    assert [row["stored"] for row in found.table()] == found.stored.tolist()


def test_the_tolerance_decides():
    psi = torch.tensor([[0.93, 0.93]])
    assert recall(Doubled(), psi, psi, tolerance=0.03).n_stored == 1
    tight = recall(Doubled(), psi, psi, tolerance=0.02)
    assert (tight.n_stored, tight.recalled.tolist()) == (0, [-1])


def test_cycles_and_escapes_are_no_recall():
    class Turned(nn.Module):
        def forward(self, x):
            return -torch.tanh(2 * x)

    found = recall(Turned(), torch.tensor([[0.5]]), torch.tensor([[0.2]]))
    assert found.stored.tolist() == [False]
    assert found.distance.tolist() == [math.inf]
    assert found.recalled.tolist() == [-1]
    assert found.unsettled == "1 cycle"

    class Grown(nn.Module):
        def forward(self, x):
            return 3 * x + 1

    found = recall(Grown(), torch.tensor([[0.5]]), torch.tensor([[0.2], [0.7]]))
    assert (found.n_stored, found.settled) == (0, 0.0)


def test_one_fixed_point_is_every_bodys_end():
    found = recall(Halved(), torch.full((1, 1, 2, 2), 0.5), torch.randn(6, 1, 2, 2))
    assert found.recalled.tolist() == [0] * 6
    ends = found.ends(found.limit)
    assert ends.shape == (6, 1, 2, 2)
    assert torch.allclose(ends, torch.full_like(ends, 0.5))
    assert bool(found.ends(torch.tensor([-1])).isnan().all())


def test_bad_recall():
    with pytest.raises(ValueError, match=r"got \[0, 2\] and \[1, 2\]"):
        recall(Doubled(), torch.zeros(0, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"got \[1, 2\] and \[1, 3\]"):
        recall(Doubled(), torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="tolerance=0"):
        recall(Doubled(), torch.zeros(1, 2), torch.zeros(1, 2), tolerance=0)


def test_one_pass_is_in_double_precision():
    x = torch.rand(4, 3)
    assert torch.equal(one_pass(Doubled(), x), torch.tanh(2 * x.double()))


def test_nearest_by_brute_force():
    generator = np.random.default_rng(0)
    x, references = generator.normal(size=(30, 2, 3)), generator.normal(size=(7, 2, 3))
    expected = [int(np.argmin([((a - b) ** 2).sum() for b in references])) for a in x]
    assert nearest(torch.tensor(x), torch.tensor(references)).tolist() == expected


def test_information_of_groups():
    classes = torch.arange(4).repeat(5)
    assert mutual_information(classes, (classes * 7) % 4 - 1) == pytest.approx(1)
    assert mutual_information(classes, torch.zeros(20).long()) == 0
    # two groups of two classes each: I = ln 2, entropies ln 4 and ln 2
    halves = classes // 2
    assert mutual_information(classes, halves) == pytest.approx(2 * math.log(2) / (math.log(4) + math.log(2)))
    assert purity(classes, halves) == 0.5


def test_kmeans_finds_clusters_far_apart():
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(3).repeat(20)
    x = 10 * classes[:, None] + torch.rand(60, 2, generator=generator)
    assert mutual_information(classes, kmeans(x, x, 3, seed=0)) == pytest.approx(1)


def test_shares():
    assert math.isnan(share(torch.zeros(0)))
    assert share(torch.tensor([1, 2, 3]) > 1) == pytest.approx(2 / 3)


def test_rows_of_images():
    images = torch.rand(3, 1, 5, 5)
    figure = show_images({"a": images, "b": images[:1]}, {"a": ["x", "y", "z"]})
    first = figure.axes[1].images[0].get_array()
    assert np.allclose(first, images[1, 0])
    assert figure.axes[1].get_title() == "y"
    assert not figure.axes[4].images  # the second row has one image only
