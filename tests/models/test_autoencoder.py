import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.models import Autoencoder, ConvAutoencoder


def test_default_is_784_256_64_256_784_with_a_sigmoid() -> None:
    layers = [layer for layer in Autoencoder().modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [
        (784, 256),
        (256, 64),
        (64, 256),
        (256, 784),
    ]
    kinds = [type(m) for m in Autoencoder().modules() if not list(m.children())][1:]  # without the noise
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid]


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 5), min_size=1, max_size=3), shape=st.lists(st.integers(1, 4), max_size=3))
def test_maps_a_space_to_itself(widths: list[int], shape: list[int]) -> None:
    shape = [*shape, 2]
    n = int(torch.tensor(shape).prod())
    net = Autoencoder((n, *widths))
    x = torch.rand(3, *shape)
    code = net.encode(x)
    assert net(x).shape == x.shape
    assert code.shape == (3, widths[-1])
    torch.testing.assert_close(net(x).flatten(1), net.decode(code), rtol=0, atol=0)


def test_linear_autoencoder_with_tied_orthonormal_weights_is_a_projection() -> None:
    net = Autoencoder((6, 2), activation="identity", output_activation=None).double()
    basis = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.encoder.get_parameter("layers.0.weight").copy_(basis.T)
        net.decoder.get_parameter("layers.0.weight").copy_(basis)
        x = torch.randn(4, 1, 2, 3, dtype=torch.float64)
        torch.testing.assert_close(net(x).flatten(1), x.flatten(1) @ basis @ basis.T)
        torch.testing.assert_close(net(net(x)), net(x))


@pytest.mark.parametrize("channels", [(1, 16, 32), (3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("size", [28, 32])
def test_conv_maps_images_to_images(channels: tuple[int, ...], size: int) -> None:
    net = ConvAutoencoder(channels, size=size)
    x = torch.rand(2, channels[0], size, size)
    assert net(x).shape == x.shape
    assert net.encode(x).shape == (2, *net.code_shape)
    assert net.code_shape[0] == channels[-1]
    torch.testing.assert_close(net(x), net.decode(net.encode(x)), rtol=0, atol=0)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), depth=st.integers(1, 4))
def test_conv_of_any_size(size: int, depth: int) -> None:
    x = torch.rand(1, 1, size, size)
    assert ConvAutoencoder((1,) * (depth + 1), size=size)(x).shape == x.shape


def test_conv_layers_mirror_each_other() -> None:
    net = ConvAutoencoder((1, 4, 8), activation="tanh", output_activation=None)
    assert [type(m) for m in net.encoder] == [nn.Conv2d, nn.Tanh, nn.Conv2d, nn.Tanh]
    assert [type(m) for m in net.decoder] == [nn.ConvTranspose2d, nn.Tanh, nn.ConvTranspose2d]
    assert type(ConvAutoencoder().decoder[-1]) is nn.Sigmoid


@pytest.mark.parametrize("kind", [Autoencoder, ConvAutoencoder])
def test_noise_in_training_mode_only(kind: type[Autoencoder] | type[ConvAutoencoder]) -> None:
    net, x = kind(noise=0.3), torch.rand(4, 1, 28, 28)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.encode(x), net.encode(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    clean = kind()
    assert torch.equal(clean(x), clean(x))


def test_noise_has_the_standard_deviation_asked_for() -> None:
    torch.manual_seed(0)
    x = torch.zeros(100, 784)
    noise = Autoencoder(noise=0.3).corrupt(x)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)  # 78,400 samples: 0.25 %
    assert noise.mean().item() == pytest.approx(0.0, abs=0.006)
    assert not x.any()


@pytest.mark.parametrize("kind", [Autoencoder, ConvAutoencoder])
@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), "0.1", True, None])
def test_bad_noise(kind: type[Autoencoder] | type[ConvAutoencoder], noise: object) -> None:
    with pytest.raises(ValueError, match=r"noise must be a finite number ≥ 0.*got") as error:
        kind(noise=noise)  # type: ignore[arg-type]
    assert repr(noise) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (1,)}, r"channels must be .* two or more positive integers, got \(1,\)"),
        ({"channels": (1, 0)}, r"channels must be .* got \(1, 0\)"),
        ({"size": 0}, "size must be a positive integer, got 0"),
        ({"size": 28.0}, r"size must be a positive integer, got 28\.0"),
        ({"size": (28, 28)}, r"size must be a positive integer, got \(28, 28\)"),
        ({"activation": "step"}, "no activation is named 'step'; choose one of"),
        ({"output_activation": "softmax"}, "no activation is named 'softmax'; choose one of"),
    ],
)
def test_bad_conv_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvAutoencoder(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (784,)}, r"widths must be .* two or more positive integers, got \(784,\)"),
        ({"activation": "step"}, "no activation is named 'step'; choose one of"),
        ({"output_activation": "softmax"}, "no activation is named 'softmax'; choose one of"),
    ],
)
def test_bad_dense_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Autoencoder(**arguments)  # type: ignore[arg-type]


def test_wrong_input_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[B, 784\].*got \[2, 1, 32, 32\]"):
        Autoencoder()(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"\[B, 64\].*got \[2, 63\]"):
        Autoencoder().decode(torch.zeros(2, 63))
    for shape in [(2, 1, 32, 32), (2, 3, 28, 28), (2, 784), (1, 28, 28)]:
        with pytest.raises(ValueError, match=r"\[B, 1, 28, 28\], got \[" + ", ".join(map(str, shape)) + r"\]"):
            ConvAutoencoder()(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\[B, 32, 7, 7\], got \[2, 32, 8, 8\]"):
        ConvAutoencoder().decode(torch.zeros(2, 32, 8, 8))
