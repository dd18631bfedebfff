"""Autoencoders, dense and convolutional: maps of a space to itself, whose fixed points are what they store."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fpstab.models._activations import activation_layer
from fpstab.models._checks import is_int, is_number, layer_sizes, require
from fpstab.models.mlp import MLP


class Autoencoder(nn.Module):
    """A dense autoencoder `[B, ...] -> [B, ...]`, mirrored: by default 784-256-64-256-784.

    The input is flattened, and the output takes its shape again. Every layer is followed by the activation,
    the code layer too; the last one by the output activation.

    Args:
        widths: The width of the input, of each hidden layer of the encoder, and of the code; two or more.
        activation: An elementwise activation of `torch.nn`, by class name or lower-case short name.
        output_activation: The same, after the last layer; `None` for none.
        noise: The standard deviation, in units of the input, of the Gaussian noise that is added to the input
            in training mode; in evaluation mode the map is deterministic.
        structure: A parametrisation of `fpstab.stability.parametrizations` for the weight of every layer; `None` for
            free weights.

    Raises:
        ValueError: An argument is not of this kind; the message names it and says what it may be.

    >>> autoencoder = Autoencoder((16, 8, 3))
    >>> autoencoder(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 1, 4, 4])
    >>> autoencoder.encode(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        widths: Sequence[int] = (784, 256, 64),
        activation: str = "relu",
        output_activation: str | None = "sigmoid",
        noise: float = 0.0,
        structure: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.corrupt = GaussianNoise(noise)
        self.encoder = MLP(widths, activation, output_activation=activation)
        self.decoder = MLP(self.encoder.widths[::-1], activation, output_activation)
        if structure is not None:
            from fpstab.stability.parametrizations import constrain

            constrain(self, structure)

    def encode(self, x: Tensor) -> Tensor:
        """The code `[B, widths[-1]]` of `x` `[B, ...]`, without noise.

        Raises:
            ValueError: A sample has not `widths[0]` values.
        """
        code: Tensor = self.encoder(x)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """The flat output `[B, widths[0]]` of a code `[B, widths[-1]]`.

        Raises:
            ValueError: A code has not `widths[-1]` values.
        """
        out: Tensor = self.decoder(code)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, ...]`, with `widths[0]` values a sample, to the same shape.

        Raises:
            ValueError: A sample has another number of values.
        """
        return self.decode(self.encode(self.corrupt(x))).reshape(x.shape)


class ConvAutoencoder(nn.Module):
    """A convolutional autoencoder of square images: `[B, C, size, size] -> [B, C, size, size]`.

    Each layer of the encoder halves the side of the image (rounded up) by a 3×3 convolution of stride 2; the
    decoder mirrors it. Every layer is followed by the activation, the code layer too; the last one by the
    output activation.

    Args:
        channels: The channels of the image, of each hidden layer of the encoder, and of the code; two or more.
        size: The side of the images, in pixels.
        activation: An elementwise activation of `torch.nn`, by class name or lower-case short name.
        output_activation: The same, after the last layer; `None` for none.
        noise: The standard deviation, in units of the input, of the Gaussian noise that is added to the input
            in training mode; in evaluation mode the map is deterministic.

    Raises:
        ValueError: An argument is not of this kind; the message names it and says what it may be.

    >>> autoencoder = ConvAutoencoder(channels=(1, 4, 8), size=28)
    >>> autoencoder.encode(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 8, 7, 7])
    >>> autoencoder(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        channels: Sequence[int] = (1, 16, 32),
        size: int = 28,
        activation: str = "relu",
        output_activation: str | None = "sigmoid",
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        channels = layer_sizes("channels", channels)
        require(is_int(size, 1), "size", size, "a positive integer")
        self.corrupt = GaussianNoise(noise)
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = [] if output_activation is None else [activation_layer(output_activation)]
        self.input_shape = (channels[0], size, size)
        for c_in, c_out in pairwise(channels):
            encoder += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), activation_layer(activation)]
            # Sides 2k - 1 and 2k both become k on the way down: the extra row brings back the even one.
            up = nn.ConvTranspose2d(c_out, c_in, 3, stride=2, padding=1, output_padding=1 - size % 2)
            decoder = [activation_layer(activation), up, *decoder]
            size = (size + 1) // 2
        self.code_shape = (channels[-1], size, size)
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder[1:])  # the code has its activation from the encoder

    def encode(self, x: Tensor) -> Tensor:
        """The code `[B, *code_shape]` of images `x` `[B, *input_shape]`, without noise.

        Raises:
            ValueError: `x` has another shape.
        """
        _check_shape(x, self.input_shape)
        code: Tensor = self.encoder(x)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """The images `[B, *input_shape]` of a code `[B, *code_shape]`.

        Raises:
            ValueError: `code` has another shape.
        """
        _check_shape(code, self.code_shape)
        out: Tensor = self.decoder(code)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Maps images `[B, *input_shape]` to the same shape.

        Raises:
            ValueError: `x` has another shape.
        """
        return self.decode(self.encode(self.corrupt(x)))


def _check_shape(x: Tensor, expected: tuple[int, ...]) -> None:
    if x.shape[1:] != expected:
        sizes = ", ".join(map(str, expected))
        raise ValueError(f"expected an input of shape [B, {sizes}], got {list(x.shape)}")


class GaussianNoise(nn.Module):
    """Adds independent Gaussian noise to its input `[...]` in training mode; the identity in evaluation mode.

    Args:
        std: The standard deviation of the noise, in units of the input.

    Raises:
        ValueError: `std` is negative or not finite.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        require(is_number(std) and std >= 0, "noise", std, "a finite number ≥ 0, a standard deviation")
        self.std = float(std)

    def forward(self, x: Tensor) -> Tensor:
        """The input `[...]`, with noise in training mode."""
        return x + self.std * torch.randn_like(x) if self.training and self.std else x

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"std={self.std:g}"
