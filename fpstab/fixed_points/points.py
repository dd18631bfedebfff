"""What a search for fixed points found."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.fixed_points.coverage import Coverage
from fpstab.fixed_points.cycles import Cycle
from fpstab.fixed_points.search import OUTCOMES
from fpstab.results import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class FixedPoints:
    """The fixed points of a map that were found from `S` starts, and where the starts went.

    Fixed points are sorted: attracting, marginal, non-isolated, saddles, repelling, and among these by their
    coordinates, so their order does not depend on how they were found.

    Attributes:
        points: The fixed points `[K, n]`.
        shape: Shape of a sample of the function, to see points as images.
        kind: Of each, `"attracting"` (ρ < 1), `"saddle"` (ρ > 1, some eigenvalue inside the unit circle), `"repelling"`
            (all outside), `"marginal"` (|ρ − 1| within its error, or the map has a kink there) or `"non_isolated"` (marginal, with others beside it).
        rho: ρ(J) at each `[K]`.
        rho_error: Its error `[K]`.
        sigma: ‖J‖₂ at each `[K]`. That it exceeds 1 does not keep a point from attracting.
        residual: ‖Φ(x) − x‖ `[K]`.
        error_bound: Distance to the true fixed point `[K]`, 2‖s‖ + ‖(I − J)⁻¹‖·δ with the Newton step s and the
            rounding error δ of the residual: a bound to first order, no certificate (that is `fpstab.proofs`). Infinite
            only at marginal points where I − J is singular to rounding.
        index: sign det(I − J) of each, ±1, or 0 where it is not known `[K]`.
        n_starts: How many starts went to each `[K]`.
        label: The fixed point that each start went to, −1 if it is none `[S]`.
        outcome: Index into `OUTCOMES` for each start `[S]`: `fixed`; `cycle`; `slow` (still approaching something when
            the iterations ran out); `bounded` (none of the others: chaos, a torus, a long period, or undecided);
            `diverged`; `nonfinite`.
        n_iterations: Of each start `[S]`.
        cycles: The cycles that were found.
        cycle_label: The cycle that each start went to, −1 if it is none `[S]`.
        index_sum: Sum of the indices, `None` if one of them is not known.
        index_defect: 1 − `index_sum`. If Φ is continuous with bounded image, all fixed points together have index sum
            1: a defect other than 0 proves that some were missed. `None` as above.
        index_reason: Why the index sum is not known, or empty.
        n_missing: Fixed points that must exist besides those found, if Φ is continuous with bounded image and its fixed
            points have index ±1: |`index_defect`|; 0 where that is not known.
        coverage: By source of starts, how complete the set of fixed points is that its starts go to.
        count: How many fixed points there are, as far as found; `None` if they are not isolated, if one of them has no
            error bound, or if the coverage of the best source is below one half: then they are not countable from
            these starts.
        truncated: Whether starts were left undecided when the iterations ran out, there are more fixed points than are
            kept, or candidates were left out because rounding does not tell whether they are fixed points.
        rule_count: With the papers' rule, how many limits it tells apart, true fixed points or not; else `None`.
        history: Residuals of the first starts in canonical order, at every iteration `[T, I]`, nan after the end.
        n_evals: Evaluations of the map and products with its Jacobian, counted in rows.
        tol: The relative error that orbits were followed to.
        max_iter: The iterations that they were allowed.
        status: `"ok"`, `"none"` (no fixed point was found), `"undecided"` (no fixed point was found, and no
            start's fate is known or rounding hides whether there is one), `"nonfinite"` (no start stayed finite), `"non_isolated"`, `"not_countable"`.
    """

    points: Tensor
    shape: tuple[int, ...]
    kind: list[str]
    rho: Tensor
    rho_error: Tensor
    sigma: Tensor
    residual: Tensor
    error_bound: Tensor
    index: Tensor
    n_starts: Tensor
    label: Tensor
    outcome: Tensor
    n_iterations: Tensor
    cycles: tuple[Cycle, ...]
    cycle_label: Tensor
    index_sum: int | None
    index_defect: int | None
    index_reason: str
    n_missing: int
    coverage: Mapping[str, Coverage]
    count: int | None
    truncated: bool
    rule_count: int | None
    history: Tensor
    n_evals: int
    tol: float
    max_iter: int
    status: Status

    def __len__(self) -> int:
        return len(self.points)

    @property
    def attracting(self) -> Tensor:
        """Indices of the attracting fixed points `[A]`."""
        return torch.tensor([i for i, kind in enumerate(self.kind) if kind == "attracting"], dtype=torch.int64)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many starts ended how."""
        return {name: int((self.outcome == code).sum()) for code, name in enumerate(OUTCOMES)}

    def images(self) -> Tensor:
        """The fixed points in the shape of the map's samples `[K, *shape]`."""
        return self.points.reshape(len(self.points), *self.shape)

    def scalars(self) -> dict[str, float]:
        """Counts, shares of starts, coverage and spectral radii; nan where there is none."""
        n = max(len(self.outcome), 1)
        kinds = ("attracting", "saddle", "repelling", "marginal", "non_isolated")
        attracting = self.attracting
        rho, sigma = self.rho[attracting], self.sigma[attracting]
        scalars = {f"n_{kind}": float(self.kind.count(kind)) for kind in kinds}
        scalars |= {
            "count": math.nan if self.count is None else float(self.count),
            "n_cycles": float(len(self.cycles)),
            "index_defect": math.nan if self.index_defect is None else float(self.index_defect),
            "rho_max_attracting": float(rho.max()) if len(rho) else math.nan,
            "sigma_max_attracting": float(sigma.max()) if len(sigma) else math.nan,
            "n_evals": float(self.n_evals),
        }
        scalars |= {f"share_{name}": count / n for name, count in self.outcomes.items()}
        scalars["share_undecided"] = scalars["share_slow"] + scalars["share_bounded"]
        for source, coverage in self.coverage.items():
            prefix = "" if len(self.coverage) == 1 else f"{source}/"
            scalars[f"{prefix}coverage"] = math.nan if coverage.coverage is None else coverage.coverage
            chao1 = coverage.chao1 if self.count is not None else None
            scalars[f"{prefix}chao1"] = math.nan if chao1 is None else chao1
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row a fixed point."""
        return [
            {
                "fixed_point": i,
                "kind": kind,
                "rho": float(self.rho[i]),
                "rho_error": float(self.rho_error[i]),
                "sigma": float(self.sigma[i]),
                "index": int(self.index[i]) or None,
                "residual": float(self.residual[i]),
                "error_bound": float(self.error_bound[i]),
                "n_starts": int(self.n_starts[i]),
            }
            for i, kind in enumerate(self.kind)
        ]

    def to_csv(self) -> str:
        """The table as CSV; an empty field where there is no value."""
        rows = self.table()
        with io.StringIO(newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]) if rows else ["fixed_point"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            return text.getvalue()

    def to_dataframe(self) -> "pd.DataFrame":
        """The table as a pandas DataFrame.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame(self.table())

    def plot(self, ax: "Axes | None" = None) -> "Axes | Figure":
        """Draw the fixed points: as images if a sample is one (a new figure), else by their first two coordinates."""
        from fpstab.fixed_points.plots import plot_images, plot_points

        is_image = len(self.shape) in (2, 3) and ax is None
        return plot_images(self) if is_image else plot_points(self, ax)

    def plot_convergence(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the residual against the iteration for some starts."""
        from fpstab.fixed_points.plots import plot_convergence

        return plot_convergence(self, ax)
