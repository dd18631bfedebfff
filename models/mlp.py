"""A network of dense layers."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fpstab.models._activations import activation_layer
from fpstab.models._checks import layer_sizes, require


class MLP(nn.Module):
    """Dense layers with an activation after each but the last: `[B, ...] -> [B, widths[-1]]`.

    The input is flattened from dimension 1 on, so images need no preparation. `layers` is the map of flat
    batches `[B, widths[0]] -> [B, widths[-1]]`, an `nn.Sequential` of linear layers and activations.

    Args:
        widths: The width of the input, of each hidden layer and of the output; two or more.
        activation: An elementwise activation of `torch.nn`, by class name or lower-case short name.
        output_activation: The same, after the last layer; none by default.
        bias: Whether the layers have a bias.

    Raises:
        ValueError: An argument is not of this kind; the message names it and lists what it may be.

    >>> MLP((4, 3, 2), activation="tanh").layers
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): Tanh()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """

    def __init__(
        self,
        widths: Sequence[int] = (784, 256, 10),
        activation: str = "relu",
        output_activation: str | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.widths = layer_sizes("widths", widths)
        require(isinstance(bias, bool), "bias", bias, "True or False")
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(self.widths):
            layers += [nn.Linear(n_in, n_out, bias=bias), activation_layer(activation)]
        layers[-1:] = [] if output_activation is None else [activation_layer(output_activation)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, ...]`, with `widths[0]` values a sample, to `[B, widths[-1]]`.

        Raises:
            ValueError: A sample has another number of values.
        """
        if x.ndim < 2 or math.prod(x.shape[1:]) != self.widths[0]:
            raise ValueError(
                f"expected an input of shape [B, {self.widths[0]}], or [B, ...] with {self.widths[0]} values "
                f"a sample, got {list(x.shape)}"
            )
        out: Tensor = self.layers(x.flatten(1))
        return out
