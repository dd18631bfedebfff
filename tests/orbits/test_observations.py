import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.models import EqualWidthResNet
from fpstab.orbits import Orbits, expansivity, fit_probes, observe
from fpstab.results import AnalysisError
from tests.orbits.networks import CountsRows, Narrowing, Residual, Shuffled, SkipsPast, Tied, Tuples

STAGES = ["first.*", "second.*"]


def data(n=20, size=6, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, size, generator=generator), torch.arange(n) % classes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# --- What is observed ---


@pytest.mark.parametrize("inplace", [False, True])
def test_states_meet_the_final_head_by_way_of_what_lies_between(inplace):
    net, (x, y) = Shuffled(inplace=inplace), data()
    net(x)  # running statistics
    expected = copy.deepcopy(net).eval().observed(x).detach().double()
    before = x.clone()
    orbits = observe(net, (x, y), blocks=STAGES, space="logit")
    assert torch.equal(orbits.outputs, expected)
    assert torch.equal(x, before)
    assert orbits.blocks == ("first.0", "first.1", "second.0", "second.1")
    assert (orbits.head, orbits.space, orbits.n_blocks, orbits.n_images) == ("final", "logit", 4, 20)
    probabilities = observe(net, (x, y), blocks=STAGES).outputs
    assert torch.equal(probabilities, expected.softmax(2))


@pytest.mark.parametrize("options", [{}, {"stem": "patch"}, {"tied": True}, {"post_relu": False}, {"groups": "first"}])
def test_an_equal_width_resnet_is_observed_bit_for_bit(options):
    net = EqualWidthResNet(18, classes=4, **options)
    x, y = torch.rand(6, 3, 32, 32), torch.arange(6) % 4
    net.train()(x)
    orbits = observe(net, (x, y), space="logit", batch_size=4)
    assert net.training
    net.eval()
    with torch.no_grad():
        direct = [
            torch.stack([net.head(net.transport(state, t)) for t, state in enumerate(net.states(part))], 1)
            for part in x.split(4)
        ]
        output = torch.cat([net(part) for part in x.split(4)])
    assert torch.equal(orbits.outputs, torch.cat(direct).double())
    assert torch.equal(orbits.outputs[:, -1], output.double())
    assert orbits.n_blocks == net.n_blocks


def test_a_tied_block_gives_a_state_a_call():
    net, (x, y) = Tied(), data()
    orbits = observe(net, (x, y), blocks="block", space="logit")
    expected = [x]
    for _ in range(4):
        expected.append(net.block(expected[-1]))
    assert torch.equal(orbits.outputs, torch.stack([net.head(state) for state in expected], 1).detach().double())
    assert orbits.blocks == ("block",) * 4


def test_blocks_that_return_tuples():
    net, (x, y) = Tuples(), data()
    orbits = observe(net, (x, y), space="logit")
    expected = [x]
    for block in net.blocks:
        expected.append(block(expected[-1], 0.5)[0])
    assert torch.equal(orbits.outputs, torch.stack([net.head(state) for state in expected], 1).detach().double())


def test_a_network_that_counts_its_rows():
    net, (x, y) = CountsRows(), data(size=4)
    orbits = observe(net, (x, y), space="logit", batch_size=7)
    assert torch.equal(orbits.outputs[:, 0], torch.cat([net.head(part) for part in x.split(7)]).detach().double())


def test_an_iterated_map_with_a_head_of_its_own():
    matrix = 0.5 * torch.eye(3)
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 2])
    orbits = observe(lambda z: z @ matrix, (x, y), steps=3, head=nn.Flatten(), space="logit")
    expected = torch.stack([x * 0.5**t for t in range(4)], 1).double()
    assert torch.equal(orbits.outputs, expected)
    assert orbits.head == "callable"
    module = nn.Linear(3, 3).double()
    twice = observe(module, (x, y), steps=2, head=lambda z: z[:, :2], space="logit").outputs
    assert torch.equal(twice[:, 2], module(module(x.double()))[:, :2].detach())


def test_data_in_any_form_give_the_same():
    net, (x, y) = Shuffled(), data()
    sets = TensorDataset(x, y)
    expected = observe(net, (x, y), blocks=STAGES, batch_size=8)
    for form in (
        (x.numpy(), y.numpy()),
        sets,
        DataLoader(sets, 8),
        [{"image": x[:8], "label": y[:8]}, {"image": x[8:16], "label": y[8:16]}, (x[16:], y[16:], "extra")],
        (x, y.float()),
        (x, y[:, None]),
        (x, torch.stack((y, y), 1)[:, 0]),
    ):
        found = observe(net, form, blocks=STAGES, batch_size=8)
        assert torch.equal(found.outputs, expected.outputs)
        assert torch.equal(found.labels, y)
        assert found.labels.is_contiguous()
    assert torch.equal(observe(net, sets, blocks=STAGES, batch_size=8, max_images=11).labels, y[:11])


def test_probes_find_what_a_state_says_linearly():
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(90) % 3
    x = 3 * torch.eye(6)[y] + torch.randn(90, 6, generator=generator)
    net = Shuffled()
    probes = fit_probes(net, (x, y), blocks=STAGES, epochs=30)
    assert len(probes) == 5
    assert probes[0].weight.shape == (3, 6)
    orbits = observe(net, (x, y), blocks=STAGES, head=probes, space="logit")
    assert orbits.head == "probes"
    right = (orbits.outputs.argmax(2) == y[:, None]).double().mean(0)
    assert right.min() > 0.8
    assert torch.allclose(right, torch.tensor([probe.accuracy for probe in probes], dtype=torch.float64), atol=0.05)
    torch.testing.assert_close(orbits.outputs[:, 0], probes[0](net.eval().stem(x)))
    again = observe(net, (x, y), blocks=STAGES, head="probes")
    assert torch.equal(again.outputs, observe(net, (x, y), blocks=STAGES, head="probes").outputs)


def test_probes_where_states_differ_in_size():
    x, y = data(size=8)
    orbits = observe(Narrowing(), (x, y), head="probes")
    assert orbits.outputs.shape == (20, 3, 3)


def test_nothing_of_the_network_changes():
    net, (x, y) = Shuffled(dropout=0.5), data()
    net.first[1].eval()
    state = copy.deepcopy(net.state_dict())
    heads = "final", "probes", nn.Sequential(nn.Dropout(), nn.Linear(6, 3))
    rng = torch.get_rng_state()
    for head in heads:
        observe(net, DataLoader(TensorDataset(x, y), 5, shuffle=True), blocks=STAGES, head=head)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert net.training
    assert heads[2][0].training
    assert not net.first[1].training
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in net.modules())


def test_a_network_in_half_precision_is_observed_in_float32():
    net, (x, y) = Tied(), data()
    half = copy.deepcopy(net).bfloat16()
    rounded = copy.deepcopy(half).float()
    orbits = observe(half, (x, y), blocks="block")
    assert torch.equal(orbits.outputs, observe(rounded, (x, y), blocks="block").outputs)
    assert "bfloat16" in orbits.status.message
    assert orbits.status.ok
    assert next(half.parameters()).dtype == torch.bfloat16


def test_autocast_around_it_changes_nothing():
    net, (x, y) = Tied(), data()
    expected = observe(net, (x, y), blocks="block").outputs
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.equal(observe(net, (x, y), blocks="block").outputs, expected)


# --- What is refused ---


@pytest.mark.parametrize(
    ("net", "blocks", "message"),
    [
        (
            Shuffled(),
            "blocks.*",
            r"blocks='blocks\.\*' matches no module of Shuffled\. Lists of modules: stem\.\*, first",
        ),
        (Shuffled(), ["first.*", "first.0.linear"], r"first\.0\.linear is called inside block first\.0"),
        (Narrowing(), "blocks.*", "8 → 6 → 4 values, and the final head .* Use head='probes'"),
        (SkipsPast(), "blocks.*", "does not give its output .* depends on more than their state"),
        (Tied(calls="rows"), "block", "called 20 times for one batch and 10 times"),
    ],
)
def test_blocks_that_make_no_orbit(net, blocks, message):
    x, y = data(30, {Narrowing: 8, SkipsPast: 4}.get(type(net), 6))
    with pytest.raises(ValueError, match=message):
        observe(net, (x, y), blocks=blocks, batch_size=20)
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in net.modules())


def test_a_block_that_is_never_called():
    net = Tied()
    net.spare = Residual(6)
    with pytest.raises(ValueError, match="none of the blocks spare is called"):
        observe(net, data(), blocks="spare")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": torch.zeros(4, 6)}, TypeError, "data: expected"),
        ({"data": [torch.zeros(4, 6)]}, ValueError, "no labels"),
        ({"data": (torch.zeros(4, 6), torch.zeros(5))}, ValueError, "4 images, but 5 labels"),
        ({"data": (torch.zeros(4, 6), torch.tensor([0, 1, 0.5, 2]))}, ValueError, r"such as 0\.5"),
        ({"data": (torch.zeros(4, 6), torch.zeros(4, 3))}, ValueError, r"\[4, 3\]"),
        ({"data": []}, ValueError, "no images"),
        ({"space": "probability"}, ValueError, "expected 'prob' or 'logit'"),
        ({"head": "last"}, ValueError, "head='last'"),
        ({"head": 3}, TypeError, "head: expected"),
        ({"head": [nn.Linear(6, 3)] * 2}, ValueError, "5 states, but 2 heads"),
        ({"head": lambda z: z.sum()}, ValueError, r"expected \[4, m\] at every state"),
        ({"max_images": 1}, ValueError, "max_images=1"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"steps": 2}, ValueError, "an iterated map has no head"),
        ({"target": lambda z: z}, TypeError, "steps= says how often"),
        ({"target": lambda z: z[:, :2], "steps": 2, "head": nn.Flatten()}, ValueError, r"this one gives \[4, 2\]"),
        ({"steps": 0, "head": nn.Flatten()}, ValueError, "steps=0"),
        ({"target": "net"}, TypeError, "got str"),
        ({"head": lambda z: z[:, :1]}, ValueError, "one output, whose softmax is 1"),
    ],
)
def test_bad_arguments(options, error, message):
    options = {"target": Tied(), "data": (torch.zeros(4, 6), torch.arange(4)), "blocks": "block"} | options
    with pytest.raises(error, match=message):
        observe(options.pop("target"), options.pop("data"), **options)


def test_outputs_that_are_not_finite():
    net, (x, y) = Tied(), data()
    x[7, 2] = math.nan
    with pytest.raises(AnalysisError, match="not finite at image 7, state 0 of 4, and in 1 of 20 images") as caught:
        observe(net, (x, y), blocks="block")
    assert caught.value.status.code == "not_finite"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 2)), [0, 1, 2]), ValueError, r"\[N, T\+1, m\], got \[3, 2\]"),
        ((np.zeros((1, 2, 2)), [0]), ValueError, "got 1 and 2"),
        ((np.zeros((3, 1, 2)), [0, 1, 2]), ValueError, "got 3 and 1"),
        ((np.zeros((3, 2, 2)), [0, 1]), ValueError, "one for each of the 3"),
        ((np.zeros((3, 2, 2)), [0, 1, 1.5]), ValueError, r"got 1\.5"),
        ((np.zeros((3, 2, 2)), [0, 1, 2], "probs"), ValueError, "space='probs'"),
        ((np.full((3, 2, 2), math.inf), [0, 1, 2]), ValueError, "image 0, state 0, value 0 is inf; 3 of 3"),
        ((np.full((3, 2, 2), 1e200), [0, 1, 2]), ValueError, "beyond 1e\\+150"),
        (([["a"]], [0]), TypeError, "expected an array of numbers"),
        ((np.zeros((3, 2, 2), complex), [0, 1, 2]), TypeError, "real numbers"),
    ],
)
def test_orbits_of_bad_arrays(arguments, error, message):
    with pytest.raises(error, match=message):
        Orbits(*arguments)


def test_orbits_keep_float64_whatever_they_are_given():
    orbits = Orbits(np.float32([[[0.1], [0.2]], [[0.3], [0.4]]]), np.array([5.0, 9.0], np.float32), "logit")
    assert (orbits.outputs.dtype, orbits.labels.dtype) == (torch.float64, torch.int64)
    assert expansivity(orbits).definition.classes == (5, 9)
