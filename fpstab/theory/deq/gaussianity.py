"""How Gaussian the entries of an equilibrium are, against the width (paper 4, Theorem A.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from fpstab.results import OK, Status
from fpstab.theory.deq.cavity import cavity_solution
from fpstab.theory.deq.families import Family
from fpstab.theory.deq.nonlinearities import Activation, nonlinearity
from fpstab.theory.deq.samples import gaussian_ks_distance, sample_equilibrium, sample_inputs, sample_weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class GaussianityByWidth:
    """Distance between the law of an equilibrium's entries and the Gaussian law of the theory, against the width.

    Attributes:
        widths: N, int64 `[K]`.
        ks_distance: Kolmogorov–Smirnov distance of the standardised entries of all draws, float64 `[K]`.
        n_entries: Entries that went into it, int64 `[K]`.
        dropped: Share of the draws left out since iteration did not converge, float64 `[K]`.
        status: `"ok"`, or `"not_converged"` if at some width no draw did (its distance is nan).
    """

    widths: Tensor
    ks_distance: Tensor
    n_entries: Tensor
    dropped: Tensor
    status: Status = OK

    @property
    def noise(self) -> Tensor:
        """What the distance of as many independent Gaussian numbers stays below in 95 % of cases, float64 `[K]`."""
        return 1.358 / self.n_entries.double().sqrt()

    def table(self) -> list[dict[str, float]]:
        """A row per width."""
        columns = zip(self.widths, self.ks_distance, self.noise, self.n_entries, self.dropped, strict=True)
        names = ("width", "ks_distance", "noise", "n_entries", "dropped")
        return [dict(zip(names, map(float, row), strict=True)) for row in columns]

    def scalars(self) -> dict[str, float]:
        """The distance at the largest width."""
        return {"ks_distance": float(self.ks_distance[int(self.widths.argmax())])}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the distance against the width, both logarithmic, with the noise of the sample."""
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(5, 3.5), layout="constrained").subplots()
        ax.loglog(self.widths.numpy(), self.ks_distance.numpy(), "o-", label="z* and its Gaussian law")
        ax.loglog(self.widths.numpy(), self.noise.numpy(), ":", color="grey", label="independent Gaussians, 95 %")
        ax.set_xlabel("width N")
        ax.set_ylabel("Kolmogorov–Smirnov distance")
        ax.legend(fontsize="small")
        return ax


def gaussianity_by_width(
    family: Family,
    V: float,
    activation: Activation = "linear",
    sigma_x2: float = 1.0,
    *,
    widths: Sequence[int] = (10, 20, 50, 100, 200, 500),
    entries: int = 10_000,
    generator: Generator | None = None,
) -> GaussianityByWidth:
    """Measure how the entries of an equilibrium become Gaussian as the width grows.

    What is Gaussian in the limit is the field g = h − a·z of the other neurons, of variance V·E z² by the theory. For
    iid and orthogonal weights that is h = Wz* itself (a = 0), so for the linear model z* − x, which is Theorem A.2; for
    the linear model with any elliptic weights g is (1 − a)z* − x. Each draw has a weight and an input of its own.

    Args:
        family: The family of W.
        V: Mean eigenvalue of WᵀW, below its critical value.
        activation: Of the model.
        sigma_x2: σ_x² = x·x/N.
        widths: N.
        entries: How many entries to draw at each width, in so many draws as that takes.
        generator: Source of randomness.

    Raises:
        ValueError: If a number is out of range or a name is unknown.
        AnalysisError: If there is no equilibrium or no theory.

    >>> generator = torch.Generator().manual_seed(0)
    >>> result = gaussianity_by_width("iid", 0.5, widths=(10, 200), entries=4000, generator=generator)
    >>> bool(result.ks_distance[0] > result.ks_distance[1])
    True
    """
    if not widths or min(widths) < 1 or entries < 1:
        raise ValueError(f"widths = {tuple(widths)}, entries = {entries}; expected at least one of each, all positive.")
    if V == 0:
        raise ValueError("V is 0: z* = φ(0) + x, and there is no law to compare.")
    solution = cavity_solution(family, V, activation, sigma_x2)
    assert solution.echo is not None and solution.z2 is not None  # noqa: PT018 (it would have raised)
    distances, counts, dropped = [], [], []
    for width in widths:
        draws = -(-entries // width)
        found = [_field(family, V, activation, sigma_x2, width, solution.echo, generator) for _ in range(draws)]
        kept = [g for g in found if g is not None]
        dropped.append(1 - len(kept) / draws)
        counts.append(width * len(kept))
        scale = (V * solution.z2) ** 0.5
        distances.append(gaussian_ks_distance(torch.cat(kept) / scale) if kept else float("nan"))
    status = OK
    if not all(counts):
        lost = widths[counts.index(0)]
        status = Status("not_converged", f"no draw of width {lost} converged at V = {V:g}. Choose a smaller V.")
    as_ints = [torch.tensor(list(values), dtype=torch.int64) for values in (widths, counts)]
    as_floats = [torch.tensor(values, dtype=torch.float64) for values in (distances, dropped)]
    return GaussianityByWidth(as_ints[0], as_floats[0], as_ints[1], as_floats[1], status)


def _field(
    family: Family, V: float, activation: Activation, sigma_x2: float, width: int, a: float, generator: Generator | None
) -> Tensor | None:
    """The field g = h − a·z of one draw, `[width]`; `None` if it did not converge."""
    if nonlinearity(activation).name == "linear":  # solved, so that no draw is lost
        weight = sample_weight(family, V, width, generator=generator)
        x = sample_inputs(width, 1, sigma_x2, generator=generator)[0]
        z = torch.linalg.solve(torch.eye(width, dtype=torch.float64) - weight, x)
        g: Tensor = z - x - a * z
        return g
    sample = sample_equilibrium(
        family, V, activation, sigma_x2, width=width, tol=1e-8, max_iter=1000, generator=generator
    )
    return (sample.h - a * sample.z)[0] if sample.status.ok else None
