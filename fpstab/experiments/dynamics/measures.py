"""What is measured of the networks of paper 3: attractors, spectra of A*, arrows, orbits, and the rows that tell it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.experiments.dynamics.models import Model, stack_models
from fpstab.jacobian.elementwise import Mode
from fpstab.stability.plots import plane
from fpstab.stability.stacked_attractors import classify_stack
from fpstab.stability.stacks import ChainStack

SETTLED = 1000
"""Iterations after which an orbit is drawn as its attractor."""

LEAST_DRAWS = 8
SHARE_RULE = (
    f"{LEAST_DRAWS} draws or more: it holds in 90 % of them (reproduced), in less than half (not reproduced), "
    "else inconclusive"
)

_ARROWS, _ORBITS, _STEPS, _TAIL = 24, 16, 60, 120


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One network, drawn from a seed.

    Attributes:
        model: Of which kind.
        seed: Of its parameters.
        stack: It alone.
        label: Of its attractors.
        counts: How many of its starts go to what.
        period: Of its cycle, or `None`.
        lyapunov: The largest Lyapunov exponent on the attractor of most starts.
        lyapunov_error: Its standard error.
        points: Fixed points that were found `[K, 2]`.
        rho_at: ρ(J) at them `[K]`.
        eigenvalues: Of the paper's A* (Λ = σ(z)/z) on 24 × 24 points of [−6, 6]², `[576, 2]`, the larger first.
        rho_shifted: ρ(A) of the factorisation with Λ = (σ(z) − σ(0))/z at the same points `[576]`.
    """

    model: Model
    seed: int
    stack: ChainStack
    label: str
    counts: dict[str, int]
    period: int | None
    lyapunov: float
    lyapunov_error: float
    points: Tensor
    rho_at: Tensor
    eigenvalues: Tensor
    rho_shifted: Tensor

    @property
    def rho(self) -> Tensor:
        """ρ of the paper's A* `[576]`."""
        return self.eigenvalues[:, 0].abs()

    @property
    def rho_max(self) -> float:
        """Its maximum over the points where it is finite."""
        return _largest(self.rho)

    def row(self, panel: str = "") -> dict[str, Any]:
        """The row of the network itself."""
        return {
            "panel": panel or str(self.model),
            "kind": "network",
            **self.model.row(),
            "seed": self.seed,
            "label": self.label,
            "period": self.period,
            "lyapunov": self.lyapunov,
            "lyapunov_error": self.lyapunov_error,
            "fixed_points": len(self.points),
            "rho_min": -_largest(-self.rho),
            "rho_max": self.rho_max,
            "rho_shifted_max": _largest(self.rho_shifted),
        }


def draw_model(model: Model, *, seed: int, draws: int, activated: bool = True) -> list[Draw]:
    """A model from `draws` seeds, beginning with `seed`, all measured together.

    Raises:
        ValueError: If there is no draw.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: expected one or more.")
    seeds = range(seed, seed + draws)
    stack = stack_models([model], seeds, activated=activated)
    found = classify_stack(stack)
    grid = plane(_ARROWS)
    eigenvalues = stack.affine(grid, mode="paper").eigenvalues()
    shifted = stack.affine(grid).spectral_radius()
    return [
        Draw(
            model, own, stack.select([i]), found.labels[i], found.counts[i], found.period[i],
            float(found.lyapunov[i]), float(found.lyapunov_error[i]), found.points[i], found.rho[i],
            eigenvalues[i], shifted[i],
        )
        for i, own in enumerate(seeds)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """What is drawn of one network.

    Attributes:
        title: Of the panel.
        draw: The network.
        step: f(x) − x on 24 × 24 points of [−6, 6]² `[576, 2]`.
        orbits: From 16 starts on a circle `[16, 61, 2]`.
        tails: Where these orbits are after 1,000 iterations, and the next 119 points `[16, 120, 2]`.
        rho: ρ(A*) on `size` × `size` points of [−6, 6]², row by row from below.
        mode: Of its A*.
    """

    title: str
    draw: Draw
    step: Tensor
    orbits: Tensor
    tails: Tensor
    rho: Tensor
    mode: Mode = "paper"

    @property
    def size(self) -> int:
        """Points a side of the regions."""
        return math.isqrt(len(self.rho))

    def rows(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The numbers of what is drawn: `"arrow"`, `"orbit"`, `"tail"`, `"fixed point"`, `"eigenvalue"`, `"region"`."""
        grid = plane(_ARROWS).tolist()
        for kind in kinds:
            head = {"panel": self.title, "kind": kind}
            if kind == "arrow":
                for at, move in zip(grid, self.step.tolist(), strict=True):
                    yield head | _place(at) | {"dx1": move[0], "dx2": move[1]}
            elif kind in ("orbit", "tail"):
                for number, orbit in enumerate((self.orbits if kind == "orbit" else self.tails).tolist()):
                    for time, at in enumerate(orbit):
                        yield head | {"orbit": number, "step": time + (SETTLED if kind == "tail" else 0)} | _place(at)
            elif kind == "fixed point":
                for at, rho in zip(self.draw.points.tolist(), self.draw.rho_at.tolist(), strict=True):
                    yield head | _place(at) | {"value": rho}
            elif kind == "eigenvalue":
                for at, pair in zip(grid, self.draw.eigenvalues.tolist(), strict=True):
                    for value in pair:
                        yield head | _place(at) | {"real": value.real, "imag": value.imag}
            else:
                for at, rho in zip(plane(self.size).tolist(), self.rho.tolist(), strict=True):
                    yield head | _place(at) | {"value": rho}


def look(draw: Draw, title: str, *, size: int = 61, mode: Mode = "paper") -> Panel:
    """Compute all that is drawn of a network."""
    angle = torch.arange(_ORBITS, dtype=torch.float64) * (2 * torch.pi / _ORBITS)
    first = 5.4 * torch.stack((angle.cos(), angle.sin()), 1)
    settled = draw.stack.iterate(first, SETTLED)
    return Panel(
        title=title,
        draw=draw,
        step=(draw.stack(plane(_ARROWS)) - plane(_ARROWS))[0],
        orbits=draw.stack.orbits(first, _STEPS)[0],
        tails=draw.stack.orbits(settled, _TAIL - 1)[0],
        rho=draw.stack.affine(plane(size), mode=mode).spectral_radius()[0],
        mode=mode,
    )


def by_share(claim: Claim, hits: Sequence[bool], said: str) -> Finding:
    """Judge by `SHARE_RULE`: how many of the draws it holds in."""
    share = sum(hits) / len(hits)
    verdict: Verdict = "reproduced" if share >= 0.9 else "not reproduced" if share < 0.5 else "inconclusive"
    if len(hits) < LEAST_DRAWS:
        verdict = "inconclusive"
    error = math.sqrt(share * (1 - share) / len(hits))
    return claim.found(verdict, f"In {sum(hits)} of {len(hits)} draws. {said}", share, error, len(hits))


def values_of(draws: Sequence[Draw], name: str) -> dict[str, float]:
    """The shares of labels and the mean of max ρ(A*), to log."""
    labels = sorted({draw.label for draw in draws})
    shares = {f"{name}/share_{label}": sum(draw.label == label for draw in draws) / len(draws) for label in labels}
    return shares | {f"{name}/rho_max": sum(draw.rho_max for draw in draws) / len(draws)}


def _place(at: Sequence[float]) -> dict[str, float]:
    return {"x1": at[0], "x2": at[1]}


def _largest(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return float(finite.max()) if len(finite) else math.nan
