import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fpstab import guard
from fpstab.maps import SelfMap, analysis_modes, as_map, first_tensor
from fpstab.models import Autoencoder, ConvAutoencoder


def points(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Wrapped(nn.Module):
    """Returns what its function makes of a linear layer's output."""

    def __init__(self, wrap, n=4):
        super().__init__()
        self.linear = nn.Linear(n, n)
        self.wrap = wrap

    def forward(self, x, *args, **kwargs):
        return self.wrap(self.linear(x), *args, **kwargs)


def test_it_is_the_network_in_double_precision():
    net = Autoencoder((16, 8, 3))
    images = points(5, 1, 4, 4)
    network = SelfMap(net, images)
    reference = copy.deepcopy(net).double().eval()
    out = network(network.flatten(images))
    assert out.dtype == torch.float64
    assert network.shape == (1, 4, 4)
    assert network.is_square
    torch.testing.assert_close(out, reference(images.double()).flatten(1), rtol=0, atol=0)
    assert next(net.parameters()).dtype == torch.float32
    assert net.training


def test_the_map_is_the_network_as_it_was():
    net = nn.Linear(3, 3)
    network = SelfMap(net, points(2, 3))
    before = network(network.flatten(points(2, 3)))
    with torch.no_grad():
        net.weight += 1
    assert torch.equal(network(network.flatten(points(2, 3))), before)


def test_eval_mode_is_used_and_train_mode_stays():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3)).train()
    means = net[0].running_mean.clone()
    network = SelfMap(net, points(4, 3))
    network(network.flatten(points(4, 3)))
    assert all(module.training for module in net.modules())
    assert torch.equal(net[0].running_mean, means)


def test_no_random_number_is_drawn():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="random"):
        SelfMap(lambda x: x + torch.randn_like(x), points(2, 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("path", ["net", "net.decoder", "net.encode"])
def test_paths_lead_to_modules_and_methods(path):
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Autoencoder((6, 4))

    task = Task()
    n = 4 if path == "net.decoder" else 6
    network = SelfMap(task, points(3, n), path=path)
    reference = copy.deepcopy(task.net).double()
    direct = {"net": reference, "net.decoder": reference.decoder, "net.encode": reference.encode}[path]
    assert torch.equal(network(points(3, n).double()), direct(points(3, n).double()))
    assert network.name == f"Task.{path}"


def test_a_bound_method_is_copied_with_its_module():
    net = Autoencoder((6, 4))
    network = SelfMap(net.encode, points(3, 6))
    assert (network.n_in, network.n_out) == (6, 4)
    assert torch.equal(network(points(3, 6).double()), copy.deepcopy(net).double().encode(points(3, 6).double()))


def test_a_callable_is_used_as_it_is():
    network = SelfMap(lambda x: torch.tanh(2 * x), points(1, 2))
    x = torch.tensor([[0.3, -0.1]], dtype=torch.float64)
    assert torch.equal(network(x), torch.tanh(2 * x))


def test_a_wrong_path_names_the_parts():
    with pytest.raises(
        ValueError, match=r"path='decoded': Autoencoder has no 'decoded'\. It has: corrupt, encoder, decoder"
    ):
        SelfMap(Autoencoder((4, 2)), points(1, 4), path="decoded")


@pytest.mark.parametrize("wrap", [lambda y: (y, y.sum(1)), lambda y: {"recon": y, "mean": y[:, :2]}])
def test_the_output_as_large_as_the_input_is_the_value(wrap):
    net = Wrapped(wrap)
    assert torch.equal(
        SelfMap(net, points(2, 4))(points(2, 4).double()), copy.deepcopy(net.linear).double()(points(2, 4).double())
    )


def test_an_ambiguous_output_must_be_chosen():
    net = Wrapped(lambda y: {"a": y, "b": 2 * y})
    with pytest.raises(ValueError, match=r"'a': \[2, 4\], 'b': \[2, 4\].*output="):
        SelfMap(net, points(2, 4))
    one, two = (SelfMap(net, points(2, 4), output=key)(points(2, 4).double()) for key in "ab")
    assert torch.equal(2 * one, two)
    with pytest.raises(ValueError, match="output='c'"):
        SelfMap(net, points(2, 4), output="c")


def test_an_output_that_is_no_tensor():
    with pytest.raises(TypeError, match="NoneType"):
        SelfMap(lambda x: None, points(2, 4))


def test_arguments_are_passed_in_double_precision():
    net = Wrapped(lambda y, shift, *, scale: scale * y + shift)
    network = SelfMap(net, points(2, 4), args=(torch.ones(4),), kwargs={"scale": 3})
    x = points(2, 4).double()
    torch.testing.assert_close(network(x), 3 * copy.deepcopy(net.linear).double()(x) + 1)


def test_shapes_are_named():
    network = SelfMap(nn.Linear(4, 3), points(2, 4))
    with pytest.raises(ValueError, match=r"Linear maps \[4\] \(4 values\) to 3 values"):
        network.require_square("eigenvalues")
    with pytest.raises(ValueError, match=r"takes \[B, 4\] or \[B, 4\], got \[2, 5\]"):
        network.flatten(points(2, 5))


def test_flat_and_shaped_points_are_the_same():
    network = SelfMap(ConvAutoencoder((1, 2), size=4), points(3, 1, 4, 4))
    images = points(3, 1, 4, 4)
    assert torch.equal(network.flatten(images), network.flatten(images.flatten(1).numpy()))
    assert torch.equal(network.unflatten(network.flatten(images)), images.double())


def test_empty_examples_are_refused():
    with pytest.raises(ValueError, match=r"one row or more, got shape \[0, 4\]"):
        SelfMap(nn.Linear(4, 4), points(0, 4))


def test_rows_that_influence_one_another_are_refused():
    net = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="influence one another"):
        SelfMap(net, points(3, 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tanh(torch.cumsum(x, 0)),
        lambda x: torch.tanh(x - x[:1]),
        lambda x: torch.tanh(2 * x / x.abs().max()),
        lambda x: x - x.mean(0),
    ],
    ids=["cumsum", "first", "max", "mean"],
)
def test_any_influence_of_another_row_is_seen(function):
    with pytest.raises(ValueError, match="influence one another"):
        SelfMap(function, points(6, 8) - 0.5)


def test_a_recurrent_layer_over_the_batch_is_refused():
    with pytest.raises(ValueError, match="batch_first"):
        SelfMap(nn.LSTM(5, 5), points(6, 3, 5))
    assert SelfMap(nn.LSTM(5, 5, batch_first=True), points(6, 3, 5)).is_square


def test_a_little_noise_is_noise():
    with pytest.raises(ValueError, match="is random"):
        SelfMap(lambda x: x + 1e-10 * torch.randn_like(x), points(6, 8))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.as_tensor(np.tanh(2 * x.detach().numpy())),
        lambda x: torch.tanh(2 * x.detach()),
        lambda x: torch.tanh(x) + x.detach(),
        lambda x: torch.cos(x.float()).double(),
        lambda x: torch.cos(x.bfloat16()).double(),
    ],
    ids=["numpy", "detach", "half detached", "float32", "bfloat16"],
)
def test_a_derivative_that_is_none_is_refused(function):
    with pytest.raises(ValueError, match="what autograd gives is not its derivative"):
        SelfMap(function, points(6, 8))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.full_like(x, 3.0),
        lambda x: (x > 0.5).double(),
        lambda x: torch.round(4 * x) / 4,
        lambda x: torch.relu(x - 5),
        lambda x: 1e8 * torch.tanh(x / 1e8),
        lambda x: 1e-8 * torch.tanh(x * 1e8),
    ],
    ids=["constant", "steps", "rounded", "dead", "large", "small"],
)
def test_maps_without_much_of_a_derivative_are_taken(function):
    assert SelfMap(function, points(6, 8)).is_square


def test_black_images_are_no_kink_to_complain_of():
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1, bias=False))
    assert SelfMap(net, torch.zeros(4, 1, 6, 6)).is_square


def test_an_output_below_double_precision_is_refused():
    with pytest.raises(ValueError, match=r"returns torch.float32 for a float64 batch"):
        SelfMap(lambda x: x.float(), points(2, 3))


def test_a_function_around_a_float32_module_is_told_to_pass_the_module():
    net = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="rather than a function around it"):
        SelfMap(lambda x: net(x), points(2, 3))
    with pytest.raises(ValueError, match=r"at a float64 batch \[2, 4\]"):
        SelfMap(net, points(2, 4))


def test_a_first_layer_in_place_works_on_a_copy():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
    network = SelfMap(net, points(3, 4) - 0.5)
    x = network.flatten(points(3, 4) - 0.5)
    before = x.clone()
    network(x.requires_grad_()).sum().backward()
    assert torch.equal(x.detach(), before)


def test_a_last_output_and_a_dataclass():
    @dataclasses.dataclass
    class Output:
        recon: torch.Tensor
        code: torch.Tensor

    doubled = lambda x: (x[:, :2], 2 * x)  # noqa: E731
    assert torch.equal(SelfMap(doubled, points(2, 4), output=-1)(points(2, 4).double()), 2 * points(2, 4).double())
    named = SelfMap(lambda x: Output(3 * x, x), points(2, 4), output="recon")
    assert torch.equal(named(points(2, 4).double()), 3 * points(2, 4).double())


def test_a_row_that_is_not_finite_is_no_reason_to_refuse():
    example = points(3, 4)
    example[1, 0] = torch.nan
    assert SelfMap(nn.Linear(4, 4), example).is_square


@pytest.mark.parametrize(
    "batch", [(points(2, 3), torch.zeros(2)), {"x": points(2, 3), "y": 1}, [[points(2, 3)]], points(2, 3).numpy()]
)
def test_the_first_tensor_of_a_batch(batch):
    assert torch.equal(first_tensor(batch), points(2, 3))


def test_of_a_dictionary_the_first_tensor_of_floats():
    assert torch.equal(first_tensor({"label": torch.arange(2), "image": points(2, 3)}), points(2, 3))


def test_a_batch_without_tensors():
    with pytest.raises(TypeError, match="got str"):
        first_tensor("images")


def test_hooked_normalised_and_compiled_networks_are_copied():
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)), nn.Tanh())
    net(points(2, 3)).sum().backward()
    compiled = torch.compile(net)
    network = SelfMap(compiled, points(2, 3))
    reference = copy.deepcopy(net).double().eval()
    assert torch.equal(network(points(2, 3).double()), reference(points(2, 3).double()))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_weight_that_a_hook_has_computed():
    net = nn.utils.weight_norm(nn.Linear(3, 3))
    net(points(2, 3))  # leaves a weight that is no leaf
    x = points(2, 3).double()
    expected = nn.functional.linear(x, net.weight.detach().double(), net.bias.detach().double())
    torch.testing.assert_close(SelfMap(net, points(2, 3))(x), expected, rtol=1e-6, atol=1e-7)


def test_modes_around_do_not_matter():
    net = Autoencoder((6, 4), activation="tanh")  # no unit can be dead
    plain = SelfMap(net, points(3, 6))(points(3, 6).double())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        example = points(3, 6)
        with analysis_modes():
            network = SelfMap(net, example)
            x = network.flatten(example).requires_grad_()
            out = network(x)
            (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(out, plain)
    assert gradient.abs().sum() > 0


def test_attention_can_be_differentiated_twice():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with analysis_modes():
        network = SelfMap(layer, points(2, 3, 4))
        x = network.flatten(points(2, 3, 4)).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), x)
    assert second.isfinite().all()


def test_the_split_is_found_where_it_is_the_map():
    network = SelfMap(Autoencoder((16, 8, 3)), points(5, 1, 4, 4))
    encode, decode = network.split
    x = network.flatten(points(5, 1, 4, 4))
    assert encode(x).shape == (5, 3)
    assert torch.equal(decode(encode(x)), network(x))

    class Residual(Autoencoder):
        def forward(self, x):
            return x + super().forward(x)

    assert SelfMap(Residual((16, 8, 3)), points(5, 16)).split is None


def test_a_map_stays_itself():
    network = SelfMap(nn.Linear(2, 2), points(1, 2))
    assert as_map(network, points(4, 2)) is network
    assert as_map(nn.Linear(2, 2), points(4, 2)).n_in == 2


def test_no_rows_are_no_rows():
    network = SelfMap(nn.Linear(4, 3), points(1, 4))
    assert network(torch.empty(0, 4, dtype=torch.float64)).shape == (0, 3)


def test_it_works_inside_the_guard():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with guard.untouched(net):
        network = SelfMap(net, points(4, 3))
        assert network(network.flatten(points(4, 3))).isfinite().all()
    assert next(net.parameters()).requires_grad


def test_a_network_that_was_checked_is_not_checked_again():
    calls = []
    net = Autoencoder((6, 4))
    net.register_forward_hook(lambda *_: calls.append(1))
    first = SelfMap(net, points(3, 6))
    n_first = len(calls)
    again = SelfMap(net, points(3, 6), checked=True)
    assert len(calls) - n_first < n_first
    x = points(3, 6).double()
    assert torch.equal(again(x), first(x))
    assert (again.n_out, again.split is None) == (first.n_out, first.split is None)
