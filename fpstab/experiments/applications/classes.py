"""Classification by basins of attraction: identification (paper 1 §II.2) and semi-supervised learning (§II.4).

One stored image a class; an image belongs to the class at whose stored image its orbit ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.experiments.applications.baselines import kmeans, mutual_information, nearest
from fpstab.experiments.applications.pictures import show_images
from fpstab.experiments.applications.recall import Recall, one_pass, recall, share
from fpstab.experiments.applications.runs import fit
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.models import MNISTData

_EPOCHS = 20
_FLUCTUATION = 0.1  # standard deviation of the pixel noise that stands for lighting, distance, …


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One network, trained with one loss, on the test images.

    Attributes:
        unroll: Iterations that the loss looked at; 1 is the paper's loss.
        recall: What became of the exemplars, and of the test images.
        one_pass: Accuracy on known classes of the exemplar nearest to Φ(x), without iteration.
        by_basin: Accuracy on known classes of the exemplar at which the orbit ends; no end is an error.
        disturbed: The same of images with small noise on every pixel.
        absorbed: Share of the images of unknown classes that end at the exemplar of a known one; nan without such.
        unknown_information: NMI of the unknown classes with the attractors that their images end at; nan without such.
    """

    unroll: int
    recall: Recall
    one_pass: float
    by_basin: float
    disturbed: float
    absorbed: float
    unknown_information: float

    @property
    def name(self) -> str:
        """The loss, in words."""
        return "paper's loss" if self.unroll == 1 else f"loss over {self.unroll} iterations"


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Classification by basins, with each loss, beside what needs no fixed points.

    Attributes:
        seed: Of networks, batches, exemplars.
        known: The known classes.
        exemplars: The stored images `[K, *shape]`.
        trials: One a loss.
        nearest_exemplar: Accuracy on known classes of the exemplar nearest in pixels.
        nearest_image: Accuracy on known classes of the label of the nearest training image, which like the
            networks uses all labelled images.
        kmeans_information: NMI of the unknown classes with as many k-means clusters of their test images; nan without
            unknown classes.
        status: Always ok.
    """

    seed: int
    known: tuple[int, ...]
    exemplars: Tensor
    trials: tuple[Trial, ...]
    nearest_exemplar: float
    nearest_image: float
    kmeans_information: float
    status: Status = OK

    @property
    def holds(self) -> bool:
        """Whether with the first loss (the paper's, by default) all exemplars attract and basins beat their images."""
        return self._works(self.trials[0])

    def _works(self, trial: Trial) -> bool:
        return bool(trial.recall.stored.all()) and trial.by_basin > self.nearest_exemplar

    @property
    def verdict(self) -> str:
        """Whether the paper's idea holds here, loss by loss, and what becomes of unknown classes."""
        parts = []
        for trial in self.trials:
            stored = f"{trial.recall.n_stored} of {len(self.exemplars)} exemplars attract"
            parts.append(
                f"With the {trial.name} the idea {'holds' if self._works(trial) else 'does not hold'}: {stored}, accuracy "
                f"by basin {trial.by_basin:.3f} (one pass {trial.one_pass:.3f})."
            )
        best = self.trials[-1]
        compared = "no worse than" if self.nearest_image >= best.by_basin else "worse than"
        parts.append(
            f"Without fixed points: nearest exemplar {self.nearest_exemplar:.3f}, "
            f"nearest training image {self.nearest_image:.3f}, {compared} the {best.name}."
        )
        if self._has_unknown:
            worse = best.unknown_information < self.kmeans_information
            others = best.recall.n_attractors - best.recall.n_stored
            parts.append(
                f"Unknown classes: {best.absorbed:.0%} of their images end at exemplars of known ones, there are {others} "
                f"other attractors, and these tell the classes apart with NMI {best.unknown_information:.2f}, "
                f"{'worse' if worse else 'better'} than k-means ({self.kmeans_information:.2f})."
            )
        return " ".join(parts)

    @property
    def _has_unknown(self) -> bool:
        return self.kmeans_information == self.kmeans_information  # nan without

    def scalars(self) -> dict[str, float]:
        """Accuracies, stored exemplars and spectral radii of each loss under `unroll_<m>/`, and the baselines."""
        scalars = {
            "nearest_exemplar": self.nearest_exemplar,
            "nearest_image": self.nearest_image,
            "kmeans_information": self.kmeans_information,
            "holds": float(self.holds),
        }
        for trial in self.trials:
            values = {
                "by_basin": trial.by_basin,
                "one_pass": trial.one_pass,
                "disturbed": trial.disturbed,
                "absorbed": trial.absorbed,
                "unknown_information": trial.unknown_information,
            }
            scalars |= {f"unroll_{trial.unroll}/{key}": x for key, x in (values | trial.recall.scalars()).items()}
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row a stored image and loss."""
        rows = []
        for trial in self.trials:
            for row, label in zip(trial.recall.table(), self.known, strict=True):
                rows.append({"loss": trial.name, "class": label} | {k: x for k, x in row.items() if k != "exemplar"})
        return rows

    def plot(self) -> "Figure":
        """Draw the exemplars, and for each loss where iteration from them leads."""
        rows = {"stored image": self.exemplars}
        for trial in self.trials:
            labels = trial.recall.fixed_points.label[: len(self.exemplars)]
            rows[f"end of its orbit,\n{trial.name}"] = trial.recall.ends(labels)
        titles = {
            f"end of its orbit,\n{trial.name}": [f"ρ = {rho:.2f}" for rho in trial.recall.rho.tolist()]
            for trial in self.trials
        }
        return show_images(rows, titles)


def identification(
    seed: int = 0,
    *,
    images: "MNISTData | None" = None,
    unrolls: Sequence[int] = (1, 3),
    epochs: int = _EPOCHS,
) -> Classification:
    """Encode and decode with identification: ten "persons", the digits, with one stored image each (paper 1 §II.2).

    An autoencoder 784-256-64-256-784, code of 64 values, is trained on loss (5) and on the loss over three iterations.

    Args:
        seed: Of networks, batches, exemplars.
        images: Real images; `MNISTData()` by default.
        unrolls: Iterations that the losses look at; 1 is the paper's.
        epochs: Of training, Adam at 0.001, batches of 64.
    """
    return _classify(range(10), seed, images, unrolls, epochs)


def semi_supervised(
    seed: int = 0,
    *,
    known: Sequence[int] = (0, 1, 2, 3, 4),
    images: "MNISTData | None" = None,
    unrolls: Sequence[int] = (1, 3),
    epochs: int = _EPOCHS,
) -> Classification:
    """Train on some classes, and look at what becomes of the images of the others (paper 1 §II.4).

    Args:
        seed: Of networks, batches, exemplars.
        known: The classes that are trained.
        images: Real images; `MNISTData()` by default.
        unrolls: Iterations that the losses look at; 1 is the paper's.
        epochs: Of training, Adam at 0.001, batches of 64.
    """
    return _classify(known, seed, images, unrolls, epochs)


def _classify(
    known: Sequence[int], seed: int, images: "MNISTData | None", unrolls: Sequence[int], epochs: int
) -> Classification:
    from fpstab.models import Autoencoder, ExemplarData, ExemplarTask, MNISTData

    if not unrolls:
        raise ValueError("unrolls: expected one or more positive integers, got none.")
    data = ExemplarData(images or MNISTData(batch_size=64), classes=tuple(known), seed=seed)
    data.prepare_data()
    data.setup()
    psi = data.exemplars
    assert psi is not None
    x, number = data.test_set.tensors
    unknown = ~torch.isin(data.test_labels, torch.tensor(data.classes))
    others, other_labels = data.test_images[unknown], data.test_labels[unknown]
    noise = _FLUCTUATION * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    starts = torch.cat((x, x + noise, others))
    trials = []
    for unroll in unrolls:
        net = fit(
            lambda unroll=unroll: ExemplarTask(Autoencoder(output_activation=None), unroll),  # type: ignore[misc]
            data,
            epochs=epochs,
            seed=seed,
        )
        found = recall(net, psi, starts)
        plain, disturbed, strange = torch.tensor_split(found.recalled, (len(x), 2 * len(x)))
        trials.append(
            Trial(
                unroll=unroll,
                recall=found,
                one_pass=share(nearest(one_pass(net, x), psi) == number),
                by_basin=share(plain == number),
                disturbed=share(disturbed == number),
                absorbed=share(strange >= 0),
                unknown_information=(
                    mutual_information(other_labels, found.limit[2 * len(x) :]) if len(others) else torch.nan
                ),
            )
        )
    train, train_number = data.train_set.tensors
    groups = len(set(other_labels.tolist()))
    return Classification(
        seed=seed,
        known=data.classes,
        exemplars=psi,
        trials=tuple(trials),
        nearest_exemplar=share(nearest(x, psi) == number),
        nearest_image=share(train_number[nearest(x, train)] == number),
        kmeans_information=(
            mutual_information(other_labels, kmeans(others, others, groups, seed=seed)) if groups else torch.nan
        ),
    )
