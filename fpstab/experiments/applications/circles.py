"""The trained toy of paper 2 §IV: five circles in a square, whose centres are to become fixed points."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.esd import ESDReport, esd_report
from fpstab.experiments.applications.recall import Recall, recall, share
from fpstab.experiments.applications.runs import fit
from fpstab.fixed_points import Basins, basins
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COINCIDE = 0.02  # distance in the plane within which a fixed point is a centre
_TESTED = 1000  # other points of each circle
_RESOLUTION = 81


@dataclass(frozen=True, slots=True, eq=False)
class Toy:
    """The trained toy.

    Attributes:
        seed: Of the network and the points.
        centres: `[K, 2]`.
        radius: Of the circles.
        training: The training points `[S, 2]`.
        recall: What became of the centres and of other points of the circles.
        captured: The share of other points of each circle whose orbit ends at its centre `[K]`.
        before: Basins of the untrained network on the square.
        after: Basins of the trained one.
        spectra_before: The weights' spectra before training.
        spectra_after: After it.
        status: Always ok; what failed is in the parts.
    """

    seed: int
    centres: Tensor
    radius: float
    training: Tensor
    recall: Recall
    captured: Tensor
    before: Basins
    after: Basins
    spectra_before: ESDReport
    spectra_after: ESDReport
    status: Status = OK

    @property
    def holds(self) -> bool:
        """Whether every centre is a stable fixed point and every circle lies in its basin."""
        return bool(self.recall.stored.all()) and bool((self.captured == 1).all())

    @property
    def heavy(self) -> int:
        """How many layers have a heavy tail after training."""
        return sum(layer.verdict is not None and layer.verdict.label == "heavy" for layer in self.spectra_after.layers)

    @property
    def verdict(self) -> str:
        """Whether the paper's claim holds here, in a sentence or two."""
        centres, distance = len(self.centres), float(self.recall.distance.max()) * 2**0.5
        found = (
            f"{self.recall.n_stored} of {centres} centres are stable fixed points (the farthest {distance:.4f} away), and "
            f"{int((self.captured == 1).sum())} of {centres} circles lie in their basins."
        )
        others = self.after.fixed_points.scalars()["n_attracting"] - self.recall.n_stored
        more = f" The square has {others:.0f} further attractors." if others > 0 else ""
        tails = (
            "No layer has become heavy-tailed" if not self.heavy else f"{self.heavy} layers have become heavy-tailed"
        )
        return (
            f"The paper's idea {'holds' if self.holds else 'does not hold'}: {found}{more} {tails}: "
            f"{'; '.join(f'{name} {was} → {now}' for name, was, now in self.tails())}."
        )

    def tails(self) -> list[tuple[str, str, str]]:
        """Each layer's name, and its tail verdict before and after training."""
        before = {layer.name: str(layer.verdict) for layer in self.spectra_before.layers}
        return [(layer.name, before[layer.name], str(layer.verdict)) for layer in self.spectra_after.layers]

    def scalars(self) -> dict[str, float]:
        """What `Recall.scalars` gives, the least share of a circle that is captured, the exponents, and `holds`."""
        scalars = self.recall.scalars() | {"captured_min": float(self.captured.min()), "holds": float(self.holds)}
        for when, spectra in (("before", self.spectra_before), ("after", self.spectra_after)):
            for layer in spectra.layers:
                if layer.alpha is not None:
                    scalars[f"{layer.name}/alpha_{when}"] = layer.alpha
        scalars["n_heavy"] = float(self.heavy)
        scalars["n_attractors_of_square"] = self.after.fixed_points.scalars()["n_attracting"]
        scalars["n_attractors_before"] = self.before.fixed_points.scalars()["n_attracting"]
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row a circle."""
        rows = self.recall.table()
        return [
            {"centre": f"({x:g}, {y:g})"}
            | {key: row[key] for key in ("residual", "rho", "distance", "stored")}
            | {"captured": captured}
            for (x, y), row, captured in zip(self.centres.tolist(), rows, self.captured.tolist(), strict=True)
        ]

    def plot(self) -> "Figure":
        """Draw the basins before and after training with the circles (paper 2, Figure 3)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 5), layout="constrained")
        panels: tuple[Axes, Axes] = figure.subplots(1, 2)
        for ax, result, title in zip(panels, (self.before, self.after), ("untrained", "trained"), strict=True):
            result.plot(ax)
            ax.plot(*self.training.T.tolist(), ".", ms=1.5, color="black", alpha=0.5)
            ax.plot(*self.centres.T.tolist(), "o", ms=9, mfc="none", color="black")
            ax.set_title(f"{title}: {len(result.fixed_points.attracting)} attractors")
        return figure


def toy(
    seed: int = 0, *, std: float | None = None, unroll: int = 1, epochs: int = 30, resolution: int = _RESOLUTION
) -> Toy:
    """Train 2-100-100-2 HardTanh to map five circles to their centres, and look at its fixed points (paper 2 §IV).

    3,000 full-batch steps of Adam from 0.003, cosine decay, on loss (3).

    Args:
        seed: Of the network and the points.
        std: One standard deviation for all initial parameters, instead of 1/√n_l; the paper prints 1/√L = 0.577, which
            does not train.
        unroll: Iterations that the loss looks at; 1 is the paper's.
        epochs: Of 100 steps.
        resolution: Nodes along each side of the grid for the basins.
    """
    from fpstab.models import CirclesData, ExemplarTask, GaussianMLP

    data = CirclesData(seed=seed)
    untrained: list[tuple[Basins, ESDReport]] = []

    def make() -> ExemplarTask:
        net = GaussianMLP(std=std)
        untrained.append((basins(net, resolution=resolution, throw=False), esd_report(net)))
        return ExemplarTask(
            net,
            unroll,
            functools.partial(torch.optim.Adam, lr=3e-3),
            functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
        )

    net = fit(make, data, epochs=epochs, seed=seed)
    (before, spectra_before), spectra_after = untrained[0], esd_report(net)
    points, _ = data.draw(_TESTED, torch.Generator().manual_seed(seed + 1))
    found = recall(net, data.centres, points, tolerance=_COINCIDE / 2**0.5)
    own = torch.arange(len(data.centres)).repeat_interleave(_TESTED)
    return Toy(
        seed=seed,
        centres=data.centres,
        radius=data.radius,
        training=data.train_set.tensors[0],
        recall=found,
        captured=torch.tensor([share(found.recalled[own == k] == k) for k in range(len(data.centres))]),
        before=before,
        after=basins(net, resolution=resolution, throw=False),
        spectra_before=spectra_before,
        spectra_after=spectra_after,
    )
