from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.models import MLP
from fpstab.models._activations import _CLASSES, activation_layer


def test_forward_is_the_formula() -> None:
    torch.manual_seed(0)
    net = MLP((12, 5, 4, 3), activation="tanh", output_activation="sigmoid").double()
    x = torch.randn(7, 3, 2, 2, dtype=torch.float64)
    z = x.numpy().reshape(7, 12)
    W1, b1, W2, b2, W3, b3 = (p.detach().numpy() for p in net.parameters())
    z = np.tanh(np.tanh(z @ W1.T + b1) @ W2.T + b2) @ W3.T + b3
    np.testing.assert_allclose(net(x).detach().numpy(), 1 / (1 + np.exp(-z)), rtol=1e-12)


def test_no_activation_follows_the_last_layer_by_default() -> None:
    assert [type(layer) for layer in MLP().layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in MLP((3, 2)).layers] == [nn.Linear]


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 9), min_size=2, max_size=5), bias=st.booleans(), batch=st.integers(0, 3))
def test_shapes_and_number_of_parameters(widths: list[int], bias: bool, batch: int) -> None:
    net = MLP(widths, bias=bias)
    assert net(torch.ones(batch, widths[0])).shape == (batch, widths[-1])
    assert sum(p.numel() for p in net.parameters()) == sum((n + bias) * m for n, m in pairwise(widths))


@pytest.mark.parametrize("shape", [(2, 783), (2, 1, 32, 32), (784,), (784, 2)])
def test_wrong_input_names_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, 784\].*got \[" + ", ".join(map(str, shape)) + r"\]"):
        MLP()(torch.zeros(shape))


def test_an_input_needs_a_batch_dimension() -> None:
    with pytest.raises(ValueError, match=r"\[B, 1\].*got \[3\]"):
        MLP((1, 2))(torch.zeros(3))


@pytest.mark.parametrize("widths", [(784,), (), (784, 0), (784, -3), (784, 2.5), (784, True), 784, "ab", None])
def test_bad_widths(widths: object) -> None:
    with pytest.raises(ValueError, match=r"widths must be .* two or more positive integers, got") as error:
        MLP(widths)  # type: ignore[arg-type]
    assert repr(widths) in str(error.value)


@pytest.mark.parametrize("name", ["softmax", "glu", "Linear", "Threshold", "", "re lu", 3, None])
@pytest.mark.parametrize("argument", ["activation", "output_activation"])
def test_unknown_activation_lists_the_names(argument: str, name: object) -> None:
    if name is None and argument == "output_activation":
        return  # that one means none
    with pytest.raises(ValueError, match=r"no activation is named .* choose one of .*Hardtanh.*ReLU.*Tanh") as error:
        MLP((3, 2), **{argument: name})  # type: ignore[arg-type]
    assert repr(name) in str(error.value)


def test_bad_bias() -> None:
    with pytest.raises(ValueError, match="bias must be True or False, got 'no'"):
        MLP((3, 2), bias="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(_CLASSES))
def test_every_activation_is_a_function_of_one_number(name: str) -> None:
    layer = activation_layer(name).eval()
    assert type(layer) is getattr(nn, name)
    assert type(activation_layer(name.lower())) is type(layer)
    x = torch.randn(6, 5)
    each = torch.stack([layer(value.reshape(1)) for value in x.flatten()]).reshape(6, 5)
    torch.testing.assert_close(layer(x), each)


def test_each_layer_has_an_activation_of_its_own() -> None:
    activations = [layer for layer in MLP((3, 3, 3, 3), activation="prelu").layers if isinstance(layer, nn.PReLU)]
    assert activations[0] is not activations[1]
