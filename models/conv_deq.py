"""A convolutional deep-equilibrium model for photographs."""

from typing import Literal

import torch
from torch import Tensor, nn

from fpstab.equilibrium import Anderson, PhantomGradient, Solver
from fpstab.models._checks import is_int, require
from fpstab.models._families import check_family, draw_, outer_conv, outer_linear
from fpstab.models.deq import Equilibrium, EquilibriumCell, OnFailure, seeded


class ConvDEQ(nn.Module):
    """A convolutional deep-equilibrium classifier of images: `[B, channels, size, size] -> [B, classes]`.

    A stem of two convolutions halves the side of the image twice and gives x; the equilibrium z = φ(W∗z + b + x) of a 3×3
    convolution lets every place hear of every other; its mean over places goes to a dense layer. Norms stand in the
    stem only, as GroupNorm: no sample may depend on another.

    W is `[width, 9·width]` as a matrix, and comes from `"random"` or (semi-)`"orthogonal"`; √V scales it so that, in
    either family, W∗z is as long on average as √V·z. See `DEQClassifier` for what is not said here.

    Args:
        width: Channels of the state.
        channels: Channels of the images.
        size: The side of the images in pixels, a multiple of 4.
        classes: How many logits there are.
        activation: φ, an elementwise activation of `torch.nn` by its name.
        family: Of W.
        sqrt_v: √V, the scale of W.
        solver: For the equilibrium.
        backward: For the adjoint equation, or a `PhantomGradient`; `None`: the solver.
        tol: Of the equilibrium, and of the gradient.
        on_failure: What becomes of samples whose equilibrium is not found.
        seed: Of all parameters; `None`: torch's global generator.

    Attributes:
        injection: The stem, from the image to x `[B, width, size/4, size/4]`.
        equilibrium: From x to z.
        head: From z to the logits.

    Raises:
        ValueError: An argument is not of its kind; the message names it.

    >>> net = ConvDEQ(width=8, seed=0)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        width: int = 64,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        activation: str = "tanh",
        family: Literal["random", "orthogonal"] = "orthogonal",
        sqrt_v: float = 0.8,
        solver: Solver = Anderson(),  # noqa: B008
        backward: Solver | PhantomGradient | None = None,
        tol: float = 1e-3,
        on_failure: OnFailure = "mask",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        require(is_int(width, 1), "width", width, "a positive integer")
        require(is_int(channels, 1), "channels", channels, "a positive integer")
        require(is_int(size, 4) and size % 4 == 0, "size", size, "a positive multiple of 4")
        require(is_int(classes, 1), "classes", classes, "a positive integer")
        require(family in ("random", "orthogonal"), "family", family, "'random' or 'orthogonal'")
        check_family(family, sqrt_v, 0.0, False)
        generator = seeded(seed)
        self.input_shape = (channels, size, size)
        self.injection = nn.Sequential(
            outer_conv(channels, width, 2, generator),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            outer_conv(width, width, 2, generator),
            nn.GroupNorm(1, width),
        )
        inner = outer_conv(width, width, 1, generator)
        assert inner.bias is not None
        with torch.no_grad():
            draw_(inner.weight, family, sqrt_v, 0.0, generator)
            inner.bias.zero_()
        self.equilibrium = Equilibrium(EquilibriumCell(inner, activation, "B"), solver, backward, tol, on_failure)
        self.head = outer_linear(width, classes, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The logits `[B, classes]` of images `x` `[B, channels, size, size]`.

        Raises:
            ValueError: `x` has another shape.
        """
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"expected images [B, {', '.join(map(str, self.input_shape))}], got {list(x.shape)}")
        z = self.equilibrium(self.injection(x))
        logits: Tensor = self.head(z.mean((2, 3)))
        return logits
