"""Many small networks at once: chains of one depth, width and activation, evaluated and made affine together (paper 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpstab.activations import known_info
from fpstab.jacobian import AffineMap
from fpstab.jacobian.elementwise import Elementwise, Mode, Side, check_mode
from fpstab.results import OK, Status

_CANCELLATION = 1e-5  # |z| below which (σ(z) − σ(0))/z has lost digits, where σ(0) ≠ 0


class ChainStack:
    """M chains x ↦ σ_L(W_L … σ_1(W_1 x + b_1) … + b_L) of R^n to itself, all with the same L, n and σ.

    Points are the last dimension of all that is computed inside, so that one product and one call of σ a layer serve all
    chains and points: for the two neurons of paper 3's networks a loop over them is some hundred times slower.

    Args:
        weights: `[M, L, n, n]`, real; taken to float64 without a gradient.
        biases: `[M, L, n]`; zeros if `None`.
        activations: L modules of torch, `None` for the identity; elementwise, not random, without slopes by channel.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or an activation is random or has slopes by channel.
        TypeError: If an activation is not known.

    >>> stack = ChainStack(torch.tensor([[[[0.5]]], [[[2.0]]]]), None, [nn.Tanh()])
    >>> stack(torch.ones(1, 1))[:, 0, 0] == torch.tensor([0.5, 2.0]).double().tanh()
    tensor([True, True])
    """

    def __init__(self, weights: Tensor, biases: Tensor | None, activations: Sequence[nn.Module | None]) -> None:
        if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or not weights.numel():
            raise ValueError(f"weights: expected [M, L, n, n] with some entries, got {list(weights.shape)}.")
        self.weights = weights.detach().double()
        given = self.weights.new_zeros(weights.shape[:3]) if biases is None else biases.detach().to(self.weights)
        if given.shape != weights.shape[:3]:
            raise ValueError(f"biases: expected {list(weights.shape[:3])}, got {list(given.shape)}.")
        self.biases = given
        if not bool(torch.isfinite(self.weights).all()) or not bool(torch.isfinite(self.biases).all()):
            raise ValueError("a weight or a bias is not finite.")
        self.activations = tuple(activations)
        if len(self.activations) != self.depth:
            raise ValueError(f"activations: expected one for each of {self.depth} layers, got {len(self.activations)}.")
        for activation in self.activations:
            if activation is not None:
                info = known_info(activation)
                if info.random or info.channel_slopes is not None:
                    raise ValueError(f"activations: {info.name} is random or has slopes by channel; expected neither.")
        self._sigma = tuple(None if each is None else Elementwise(each) for each in self.activations)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def depth(self) -> int:
        """L, the number of linear maps."""
        return self.weights.shape[1]

    @property
    def n(self) -> int:
        """Size of a point."""
        return self.weights.shape[3]

    def select(self, chains: Tensor | Sequence[int]) -> "ChainStack":
        """Some of the chains, by their numbers."""
        return ChainStack(self.weights[chains], self.biases[chains], self.activations)

    def network(self, chain: int) -> nn.Sequential:
        """One chain as a module, in float64."""
        parts: list[nn.Module] = []
        for W, b, activation in zip(self.weights[chain], self.biases[chain], self.activations, strict=True):
            linear = nn.Linear(self.n, self.n, device="meta", dtype=torch.float64)  # draws nothing
            linear.weight, linear.bias = nn.Parameter(W.clone()), nn.Parameter(b.clone())
            parts += [linear] if activation is None else [linear, activation]
        return nn.Sequential(*parts)

    def __call__(self, x: Tensor) -> Tensor:
        """The values `[M, P, n]` at points `[P, n]`, the same for all chains, or `[M, P, n]`."""
        return self._values(self._columns(x)).mT

    def orbits(self, x: Tensor, steps: int) -> Tensor:
        """x, f(x), f(f(x)), …: `[M, P, steps + 1, n]` from points `[P, n]` or `[M, P, n]`."""
        h = self._columns(x)
        path = h.new_empty(steps + 1, *h.shape)
        path[0] = h
        for step in range(steps):
            h = path[step + 1] = self._values(h)
        return path.permute(1, 3, 0, 2)

    def iterate(self, x: Tensor, steps: int) -> Tensor:
        """The last points of these orbits `[M, P, n]`."""
        h = self._columns(x)
        for _ in range(steps):
            h = self._values(h)
        return h.mT

    def affine(self, x: Tensor, *, mode: Mode = "shifted", at_zero: Side = "left") -> "AffineStack":
        """f(x) = A(x)x + b(x) for all chains at points `[P, n]` or `[M, P, n]`: see `fpstab.jacobian.affine_map`.

        Raises:
            ValueError: If the mode or the side does not exist.
        """
        check_mode(mode, at_zero)
        points = self._columns(x)
        m, n, p = points.shape
        h, A = points, torch.empty(0)
        for layer, sigma in enumerate(self._sigma):
            W = self.weights[:, layer]
            h = torch.baddbmm(self.biases[:, layer, :, None], W, h)
            A = W[..., None] if layer == 0 else torch.bmm(W, A.reshape(m, n, -1)).reshape(m, n, n, p)
            if sigma is not None:
                slope, h = _factor(sigma, h, mode, at_zero)
                A = A * slope[:, :, None]
        A = A.expand(m, n, n, p).permute(0, 3, 1, 2)
        return AffineStack(A, h.mT, points.mT, mode)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂f/∂x `[M, P, n, n]`; at a kink from the left."""
        return self.affine(x, mode="tangent").A

    def preactivations(self, x: Tensor) -> Tensor:
        """What the activations see, all neurons of all layers that have one: `[M, P, N]`."""
        h, seen = self._columns(x), []
        for layer, sigma in enumerate(self._sigma):
            h = torch.baddbmm(self.biases[:, layer, :, None], self.weights[:, layer], h)
            if sigma is not None:
                seen.append(h)
                h = sigma(h)
        return torch.cat(seen, 1).mT if seen else h[:, :0].mT

    def _columns(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.n or x.ndim not in (2, 3) or (x.ndim == 3 and len(x) != len(self)):
            raise ValueError(
                f"x: expected points [P, {self.n}] or [{len(self)}, P, {self.n}], got shape {list(x.shape)}."
            )
        x = x.detach().to(self.weights).mT.contiguous()
        return x.expand(len(self), *x.shape[-2:])

    def _values(self, h: Tensor) -> Tensor:
        for layer, sigma in enumerate(self._sigma):
            h = torch.baddbmm(self.biases[:, layer, :, None], self.weights[:, layer], h)
            h = h if sigma is None else sigma(h)
        return h


@dataclass(frozen=True, slots=True, eq=False)
class AffineStack:
    """A(x) and b(x) with f(x) = A(x)x + b(x), of M chains at P points.

    Attributes:
        A: `[M, P, n, n]`.
        value: f(x) `[M, P, n]`.
        x: `[M, P, n]`.
        mode: Of the factorisation.
        status: `"ok"`.
    """

    A: Tensor
    value: Tensor
    x: Tensor
    mode: Mode
    status: Status = OK

    @property
    def b(self) -> Tensor:
        """The offsets `[M, P, n]`: what f(x) has beside A(x)x."""
        return self.value - (self.A @ self.x[..., None])[..., 0]

    @property
    def step(self) -> Tensor:
        """f(x) − x `[M, P, n]`: the arrow of a phase portrait."""
        return self.value - self.x

    def eigenvalues(self) -> Tensor:
        """Of A `[M, P, n]`, complex, the largest moduli first; NaN where A is not finite."""
        m, p, n, _ = self.A.shape
        # points stay the last dimension in memory: what follows runs along them
        flat = self.A.permute(2, 3, 0, 1).reshape(n, n, m * p).permute(2, 0, 1)
        values = AffineMap(flat, flat[:, 0], self.mode, "left", (), "chain").eigenvalues()
        return values.reshape(m, p, n)

    def spectral_radius(self) -> Tensor:
        """ρ(A(x)) `[M, P]`: a diagnostic, from which nothing certain follows."""
        return self.eigenvalues()[..., 0].abs()

    def norm(self) -> Tensor:
        """‖A(x)‖₂ `[M, P]`; NaN where A is not finite."""
        m, p, n, _ = self.A.shape
        flat = self.A.reshape(m * p, n, n)
        return AffineMap(flat, flat[:, 0], self.mode, "left", (), "chain").singular_values()[:, 0].reshape(m, p)


def _factor(sigma: Elementwise, z: Tensor, mode: Mode, side: Side) -> tuple[Tensor, Tensor]:
    """Λ of σ(z) = Λz + c, and σ(z): as `Elementwise.factors`, with what z = 0 needs computed there only."""
    value = sigma(z)
    if mode == "tangent":
        return sigma.derivative(z, side), value
    zero = float(sigma(z.new_zeros(1)))
    shift = zero if mode == "shifted" else 0.0
    slope = (value - shift) / z if shift else value / z
    if mode == "paper" and zero:
        return slope, value
    near = z.abs() < _CANCELLATION if zero else z == 0
    if bool(near.any()):
        at = z[near]
        slope[near] = sigma.derivative(torch.where(at == 0, at, at / 2), side)  # of the chord, to O(z²)
    return slope, value
