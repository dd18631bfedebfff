"""The four activations that torch has not: their definitions, their rows, and where they are met."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from fpstab.activations import APLU, BLU, PELU, SoftExponential, activation_info
from fpstab.activations.functional import aplu, blu, pelu, soft_exponential
from fpstab.jacobian import affine_map
from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.operations import UnsupportedLayer
from fpstab.stability import stability_criteria
from tests.activations.functions import values, with_values

Z = torch.linspace(-6, 6, 241, dtype=torch.float64)
SIZE = st.floats(-4, 4, allow_subnormal=False, width=32)


def filled(module, **parameters):
    """A module whose parameters are what learning could make of them."""
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(module, name).copy_(torch.as_tensor(value))
    return module


# The definitions, as printed.


def test_soft_exponential():
    for alpha in (0.25, 1.0):
        assert torch.allclose(values(SoftExponential(alpha), Z), (torch.exp(alpha * Z) - 1) / alpha + alpha, rtol=1e-13)
    inside = Z[Z > 0.5 - 1 / 0.5 + 1e-9]
    expected = torch.log(1 + 0.5 * (inside - 0.5)) / 0.5
    assert torch.allclose(values(SoftExponential(-0.5), inside), expected, rtol=1e-12, atol=1e-14)
    assert values(SoftExponential(-0.5), Z)[Z < -1.5].isnan().all()
    assert torch.equal(values(SoftExponential(0.0), Z), Z)
    assert torch.allclose(values(SoftExponential(-1.0), Z[Z > 0]), Z[Z > 0].log(), rtol=1e-12, atol=1e-14)
    assert torch.allclose(values(SoftExponential(1.0), Z), Z.exp(), rtol=1e-13)


def test_blu():
    assert torch.allclose(values(BLU(-0.3), Z), -0.3 * ((Z * Z + 1).sqrt() - 1) + Z, rtol=1e-7)
    tiny, huge = torch.tensor([[1e-9], [1e200]], dtype=torch.float64)
    blunt = filled(BLU(), beta=[1.0])
    assert (values(blunt, tiny) - tiny).item() == pytest.approx(0.5e-18, abs=1e-24)  # no digits are lost
    assert values(blunt, huge).item() == pytest.approx(2e200)


def test_aplu():
    unit = with_values(APLU(2), [0.5, -0.25], [1.0, -2.0])
    expected = Z.clamp(min=0) + 0.5 * (1 - Z).clamp(min=0) - 0.25 * (-Z - 2).clamp(min=0)
    assert torch.allclose(values(unit, Z), expected)
    assert torch.equal(values(APLU(5), Z), Z.clamp(min=0))  # as it starts
    assert (APLU(5).b.diff() > 0.1).all()


def test_aplu_by_channel():
    unit = filled(APLU(1, 3), a=[[0.5], [0.0], [-2.0]], b=[[0.0], [1.0], [0.0]])
    z = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([torch.where(z[:, c] > 0, z[:, c], -a * z[:, c]) for c, a in enumerate((0.5, 0.0, -2.0))], 1)
    assert torch.allclose(unit(z), expected)
    info = activation_info(unit)
    alpha, beta = info.slopes((3, 2))
    assert alpha.tolist() == [-0.5, -0.5, 0.0, 0.0, 1.0, 1.0]
    assert beta.tolist() == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    assert (info.slope_range, info.sector, info.homogeneous) == ((-0.5, 2.0), 2.0, True)
    with pytest.raises(ValueError, match=r"3 channels; got .*\[4, 2\]"):
        unit(torch.zeros(4, 2))


def test_pelu():
    a, b = 0.75, 1.5
    assert torch.allclose(values(PELU(a, b), Z), torch.where(Z >= 0, a / b * Z, a * (torch.exp(Z / b) - 1)), rtol=1e-12)
    assert torch.allclose(values(PELU(), Z), nn.functional.elu(Z))


def test_gradients_of_parameters():
    units = [SoftExponential(a) for a in (-0.1, 0.0, 0.5)]
    units += [BLU(0.3), with_values(APLU(2), [0.5, -0.25], [1.0, -2.0]), PELU(0.7, 1.2)]
    z = torch.tensor([-1.37, -0.41, 0.63, 2.9], dtype=torch.float64)
    for unit in units:
        unit = unit.double()
        unit(z).sum().backward()
        for parameter in unit.parameters():
            flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
            for i in range(len(flat)):
                ends = []
                for step in (1e-6, -2e-6):
                    flat[i] += step
                    ends.append(float(unit(z).sum().detach()))
                flat[i] += 1e-6
                assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8), unit


def test_no_gradient_is_lost_far_out():
    for unit in (SoftExponential(0.0), BLU(0.5), with_values(APLU(1), [0.5], [1.0]), PELU()):
        z = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
        unit(z).sum().backward()
        assert z.grad.isfinite().all()
        assert all(each.grad.isfinite().all() for each in unit.parameters())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SoftExponential(1.5), r"alpha=1.5.*\[-1, 1\]"),
        (lambda: SoftExponential(math.nan), "alpha=nan"),
        (lambda: BLU(-1.25), r"beta=-1.25.*\[-1, 1\]"),
        (lambda: APLU(0), "segments=0"),
        (lambda: APLU(1, 0), "num_parameters=0"),
        (lambda: PELU(0.0), "a=0.0.*above 0"),
        (lambda: PELU(1.0, math.inf), "b=inf"),
    ],
)
def test_senseless_parameters(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_they_say_their_parameters():
    assert repr(SoftExponential(0.5)) == "SoftExponential(alpha=0.5)"
    assert repr(APLU(2, 3)) == "APLU(segments=2, num_parameters=3)"
    assert repr(nn.Sequential(BLU(0.25), PELU(2.0, 1.0))[1]) == "PELU(a=2, b=1)"


# Their rows: no chord is beyond the range, and some chord comes within 1e-6 of its ends.


def chords_hold(module, draw):
    low, high = activation_info(module).slope_range
    generator = torch.Generator().manual_seed(draw)
    z = 10.0 ** torch.empty(400, 2, dtype=torch.float64).uniform_(-3, 3, generator=generator)
    z = z * torch.empty_like(z).uniform_(-1, 1, generator=generator)
    z = z[(z[:, 1] - z[:, 0]).abs() > 1e-4]
    value = values(module, z.reshape(-1, 1)).reshape(z.shape)
    step = z[:, 1] - z[:, 0]
    slope = (value[:, 1] - value[:, 0]) / step
    error = 1e-15 * (value.abs().sum(1) + z.abs().sum(1)) / step.abs() * 20
    known = slope.isfinite()
    assert bool((slope >= low - error)[known].all())
    assert bool((slope <= high + error)[known].all())
    return low, high


def chord(module, left, right):
    left, right = torch.tensor([[left], [right]], dtype=torch.float64)
    return float((values(module, right[:, None]) - values(module, left[:, None])) / (right - left))


def tight(value, bound):
    return abs(value - bound) <= 1e-6 * max(1.0, abs(bound))


@settings(max_examples=60, deadline=None)
@given(beta=SIZE, draw=st.integers(0, 10**6))
def test_slopes_of_blu(beta, draw):
    unit = filled(BLU(), beta=[beta])
    low, high = chords_hold(unit, draw)
    ends = sorted((chord(unit, -1e6, -1e4), chord(unit, 1e4, 1e6)))
    assert tight(ends[0], low)
    assert tight(ends[1], high)
    assert tight(max(abs(each) for each in (values(unit, torch.tensor([[-1e8], [1e8]]).double()) / 1e8).flatten()), activation_info(unit).sector)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(a=SIZE, b=st.floats(0.0625, 4, width=32), draw=st.integers(0, 10**6))
def test_slopes_of_pelu(a, b, draw):
    unit = filled(PELU(), a=[a], b=[b])
    low, high = chords_hold(unit, draw)
    ends = sorted((chord(unit, -1e9, -1e3), chord(unit, 1.0, 2.0)))
    assert tight(ends[0], low)
    assert tight(ends[1], high)
    assert tight(abs(chord(unit, 0.0, 1.0)), activation_info(unit).sector)


def test_slopes_of_pelu_with_a_negative_b():
    info = activation_info(filled(PELU(), b=[-2.0]))
    assert (info.slope_range, info.sector) == ((-math.inf, -0.5), math.inf)
    assert activation_info(filled(PELU(), a=[-1.0], b=[-2.0])).slope_range == (0.5, math.inf)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(-0.984375, 1, width=32), draw=st.integers(0, 10**6))
def test_slopes_of_soft_exponential(alpha, draw):
    unit = filled(SoftExponential(), alpha=[alpha])
    low, high = chords_hold(unit, draw)
    info = activation_info(unit)
    assert values(unit, torch.zeros(1).double()).item() == pytest.approx(info.value_at_zero, rel=1e-14, abs=1e-300)
    if alpha == 0:
        assert (low, high, info.sector) == (1.0, 1.0, 1.0)
        return
    assert (low, high, info.sector) == (0.0, math.inf, math.inf)
    assume(abs(alpha) > 0.01)
    far = 60 / alpha if alpha > 0 else 1e9 / alpha**2
    pole = -far if alpha > 0 else abs(alpha) - 1 / abs(alpha) + 1e-9
    assert chord(unit, *((far - 1, far) if alpha > 0 else (pole, pole + 1e-9))) > 1e6  # without bound
    assert 0 <= chord(unit, *((pole, pole + 1) if alpha > 0 else (far, 2 * far))) < 1e-6


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(SIZE, st.sampled_from((-1.5, -0.25, 0.0, 0.125, 0.5, 3.0)) | SIZE), min_size=1, max_size=5
    ),
    draw=st.integers(0, 10**6),
)
def test_slopes_of_aplu(pairs, draw):
    unit = filled(APLU(len(pairs)), a=[[a for a, _ in pairs]], b=[[b for _, b in pairs]])
    low, high = chords_hold(unit, draw)
    info = activation_info(unit)
    kinks = sorted({0.0, *(b for _, b in pairs)})
    ends = [kinks[0] - 9.0, *kinks, kinks[-1] + 9.0]
    pieces = [(left, right) for left, right in itertools.pairwise(ends) if right - left > 1e-6]
    slopes = [chord(unit, *piece) for piece in pieces]
    assert min(slopes) >= low - 1e-7  # the shorter a piece the fewer digits
    assert max(slopes) <= high + 1e-7
    if len(pieces) == len(ends) - 1:
        assert tight(min(slopes), low)
        assert tight(max(slopes), high)
    if info.value_at_zero == 0:
        z = torch.tensor([each for each in (*ends, -1e9, 1e9) if each], dtype=torch.float64)
        z = torch.cat((z, torch.tensor([-1e-7, 1e-7], dtype=torch.float64)))
        ratio = (values(unit, z[:, None])[:, 0] / z).abs().max().item()
        assert ratio <= info.sector * (1 + 1e-6) + 1e-7
    else:
        assert info.sector == math.inf


def test_exact_numbers_are_exact():
    assert activation_info(BLU(0.5)).slope_range == (0.5, 1.5)
    assert activation_info(PELU(1.0, 4.0)).slope_range == (0.0, 0.25)
    third = activation_info(PELU(1.0, 3.0)).lipschitz
    assert third * 3 >= 1 > math.nextafter(third, 0) * 3 * (1 - 2**-53)
    cancelling = activation_info(with_values(APLU(2), [0.5, -0.5], [1.0, 1.0]))
    assert (cancelling.value_at_zero, cancelling.slope_range, cancelling.sector) == (0.0, (0.0, 1.0), 1.0)
    assert cancelling.homogeneous


# Where they are met: as one operation, by modules, by functions, in chains and in general.


UNITS = [
    SoftExponential(0.5),
    SoftExponential(-0.25),
    SoftExponential(),
    BLU(0.5),
    with_values(APLU(3), [0.25, -0.5, 0.125], [-0.5, 0.25, 1.0]),
    with_values(APLU(2, 3), [0.25, -0.5], [-0.5, 0.25]),
    PELU(0.75, 1.25),
]
BOUNDED = UNITS[2:]


def network(unit, size=0.5, n=2, hidden=3):
    layers = [nn.Linear(n, hidden), copy.deepcopy(unit), nn.Linear(hidden, hidden), copy.deepcopy(unit), nn.Linear(hidden, n)]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for layer in layers[::2]:
        for parameter in layer.parameters():
            parameter.data = size * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return nn.Sequential(*layers)


class Functional(nn.Module):
    """The same, with functions in `forward`."""

    FUNCTIONS = {SoftExponential: soft_exponential, BLU: blu, APLU: aplu, PELU: pelu}  # noqa: RUF012

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        for layer in self.net:
            x = layer(x) if isinstance(layer, nn.Linear) else self.FUNCTIONS[type(layer)](x, *layer.parameters())
        return x


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("wrap", [lambda net: net, Functional], ids=["modules", "functions"])
@pytest.mark.parametrize("path", ["chain", "generic"])
def test_affine_maps(unit, wrap, path):
    net = wrap(network(unit))
    if path == "generic":
        net = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1), nn.Flatten(), net)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at = affine_map(net, x, mode="shifted")
    assert at.path == path
    with torch.no_grad():
        value = copy.deepcopy(net).double()(x)
    error = (torch.bmm(at.A, x[:, :, None])[:, :, 0] + at.b - value).abs().max()
    assert error <= 1e-12 * value.abs().max()


@pytest.mark.parametrize("wrap", [lambda net: net, Functional], ids=["modules", "functions"])
@pytest.mark.parametrize("unit", BOUNDED, ids=str)
def test_certificates(unit, wrap):
    net = wrap(network(unit, 0.4))
    few = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    report = stability_criteria(net, points=few, quadratic=False)
    assert report.certified
    assert "R1-2" in {each.name for each in report.certificates if each.holds}
    bound = lipschitz_bound(net)
    assert bound.certified
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    net = copy.deepcopy(net).double()
    with torch.no_grad():
        y = net(x)
    attained = (torch.pdist(y) / torch.pdist(x)).max()
    assert 0.2 * bound.value <= attained <= bound.value  # and R3-lipsdp's is the same
    a, b = x[:1], x[1:2]
    with torch.no_grad():
        for _ in range(200):
            a, b = net(a), net(b)
    assert (a - b).abs().max() < 1e-9  # one fixed point, as is certified


@pytest.mark.parametrize("unit", UNITS[:2], ids=str)
def test_slopes_without_bound_are_refused_by_name(unit):
    with pytest.raises(UnsupportedLayer, match="layer '1': SoftExponential"):
        lipschitz_bound(network(unit))
    with pytest.raises(UnsupportedLayer, match="SoftExponential"):
        stability_criteria(network(unit))
    assert not stability_criteria(network(unit), throw=False).certified


def test_homogeneous_ones_count_fixed_points():
    unit = with_values(APLU(2), [0.25, 0.25], [0.0, 0.0])  # slope −½ for z < 0
    net = nn.Sequential(nn.Linear(2, 4, bias=False), unit, nn.Linear(4, 2, bias=False))
    for parameter, layer in zip((0.9, 0.3), net[::2], strict=True):
        layer.weight.data = parameter * torch.eye(*layer.weight.shape)
    found = {each.name: each for each in stability_criteria(net, quadratic=False).certificates}
    assert found["R6-patterns"].holds
    assert found["R2-2"].holds


def test_tracing_sees_one_operation():
    for unit in UNITS:
        graph = fx.symbolic_trace(Functional(nn.Sequential(copy.deepcopy(unit)))).graph
        assert [node.target for node in graph.nodes if node.op == "call_function"] == [Functional.FUNCTIONS[type(unit)]]
