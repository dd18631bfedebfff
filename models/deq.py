"""Deep-equilibrium models of paper 4: a classifier and an autoencoder whose hidden state solves z = f(z, x)."""

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from fpstab.equilibrium import Anderson, FixedPointLayer, PhantomGradient, Solver
from fpstab.models._activations import activation_layer
from fpstab.models._checks import is_int, require
from fpstab.models._families import Family, check_family, inner_linear, outer_linear
from fpstab.models.autoencoder import GaussianNoise

Reading = Literal["A", "B"]
OnFailure = Literal["warn", "raise", "mask"]


class EquilibriumCell(nn.Module):
    """f of an equilibrium z = f(z, x): φ(W z + b) + x (reading A), or φ(W z + b + x) (reading B).

    Args:
        inner: W and b, a map of a space to itself.
        activation: φ, an elementwise activation of `torch.nn` by its name.
        reading: Where the injection x is added: `"A"` or `"B"`.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> cell = EquilibriumCell(nn.Linear(3, 3), "tanh", "A")
    >>> bool((cell(torch.zeros(2, 3), torch.full((2, 3), 5.0)) > 3.9).all())
    True
    """

    def __init__(self, inner: nn.Module, activation: str, reading: Reading) -> None:
        super().__init__()
        require(reading in ("A", "B"), "reading", reading, "'A' or 'B'")
        self.inner = inner
        self.activation = activation_layer(activation)
        self.reading = reading

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """The next state of a state z and an injection x, all `[B, ...]` of one shape."""
        out: Tensor
        out = self.activation(self.inner(z)) + x if self.reading == "A" else self.activation(self.inner(z) + x)
        return out


class Equilibrium(nn.Module):
    """The state that a deep-equilibrium model hands to its head: the equilibrium of a cell, and one step from it.

    At an equilibrium the step changes neither the value nor the gradient. Where a sample has none, or the solver does
    not find it, the step from its best iterate is differentiated as a step (with the policy `"mask"` of
    `FixedPointLayer`). So every sample always teaches the weights something, finite and bounded by one step's
    Jacobian, and those that have an equilibrium teach by its exact gradient.

    The search starts at f(0, x). Beyond the critical √V the best iterate is often the first: from 0, which no W moves,
    those samples would not train W at all.

    Args:
        cell: f, a module of z and x, both `[B, ...]`.
        solver: For the equilibrium.
        backward: For its adjoint equation, or a `PhantomGradient`; `None`: the same.
        tol: Of both.
        on_failure: As of `FixedPointLayer`.
    """

    def __init__(
        self,
        cell: nn.Module,
        solver: Solver,
        backward: Solver | PhantomGradient | None,
        tol: float,
        on_failure: OnFailure,
    ) -> None:
        super().__init__()
        self.layer = FixedPointLayer(cell, solver, backward, tol=tol, on_failure=on_failure)

    def forward(self, x: Tensor) -> Tensor:
        """The state `[B, ...]` of an injection x `[B, ...]`."""
        with torch.no_grad():
            start = self.layer.f(torch.zeros_like(x), x)
        state: Tensor = self.layer.f(self.layer(start, x), x)
        return state


class DEQClassifier(nn.Module):
    """A fully connected deep-equilibrium classifier `[B, ...] -> [B, classes]` (paper 4, §4.1 and figure 5).

    The paper's "flattening layer, followed by a ResNet DEQ layer with tanh non-linearity, and finally a dense layer"
    can be read in two ways. **A**, literally: z = tanh(Wz + b) + x, with x the flat image, so that W is as wide as the
    image. **B**: z = tanh(Wz + Ux + b), of any width. A dense layer makes the logits of z. W comes from its family, b
    starts at 0, U and the dense layer start as torch's linear layers do.

    For √V beyond the critical value (independent or orthogonal weights, tanh: 2.5 in reading A if E x² = 1, 1 in B as
    x → 0) there are samples without a stable equilibrium at first: see `Equilibrium` for how they train all the same,
    `net.equilibrium.layer.last` or `EquilibriumMonitor` for how many they are.

    Args:
        width: N, the coordinates of z; `None`: 128 in reading B, `inputs` in reading A (which takes no other).
        inputs: Values of a sample.
        classes: How many logits there are.
        reading: `"A"` or `"B"`.
        activation: φ, an elementwise activation of `torch.nn` by its name.
        family: Of W: `"random"`, `"orthogonal"`, `"goe"`, `"antisymmetric"`, `"elliptic"` or `"haar_normal"`.
        sqrt_v: √V, the scale of W.
        tau: Symmetry of the elliptic family, from −1 to 1.
        keep_family: Whether W stays orthogonal (with its scale), symmetric or antisymmetric in training, by a
            parametrisation. Otherwise Adam leaves the family within tens of steps.
        solver: For the equilibrium.
        backward: For the adjoint equation, or a `PhantomGradient`; `None`: the solver.
        tol: Of the equilibrium, and of the gradient.
        on_failure: What becomes of samples whose equilibrium is not found: `"mask"`: the gradient of one step;
            `"warn"`: also that of an equilibrium at the best iterate; `"raise"`.
        seed: Of all parameters; `None`: torch's global generator.
        structure: A parametrisation of `fpstab.stability.parametrizations` for W, in place of a family that is kept. A
            norm below 1 and an activation with slopes from −1 to 1 make one equilibrium for every image, which plain
            iteration finds.

    Attributes:
        injection: From the image to x: U, or nothing.
        equilibrium: From x to z; its `layer` is the `FixedPointLayer`, its `layer.f` the cell.
        head: From z to the logits.

    Raises:
        ValueError: An argument is not of its kind; the message names it.

    >>> net = DEQClassifier(width=16, family="orthogonal", sqrt_v=0.9, seed=0)
    >>> net(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    >>> DEQClassifier(reading="A").width
    784
    """

    def __init__(
        self,
        width: int | None = None,
        inputs: int = 784,
        classes: int = 10,
        reading: Reading = "B",
        activation: str = "tanh",
        family: Family = "random",
        sqrt_v: float = 1.0,
        tau: float = 0.0,
        keep_family: bool = False,
        solver: Solver = Anderson(),  # noqa: B008
        backward: Solver | PhantomGradient | None = None,
        tol: float = 1e-4,
        on_failure: OnFailure = "mask",
        seed: int | None = None,
        structure: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require(is_int(inputs, 1), "inputs", inputs, "a positive integer")
        require(is_int(classes, 1), "classes", classes, "a positive integer")
        require(reading in ("A", "B"), "reading", reading, "'A' or 'B'")
        if width is None:
            width = inputs if reading == "A" else 128
        require(is_int(width, 1), "width", width, "None or a positive integer")
        if reading == "A" and width != inputs:
            raise ValueError(
                f"reading='A' adds the image to the state, so width must be inputs={inputs} (or None), got {width}; "
                "reading='B' has any width"
            )
        check_family(family, sqrt_v, tau, keep_family)
        if keep_family and structure is not None:
            raise ValueError("keep_family=True and structure are two parametrisations of one weight; choose one.")
        generator = seeded(seed)
        self.width, self.inputs = width, inputs
        self.injection = nn.Identity() if reading == "A" else outer_linear(inputs, width, generator)
        inner = inner_linear(width, family, sqrt_v, tau, keep_family, generator)
        if structure is not None:
            from fpstab.stability.parametrizations import constrain

            constrain(inner, structure)
        cell = EquilibriumCell(inner, activation, reading)
        self.equilibrium = Equilibrium(cell, solver, backward, tol, on_failure)
        self.head = outer_linear(width, classes, generator)

    def encode(self, x: Tensor) -> Tensor:
        """The equilibrium `[B, width]` of `x` `[B, ...]`.

        Raises:
            ValueError: A sample has not `inputs` values.
        """
        state: Tensor = self.equilibrium(self.injection(flat(x, self.inputs)))
        return state

    def forward(self, x: Tensor) -> Tensor:
        """The logits `[B, classes]` of `x` `[B, ...]`.

        Raises:
            ValueError: A sample has not `inputs` values.
        """
        logits: Tensor = self.head(self.encode(x))
        return logits


class DEQAutoencoder(nn.Module):
    """An autoencoder `[B, ...] -> [B, ...]` whose code is an equilibrium z = φ(Wz + Ux + b), decoded by one layer.

    A map of a space to itself of which an inner part is one too: its own fixed points are what it stores, those of the
    inner map are how it thinks. See `DEQClassifier` for what is not said here.

    Args:
        inputs: Values of a sample.
        width: N, the coordinates of the code.
        activation: φ, an elementwise activation of `torch.nn` by its name.
        output_activation: The same, after the decoder; `None` for none.
        family: Of W.
        sqrt_v: √V, the scale of W.
        tau: Symmetry of the elliptic family.
        keep_family: Whether W stays in its family in training.
        solver: For the equilibrium.
        backward: For the adjoint equation, or a `PhantomGradient`; `None`: the solver.
        tol: Of the equilibrium, and of the gradient.
        on_failure: What becomes of samples whose equilibrium is not found.
        noise: The standard deviation of the Gaussian noise that is added to the input in training mode.
        seed: Of all parameters; `None`: torch's global generator.

    Raises:
        ValueError: An argument is not of its kind; the message names it.

    >>> autoencoder = DEQAutoencoder(inputs=16, width=8, family="goe", sqrt_v=0.4, seed=0)
    >>> autoencoder(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 1, 4, 4])
    """

    def __init__(
        self,
        inputs: int = 784,
        width: int = 128,
        activation: str = "tanh",
        output_activation: str | None = "sigmoid",
        family: Family = "random",
        sqrt_v: float = 1.0,
        tau: float = 0.0,
        keep_family: bool = False,
        solver: Solver = Anderson(),  # noqa: B008
        backward: Solver | PhantomGradient | None = None,
        tol: float = 1e-4,
        on_failure: OnFailure = "mask",
        noise: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        require(is_int(inputs, 1), "inputs", inputs, "a positive integer")
        require(is_int(width, 1), "width", width, "a positive integer")
        check_family(family, sqrt_v, tau, keep_family)
        generator = seeded(seed)
        self.inputs = inputs
        self.corrupt = GaussianNoise(noise)
        self.injection = outer_linear(inputs, width, generator)
        inner = inner_linear(width, family, sqrt_v, tau, keep_family, generator)
        self.equilibrium = Equilibrium(EquilibriumCell(inner, activation, "B"), solver, backward, tol, on_failure)
        last = [] if output_activation is None else [activation_layer(output_activation)]
        self.decoder = nn.Sequential(outer_linear(width, inputs, generator), *last)

    def encode(self, x: Tensor) -> Tensor:
        """The code `[B, width]` of `x` `[B, ...]`, without noise.

        Raises:
            ValueError: A sample has not `inputs` values.
        """
        code: Tensor = self.equilibrium(self.injection(flat(x, self.inputs)))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """The flat output `[B, inputs]` of a code `[B, width]`."""
        out: Tensor = self.decoder(code)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, ...]`, with `inputs` values a sample, to the same shape.

        Raises:
            ValueError: A sample has another number of values.
        """
        return self.decode(self.encode(self.corrupt(x))).reshape(x.shape)


def seeded(seed: int | None) -> Generator | None:
    """A generator of this seed; `None` for torch's global one.

    Raises:
        ValueError: The seed is no integer from 0 on.
    """
    require(seed is None or is_int(seed, 0), "seed", seed, "None or an integer ≥ 0")
    return None if seed is None else Generator().manual_seed(seed)


def flat(x: Tensor, inputs: int) -> Tensor:
    """The samples of `x` `[B, ...]` as rows `[B, inputs]`.

    Raises:
        ValueError: A sample has another number of values.
    """
    rows = x.flatten(1)
    if rows.shape[1] != inputs:
        raise ValueError(f"expected {inputs} values a sample, got {list(x.shape)}")
    return rows
