import itertools
import math

import numpy as np
import pytest
import torch
from mpmath import mp
from torch import nn

from fpstab.maps import SelfMap
from fpstab.proofs import certify_fixed_point, prove_fixed_points
from fpstab.results import AnalysisError
from tests.cases import TANH_2
from tests.proofs.references import cauchy, holds, root

POINT = torch.linspace(-0.5, 0.6, 30, dtype=torch.float64)


def autoencoder(seed: int, gain: float, widths: tuple[int, ...] = (30, 12, 5, 12, 30)) -> nn.Sequential:
    """Random, with a bottleneck, and with the fixed point `POINT` up to rounding."""
    draw = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n, m in itertools.pairwise(widths):
        linear = nn.Linear(n, m, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(gain * torch.randn(m, n, generator=draw, dtype=torch.float64) / n**0.5)
            linear.bias.copy_(0.1 * torch.randn(m, generator=draw, dtype=torch.float64))
        layers += [linear, nn.Tanh()]
    net = nn.Sequential(*layers)
    with torch.no_grad():
        x = POINT[: widths[0]]
        linear.bias.add_(torch.atanh(x) - torch.atanh(net(x)))
    return net


def specification(net: nn.Sequential) -> list[tuple[np.ndarray, np.ndarray, str]]:
    return [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy(), "tanh")
        for layer in net
        if isinstance(layer, nn.Linear)
    ]


@pytest.mark.parametrize(("gain", "kind"), [(0.8, "stable"), (2.5, "unstable")])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_point_in_thirty_dimensions(gain: float, kind: str, seed: int) -> None:
    net = autoencoder(seed, gain)
    certificate = certify_fixed_point(net, POINT + 1e-4)
    assert certificate.holds, certificate.status
    assert certificate.inner_dimension == 5
    assert certificate.radius < 1e-10 < 1e-7 < certificate.unique_radius
    with mp.workprec(200):
        x, _ = root(specification(net), certificate.centre.numpy())
        assert holds(*certificate.enclosure.numpy(), x)
    assert certificate.distance == pytest.approx(1e-4, rel=1e-6)
    assert float((certificate.centre - POINT).abs().max()) < 1e-10
    J = torch.autograd.functional.jacobian(lambda v: net(v[None])[0], certificate.centre)
    rho = float(torch.linalg.eigvals(J).abs().max())
    assert certificate.kind == kind == ("stable" if rho < 1 else "unstable")


def test_the_same_with_and_without_the_bottleneck() -> None:
    """A wide chain is proved in the layer's own space, a square one in the input's: the enclosures overlap."""
    net = autoencoder(3, 1.2, (10, 4, 10))
    narrow = certify_fixed_point(net, POINT[:10])
    first, second = specification(net)
    # a layer that is no narrower than the input in front and behind: twice the same map, without the detour
    padded = [
        (np.pad(first[0], ((0, 6), (0, 0))), np.pad(first[1], (0, 6)), "tanh"),
        (np.pad(second[0], ((0, 0), (0, 6))), *second[1:]),
    ]
    wide = certify_fixed_point(padded, POINT[:10])
    assert (narrow.inner_dimension, wide.inner_dimension) == (4, 10)
    assert narrow.kind == wide.kind != "unknown"
    overlap = (narrow.enclosure[0] <= wide.enclosure[1]) & (wide.enclosure[0] <= narrow.enclosure[1])
    assert overlap.all()


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_count(activation: str, seed: int) -> None:
    """Every fixed point of the plane that is counted can be certified alone, with the same stability, and no box of
    uniqueness holds another one."""
    layers = cauchy(seed, activation)
    proof = prove_fixed_points(layers)
    for k, point in enumerate(proof.points):
        certificate = certify_fixed_point(layers, point + 1e-9)
        assert certificate.holds
        assert certificate.kind == proof.kind[k]
        assert certificate.distance < 1.1e-9
        near = (proof.points - certificate.centre).abs().amax(1) < certificate.unique_radius
        assert near.nonzero().flatten().tolist() == [k]


def test_the_ball_is_nearly_as_large_as_can_be() -> None:
    """tanh(2x) = x at ±.9575 and 0: a ball around one cannot reach another, and this one reaches a third of the way."""
    certificate = certify_fixed_point([([[2.0]], None, "tanh")], [0.8])
    assert TANH_2 / 3 < certificate.unique_radius < TANH_2
    middle = certify_fixed_point([([[2.0]], None, "tanh")], [0.01])
    assert middle.kind == "unstable"
    assert 0.2 < middle.unique_radius < TANH_2


def test_affine_maps_are_alone_everywhere() -> None:
    certificate = certify_fixed_point([(np.diag([0.5, 3.0]), [1.0, 1.0], None)], [0.0, 0.0])
    assert certificate.centre.tolist() == pytest.approx([2.0, -0.5])
    assert (certificate.kind, certificate.distance) == ("unstable", pytest.approx(2.0))
    assert certificate.unique_radius > 1e6


@pytest.mark.parametrize(
    ("layers", "point"),
    [
        ([(np.eye(2), None, "hardtanh")], [0.2, 0.2]),  # a continuum
        ([(np.eye(2), [0.0, 1.0], None)], [0.0, 0.0]),  # none
        ([([[1.0]], None, "tanh")], [0.0]),  # a triple point
        ([([[2.0]], None, "relu")], [0.0]),  # on a kink that splits
        ([([[1.0]], [0.5], "relu")], [3.0]),  # none
    ],
)
def test_what_is_not_proved(layers: list, point: list[float]) -> None:  # type: ignore[type-arg]
    certificate = certify_fixed_point(layers, point)
    assert not certificate.holds
    assert certificate.status.code == "not_proved"
    assert certificate.status.message
    assert (certificate.kind, certificate.radius, certificate.unique_radius) == ("unknown", math.inf, 0.0)
    assert certificate.scalars()["holds"] == 0.0


def test_refusals() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.layer(x)

    with pytest.raises(AnalysisError, match="Skip is no chain"):
        certify_fixed_point(Skip(), [0.0, 0.0])
    refused = certify_fixed_point(SelfMap(Skip(), torch.zeros(1, 2)), [0.0, 0.0], throw=False)
    assert (refused.holds, refused.status.code) == (False, "not_a_chain")
    with pytest.raises(ValueError, match="expected 2 values, got 3"):
        certify_fixed_point(nn.Linear(2, 2), [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="finite"):
        certify_fixed_point(nn.Linear(2, 2), [0.0, float("nan")])
    with pytest.raises(ValueError, match="itself"):
        certify_fixed_point(nn.Linear(2, 3), [0.0, 0.0])


def test_a_point_in_the_shape_of_the_samples() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Unflatten(1, (2, 2)))
    with torch.no_grad():
        net[1].weight.mul_(0.3)  # type: ignore[operator, union-attr]
    certificate = certify_fixed_point(SelfMap(net, torch.zeros(1, 2, 2)), torch.zeros(2, 2))
    assert certificate.holds
    assert certificate.kind == "stable"
