"""The table against the functions themselves: chords on fine grids, and extrema in forty digits."""

import functools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules import activation as torch_activations

from fpstab.activations import APLU, BLU, PELU, SoftExponential, activation_info, is_activation, known_info
from fpstab.activations.functional import aplu, blu, pelu, soft_exponential
from tests.activations.functions import CONTINUOUS, GRID, JUMPING, label, named, slopes, values

F = nn.functional


def with_attribute(module, **parameters):
    """A module after learning has changed its parameters."""
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(module, name).fill_(value)
    return module


@named(CONTINUOUS)
def test_slopes_hold_and_are_attained(activation):
    low, high = activation_info(activation).slope_range
    chords = slopes(activation)
    assert low - 1e-9 <= chords.min()
    assert chords.max() <= high + 1e-9
    assert chords.min() == pytest.approx(low, abs=2e-3)  # 60 is not infinity
    assert chords.max() == pytest.approx(high, abs=2e-3)


@named([*CONTINUOUS, nn.Hardshrink(), nn.Threshold(-0.5, 1.0), nn.Threshold(0.5, 0.0)])
def test_zero_and_sector(activation):
    info = activation_info(activation)
    assert values(activation, torch.zeros(1).double()).item() == pytest.approx(info.value_at_zero, abs=1e-15)
    z = GRID[GRID != 0]
    ratio = (values(activation, z) / z).abs().max()
    if info.value_at_zero == 0:
        assert ratio <= info.sector + 1e-12
        assert ratio == pytest.approx(info.sector, rel=0.04)
    else:
        assert info.sector == math.inf


@named([*CONTINUOUS, *JUMPING])
def test_traits(activation):
    info = activation_info(activation)
    far = values(activation, torch.tensor([-1e8, 1e8]).double()).abs().max()
    assert info.bounded == bool(far < 100)
    scaled = [values(activation, c * GRID) - c * values(activation, GRID) for c in (0.37, 3.1)]
    assert info.homogeneous == all(bool(each.abs().max() < 1e-12) for each in scaled)
    jump = values(activation, GRID).diff().abs().max()
    assert info.continuous == bool(jump < 0.02)
    assert not info.random


@named(JUMPING)
def test_jumps_have_no_slope(activation):
    info = activation_info(activation)
    chords = slopes(activation)
    assert (info.slope_range[1] == math.inf) == bool(chords.max() > 100)
    assert (info.slope_range[0] == -math.inf) == bool(chords.min() < -100)
    assert info.lipschitz == math.inf
    assert info.verdict == "discontinuous"


def test_constants_are_rounded_outward():
    mpmath.mp.dps = 40
    c = mpmath.sqrt(2 / mpmath.pi)

    def gelu(x):
        return x * mpmath.ncdf(x)

    def gelu_tanh(x):
        return x * (1 + mpmath.tanh(c * (x + mpmath.mpf("0.044715") * x**3))) / 2

    def silu(x):
        return x / (1 + mpmath.exp(-x))

    def mish(x):
        return x * mpmath.tanh(mpmath.log1p(mpmath.exp(x)))

    for module, function, places in (
        (nn.GELU(), gelu, (-1.41, 1.41)),
        (nn.GELU("tanh"), gelu_tanh, (-1.42, 1.42)),
        (nn.SiLU(), silu, (-2.4, 2.4)),
        (nn.Mish(), mish, (-2.26, 1.49)),
    ):
        low, high = (
            mpmath.diff(function, mpmath.findroot(lambda x, f=function: mpmath.diff(f, x, 2), at)) for at in places
        )
        ours = [mpmath.mpf(each) for each in activation_info(module).slope_range]
        assert low - mpmath.mpf("1e-15") < ours[0] <= low
        assert high <= ours[1] < high + mpmath.mpf("1e-15")

    scale, alpha = mpmath.mpf("1.0507009873554804934193349852946"), mpmath.mpf("1.6732632423543772848170429916717")
    single = [float(torch.tensor(float(each), dtype=torch.float32)) for each in (scale, alpha)]
    selu = mpmath.mpf(activation_info(nn.SELU()).lipschitz)
    assert max(scale * alpha, mpmath.mpf(single[0]) * single[1]) <= selu < scale * alpha + mpmath.mpf("1e-8")
    assert mpmath.mpf(activation_info(nn.Hardsigmoid()).lipschitz) > mpmath.mpf(1) / 6
    assert 2 / mpmath.sqrt(mpmath.pi) <= mpmath.mpf(activation_info(torch.erf).lipschitz)


def test_every_activation_of_torch_is_known_or_not_elementwise():
    refused = {"GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
    arguments = {"Threshold": (0.0, 0.0), "MultiheadAttention": (4, 2)}
    for name in torch_activations.__all__:
        module = getattr(nn, name)(*arguments.get(name, ()))
        assert is_activation(module) == (name not in refused)
        if name in refused:
            with pytest.raises(TypeError, match=f"{name} is no elementwise.*several inputs"):
                activation_info(module)
        else:
            assert activation_info(module).name == name


@pytest.mark.parametrize(
    ("function", "module"),
    [
        (F.relu, nn.ReLU()),
        (torch.relu, nn.ReLU()),
        (torch.relu_, nn.ReLU()),
        (F.relu6, nn.ReLU6()),
        (F.hardtanh, nn.Hardtanh()),
        (functools.partial(F.hardtanh, min_val=-2.0, max_val=3.0), nn.Hardtanh(-2.0, 3.0)),
        (F.sigmoid, nn.Sigmoid()),
        (torch.special.expit, nn.Sigmoid()),
        (F.hardsigmoid, nn.Hardsigmoid()),
        (F.tanh, nn.Tanh()),
        (F.silu, nn.SiLU()),
        (F.mish, nn.Mish()),
        (F.hardswish, nn.Hardswish()),
        (functools.partial(F.elu, alpha=2.0), nn.ELU(2.0)),
        (F.celu, nn.CELU()),
        (F.selu, nn.SELU()),
        (F.gelu, nn.GELU()),
        (functools.partial(F.gelu, approximate="tanh"), nn.GELU("tanh")),
        (F.hardshrink, nn.Hardshrink()),
        (functools.partial(F.leaky_relu, negative_slope=2.0), nn.LeakyReLU(2.0)),
        (F.logsigmoid, nn.LogSigmoid()),
        (F.softplus, nn.Softplus()),
        (F.softshrink, nn.Softshrink()),
        (F.softsign, nn.Softsign()),
        (F.tanhshrink, nn.Tanhshrink()),
        (F.rrelu, nn.RReLU().eval()),
        (functools.partial(F.threshold, threshold=0.1, value=0.1), nn.Threshold(0.1, 0.1)),
        (functools.partial(soft_exponential, alpha=torch.tensor([0.5])), SoftExponential(0.5)),
        (functools.partial(blu, beta=torch.tensor([0.25])), BLU(0.25)),
        (functools.partial(aplu, a=torch.zeros(1, 2), b=torch.ones(1, 2)), APLU()),
        (functools.partial(pelu, a=torch.tensor([2.0]), b=torch.tensor([3.0])), PELU(2.0, 3.0)),
    ],
    ids=label,
)
def test_functions_are_as_their_modules(function, module):
    one, other = activation_info(function), activation_info(module)
    assert (one.slope_range, one.sector, one.value_at_zero) == (other.slope_range, other.sector, other.value_at_zero)
    assert (one.bounded, one.continuous, one.homogeneous) == (other.bounded, other.continuous, other.homogeneous)


def test_arguments_by_position():
    assert activation_info(F.leaky_relu, 3.0).slope_range == (1.0, 3.0)
    assert activation_info(F.relu, True).slope_range == (0.0, 1.0)  # in place
    assert activation_info("clamp_", -1.0, max=1.0).bounded


def test_prelu_by_channel():
    prelu = nn.PReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.5, -2.0, 3.0]))
    info = activation_info(prelu)
    assert (info.slope_range, info.sector) == ((-2.0, 3.0), 3.0)
    alpha, beta = info.slopes((3, 2))
    assert alpha.tolist() == [0.5, 0.5, -2.0, -2.0, 1.0, 1.0]
    assert beta.tolist() == [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="3 channels"):
        info.slopes((4,))


def test_a_random_activation_in_training():
    info = activation_info(nn.RReLU(0.1, 0.6).train())
    assert info.random
    assert info.slope_range == (0.1, 1.0)
    assert activation_info(nn.RReLU(0.5, 1.5).train()).slope_range == (0.5, 1.5)


@settings(max_examples=50, deadline=None)
@given(slope=st.floats(-4, 4), alpha=st.floats(0.05, 4))
def test_any_parameter(slope, alpha):
    for module in (nn.LeakyReLU(slope), nn.ELU(alpha), nn.CELU(alpha), nn.Softplus(alpha)):
        low, high = activation_info(module).slope_range
        chords = slopes(module)
        assert low - 1e-9 <= chords.min() <= chords.max() <= high + 1e-9


def test_verdicts():
    verdicts = {
        "contractive": [nn.Sigmoid(), nn.Hardsigmoid()],
        "nonexpansive": [nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.LogSigmoid(), nn.LeakyReLU(-1.0), nn.ELU(0.5)],
        "sector": [nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish()],
        "expansive": [nn.SELU(), nn.ELU(1.5), nn.LeakyReLU(1.5), nn.CELU(-1.0)],
        "discontinuous": [nn.Hardshrink()],
    }
    for verdict, modules in verdicts.items():
        assert {activation_info(module).verdict for module in modules} == {verdict}


def test_where_the_paper_errs():
    # its "unstable" ones are contractive or nonexpansive; the instability is σ(z)/z at z = 0
    for module, constant in ((nn.Sigmoid(), 0.25), (nn.Hardsigmoid(), 1 / 6)):
        info = activation_info(module)
        assert info.paper_class == "unstable regions, BIBO stable"
        assert info.lipschitz == pytest.approx(constant, abs=1e-15)
        assert (info.verdict, info.sector) == ("contractive", math.inf)
    for module in (nn.Softplus(), nn.LogSigmoid()):
        info = activation_info(module)
        assert (info.paper_class, info.verdict, info.lipschitz) == ("unstable regions", "nonexpansive", 1.0)
    hardswish = activation_info(nn.Hardswish())
    assert (hardswish.paper_class, hardswish.sector, hardswish.verdict) == ("unstable regions", 1.0, "sector")
    # its "asymptotically stable" ones, K ≤ 1, are not all that
    gelu = activation_info(nn.GELU())
    assert gelu.paper_class == "asymptotically stable"
    assert (gelu.lipschitz, gelu.sector) == (pytest.approx(1.1289, abs=5e-5), 1.0)
    assert activation_info(nn.Hardshrink()).verdict == "discontinuous"
    for make in (nn.LeakyReLU, lambda slope: nn.PReLU(init=slope)):
        verdicts = [activation_info(make(slope)).verdict for slope in (-1.25, -1.0, 0.25, 1.0, 1.25)]
        assert verdicts == ["expansive", "nonexpansive", "nonexpansive", "nonexpansive", "expansive"]
    assert [activation_info(nn.ELU(a)).verdict for a in (0.5, 1.0, 1.25)] == [*["nonexpansive"] * 2, "expansive"]
    # only where they are the identity
    assert [activation_info(SoftExponential(a)).verdict for a in (-0.5, 0.0, 0.5)] == [
        "expansive",
        "nonexpansive",
        "expansive",
    ]
    assert [activation_info(BLU(b)).verdict for b in (-0.1, 0.0, 0.1)] == ["expansive", "nonexpansive", "expansive"]
    # and PELU is called unstable whatever its slope
    assert [activation_info(PELU(a, 1.0)).verdict for a in (0.5, 1.0, 1.5)] == [
        "contractive",
        "nonexpansive",
        "expansive",
    ]


def test_the_papers_classes():
    assert {activation_info(each()).paper_class for each in (SoftExponential, BLU)} == {"asymptotically stable"}
    assert {activation_info(each()).paper_class for each in (APLU, PELU)} == {"unstable regions"}
    assert activation_info(nn.Hardshrink()).paper_class == "asymptotically stable"
    assert activation_info(nn.Softplus()).paper_class == "unstable regions"
    assert activation_info(nn.Sigmoid()).paper_class == "unstable regions, BIBO stable"
    assert activation_info(nn.SiLU()).paper_class is None


def test_a_subclass_with_a_forward_of_its_own_is_not_trusted():
    class Kept(nn.ReLU):
        pass

    class Changed(nn.ReLU):
        def forward(self, x):
            return 2 * super().forward(x)

    assert known_info(Kept()).name == "ReLU"
    with pytest.raises(TypeError, match="forward of its own"):
        known_info(Changed())
    patched = nn.ReLU()
    patched.forward = torch.exp
    assert not is_activation(patched)


@pytest.mark.parametrize("activation", [torch.exp, torch.softmax, nn.Linear(2, 2), math.sin, len, [1]], ids=label)
def test_others_are_not_in_the_table(activation):
    assert not is_activation(activation)
    with pytest.raises(TypeError, match="no elementwise activation that is known"):
        known_info(activation)


@pytest.mark.parametrize(
    "module",
    [
        nn.LeakyReLU(math.nan),
        nn.CELU(0.0),
        nn.Softplus(0.0),
        nn.GELU("fast"),
        nn.Softshrink(-1.0),
        nn.PReLU(init=math.inf),
        with_attribute(SoftExponential(), alpha=math.nan),
        with_attribute(SoftExponential(), alpha=-1.0),
        with_attribute(BLU(), beta=math.inf),
        with_attribute(APLU(), a=math.nan),
        with_attribute(PELU(), b=0.0),
    ],
    ids=label,
)
def test_senseless_parameters(module):
    with pytest.raises(ValueError, match=r"nan|=0|fast|-1|finite"):
        activation_info(module)
