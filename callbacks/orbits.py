"""Watches the orbits of images through a network's blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fpstab import guard
from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path
from fpstab.callbacks.probe import Probe
from fpstab.lipschitz import LipschitzBound
from fpstab.maps import first_tensor, part_of
from fpstab.orbits import (
    PRESETS,
    OrbitReport,
    Orbits,
    head_constants,
    head_of,
    observe,
    orbit_report,
    plot_chains,
    plot_dots,
    plot_matrix,
    plot_pairs,
    plot_shadowing,
)
from fpstab.orbits.heads import Lip
from fpstab.orbits.reports import PresetName
from fpstab.results import AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_STRIPS = 10


class OrbitMonitor(Monitor[OrbitReport]):
    """Logs the g-expansive and g-shadowing constants of a network's blocks while it trains (paper 5).

    The network may be any whose blocks can be named and whose states between them are equally large (with
    `head="probes"`: any whose blocks can be named). It is observed on a fixed subset of the validation images; only
    the observations are kept.

    Scalars: `fpstab/orbits/expansive_definition`, `expansive_block`, `expansive_mean` (see
    `fpstab.orbits.Expansivity`), `shadowing` (on the progress bar) with its `delta` and `epsilon`, and for the head g
    as a map to `logits` and to `probabilities` its Lipschitz constant and the estimate of topological g-stability Sh/Lip(g):
    `lipschitz_logits`, `stability_logits`, `lipschitz_probabilities`, `stability_probabilities`. Figures: the matrices
    of the constants, the dot charts of Figures 2 and 3, the closest pairs and the best-traced chains as images.
    Constants fall as the number of images grows; compare only runs with the same `n_points`.

    Args:
        blocks: Names of the blocks within `map`, by patterns where `*` stands for one part of a dotted name.
        map: Dotted path from the LightningModule to the network.
        head: `"final"`, the network's own head applied at every state, or `"probes"`, a linear one for each state, fitted
            anew at every measurement (dear: ten more passes).
        preset: `"paper"` or `"definition"`: how the constants are computed (`fpstab.orbits.PRESETS`).
        points: `"validation"`, images evenly spread over the validation set (read by index; no loader is iterated; the
            first batch where that cannot be); `"batch"`, the first batch; or a dataset of `(image, label)`.
        n_points: How many images, at most.
        lip: Lip(g): `"exact"` (a linear head in closed form; one with hidden layers by fpstab's certified LipSDP) or
            `"cvxpy"` (LipSDP by cvxpy, a linear head behind an identity layer, as paper 5 has it; see
            `fpstab.orbits.head_constants`);
            `None`: not at all.
        lip_head: Dotted path of the head within `map`; by default the last of its children that has parameters.
        same_class: Whether pseudo-orbits and tracers keep to one class.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Attributes:
        orbits: The observations of the last measurement (first process).

    Raises:
        ValueError: If an argument is out of range, at construction; if `map` leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[OrbitMonitor(blocks="blocks.*", map="net")], logger=False)
    """

    analysis = "orbits"
    on_progress_bar = "shadowing"
    orbits: Orbits | None = None

    def __init__(
        self,
        blocks: str | Sequence[str] = "blocks.*",
        map: str = "net",  # noqa: A002 (the name that all monitors use)
        head: Literal["final", "probes"] = "final",
        preset: PresetName = "paper",
        points: Dataset[Any] | Literal["validation", "batch"] = "validation",
        n_points: int = 512,
        lip: Lip | None = "exact",
        lip_head: str | None = None,
        same_class: bool = False,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "orbits",
    ) -> None:
        if not isinstance(n_points, int) or isinstance(n_points, bool) or n_points < 2:
            raise ValueError(f"n_points={n_points!r}: expected an integer ≥ 2.")
        if isinstance(points, str) and points not in ("validation", "batch"):
            raise ValueError(f"points={points!r}: expected 'validation', 'batch' or a dataset.")
        probe = Probe("batch" if isinstance(points, str) else points, n_points)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=probe)
        patterns = [blocks] if isinstance(blocks, str) else blocks
        if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(p, str) and p for p in patterns):
            raise TypeError(f"blocks={blocks!r}: expected a pattern or a list of patterns.")
        for argument, value, choices in (
            ("head", head, ("final", "probes")),
            ("preset", preset, tuple(PRESETS)),
            ("lip", lip, ("exact", "cvxpy", None)),
        ):
            if value not in choices:
                raise ValueError(f"{argument}={value!r}: expected one of {', '.join(repr(each) for each in choices)}.")
        if not isinstance(map, str) or not isinstance(lip_head, str | None):
            raise TypeError(f"map={map!r}, lip_head={lip_head!r}: expected dotted paths.")
        self.blocks, self.map, self.head, self.preset = blocks, map, head, preset
        self.points, self.n_points, self.lip, self.lip_head, self.same_class = (
            points,
            n_points,
            lip,
            lip_head,
            same_class,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if self.points == "validation" and self.probe is not None and not self.probe.ready:
            batch = None
            try:
                with guard.untouched(pl_module):  # transforms may draw random numbers
                    batch = _validation_images(trainer, self.n_points)
            except Exception as error:  # a set that only its loader can read, items that do not collate
                said = f"the validation images cannot be read by index ({type(error).__name__}: {error})"
                self._say(trainer, f"{type(self).__name__} looks at the first batch: {said}.")
            if batch is not None:
                self.probe.offer(batch, kept=False)  # a resumed training reads the same
        super().on_train_start(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: D102
        if self.points == "batch":  # the sanity check comes first, and would give its batch
            super().on_validation_batch_start(trainer, pl_module, batch)

    def measure(self, trainer: Trainer, module: LightningModule) -> OrbitReport:  # noqa: D102
        network = part_of(module, self.map)
        assert self.probe is not None
        self.orbits = observe(
            network,
            [self.probe.batch],
            blocks=self.blocks,
            head=self.head,
            space=PRESETS[self.preset].space,
            max_images=self.n_points,
        )
        lipschitz, unbounded = self._lipschitz(network)
        report = orbit_report(self.orbits, self.preset, lipschitz=lipschitz, same_class=self.same_class, throw=False)
        said = " ".join(each for each in (report.status.message, unbounded) if each)
        return replace(report, status=Status(message=said)) if report.status.ok else report

    def _lipschitz(self, network: nn.Module) -> tuple[dict[str, LipschitzBound], str]:
        """Lip(g); none, and why, of a head that cannot be bounded: the constants of the blocks need none."""
        if self.lip is None:
            return {}, ""
        try:
            return head_constants(head_of(network, self.lip_head), self.lip), ""
        except AnalysisError as error:
            return {}, f"Nothing is known of Lip(g): {error.status.message}. Name another lip_head=…, or lip=None."

    def figures(self, result: OrbitReport) -> Mapping[str, "Figure"]:  # noqa: D102
        found, images = result.expansivity, self._images()
        figures: dict[str, Figure] = {
            "matrices": _row([(plot_matrix, each) for each in (found.definition, found.block, found.mean)], 4.6),
            "dots": _row([(plot_dots, each) for each in (found.mean, found.block)], 4.6),
            "pairs": plot_pairs(found.block.pairs, images),
        }
        if result.shadowing.chain:
            figures["tracing"] = _row([(plot_shadowing, result.shadowing)], 3.8)
            figures["chains"] = plot_chains(result.shadowing, images, result.shadowing.classes()[:_MOST_STRIPS])
        return figures

    def _images(self) -> Tensor:
        assert self.probe is not None
        return first_tensor(self.probe.batch)


def _validation_images(trainer: Trainer, count: int) -> Any:
    """Items evenly spread over the validation set, collated; `None` if there is no such set that can be indexed."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
    dataset: Any = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        return None
    size = len(dataset)
    indices = torch.linspace(0, size - 1, min(count, size)).round().long().tolist()
    collate = getattr(loader, "collate_fn", None) or torch.utils.data.default_collate
    return collate([dataset[i] for i in indices])


def _row(panels: Sequence[tuple[Any, Any]], height: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.25 * height * len(panels), height), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(panels), squeeze=False)[0]
    for (plot, result), ax in zip(panels, axes, strict=True):
        plot(result, ax)
    return figure
