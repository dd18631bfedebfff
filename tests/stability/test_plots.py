import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from fpstab.activations import BLU
from fpstab.jacobian import affine_map
from fpstab.maps import SelfMap
from fpstab.stability import activation_info, classify_attractor, phase_portrait, stability_criteria
from fpstab.stability.plots import plane, plot_activations, plot_certificates, plot_eigenvalues, plot_regions


def net():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.5, 0.0], [0.0, 0.5]]))
        layers[0].bias.zero_()
    return layers


def test_plane():
    points = plane(5, 2.0)
    assert points.shape == (25, 2)
    assert points.abs().max() == 2
    with pytest.raises(ValueError, match="size=1"):
        plane(1)


def test_regions():
    ax = plot_regions(net(), size=21, reach=3.0)
    drawn = np.asarray(ax.collections[0].get_array()).reshape(21, 21)
    for i, j in ((10, 10), (3, 17), (20, 0)):
        x = plane(21, 3.0).reshape(21, 21, 2)[i, j][None]
        assert drawn[i, j] == pytest.approx(float(affine_map(net(), x).spectral_radius()))
    assert drawn[10, 10] == pytest.approx(1.5)


def test_eigenvalues():
    affine = affine_map(net(), plane(5))
    ax = plot_eigenvalues(affine, Figure().subplots())
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 50


def test_phase_portrait():
    function = SelfMap(net(), torch.zeros(1, 2))
    ax = phase_portrait(function, attractor=classify_attractor(function), steps=10).plot()
    assert ax.get_title() == "multiple"
    assert len(ax.lines) == 16 + 2  # orbits, and the two fixed points that attract
    with pytest.raises(ValueError, match="maps 3 values"):
        phase_portrait(SelfMap(nn.Linear(3, 3), torch.zeros(1, 3)))


def test_activations():
    infos = [activation_info(each) for each in (nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.Hardshrink())]
    ax = plot_activations(infos)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["ReLU: nonexpansive", "Sigmoid: contractive", "GELU: sector", "Hardshrink: discontinuous"]
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses) == 1  # the paper calls the sigmoid unstable


def test_the_papers_activations():
    ax = plot_activations()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == 24  # of Figure 1, one of which is printed twice
    assert {"BLU: nonexpansive", "SoftExponential: nonexpansive", "APLU: nonexpansive", "PELU: nonexpansive"} < set(
        labels
    )
    crossed = {labels[int(line.get_ydata()[0])] for line in ax.lines if line.get_marker() == "x"}
    assert {label.split(":")[0] for label in crossed} == {
        "APLU", "PELU", "Sigmoid", "Hardsigmoid", "Hardswish", "SELU", "LogSigmoid", "Softplus"
    }  # fmt: skip


def test_estimated_activations_stand_apart():
    infos = [activation_info(lambda z: 2 * torch.tanh(z)), activation_info(BLU(0.5)), activation_info(nn.Tanh())]
    ax = plot_activations(infos)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["BLU: expansive", "Tanh: nonexpansive", "<lambda>: expansive (estimated)"]
    (bar,) = ax.patches
    assert (bar.get_x(), bar.get_width(), bar.get_facecolor()[3]) == (0.0, 2.0, 0.0)  # open
    assert [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and line.get_lw() == 1] == [1.5]
    assert not plot_activations(infos[1:]).patches


def test_diagnostics():
    report = stability_criteria(net(), quadratic=False)
    ax = report.diagnostics.plot()
    assert "diagnostic" in ax.get_title()
    assert len(ax.collections[0].get_offsets()) == 64


def test_certificates():
    certificates = stability_criteria(net()).certificates
    ax = plot_certificates(certificates)
    known = [each for each in certificates if each.scope == "global" and np.isfinite(each.value)]
    assert [label.get_text() for label in ax.get_yticklabels()] == [each.name for each in known]
    drawn = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert drawn == [each.value for each in known]
    assert ax.get_title() == "nothing is proved"
