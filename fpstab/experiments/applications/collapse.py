"""Unsupervised classification by basins (paper 1 §II.3): one target for all images, and what works instead."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.experiments.applications.baselines import kmeans, mutual_information, purity
from fpstab.experiments.applications.pictures import show_images
from fpstab.experiments.applications.recall import Recall, one_pass, recall
from fpstab.experiments.applications.runs import fit
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.models import MNISTData

_CONSTANT = 0.1  # share of the images' spread below which a map is called constant


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Groups of the test images, and how they agree with the digits.

    Attributes:
        name: What made them.
        groups: The group of each test image `[N]`; −1 for those without.
        information: Normalised mutual information with the digits.
        purity: Share of images of the most frequent digit of their group.
    """

    name: str
    groups: Tensor
    information: float
    purity: float

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(set(self.groups.tolist()) - {-1})


@dataclass(frozen=True, slots=True, eq=False)
class Unsupervised:
    """What loss (6) and a denoising autoencoder make of images without labels.

    Attributes:
        seed: Of networks and batches.
        target: The mean training image, target of loss (6) `[1, *shape]`.
        collapsed: What became of it and of the test images with loss (6).
        spread: Root mean square distance of Φ(x) from its mean over the test images, as a share of that of x.
        denoising: What became of the test images in the denoising autoencoder (with the mean image as only exemplar).
        groupings: By the basins of loss (6), by the basins of the denoising autoencoder, by k-means with as many groups,
            by k-means with 10.
        status: Always ok.
    """

    seed: int
    target: Tensor
    collapsed: Recall
    spread: float
    denoising: Recall
    groupings: tuple[Grouping, ...]
    status: Status = OK

    @property
    def holds(self) -> bool:
        """Whether loss (6) makes more than one class, as the paper says it does."""
        return self.groupings[0].count > 1

    @property
    def verdict(self) -> str:
        """Whether the paper's idea holds here, and what the alternative is worth."""
        ours, same, ten = self.groupings[1:]
        found = (
            f"one target for all makes {self.groupings[0].count} attractor(s), NMI {self.groupings[0].information:.2f}; the "
            f"network's outputs spread {self.spread:.1%} as far as its inputs"
        )
        constant = ", a constant map but for the rest" if self.spread < _CONSTANT else ""
        compared = "worse" if ours.information < same.information else "better"
        return (
            f"The paper's idea {'holds' if self.holds else 'does not hold'}: {found}{constant}. "
            f"A denoising autoencoder's basins do form groups: {ours.count} attractors, NMI {ours.information:.2f}, "
            f"{compared} than k-means with as many ({same.information:.2f}; with 10: {ten.information:.2f})."
        )

    def scalars(self) -> dict[str, float]:
        """NMI, purity and number of groups, and what `Recall.scalars` gives of both networks."""
        scalars = {"spread": self.spread, "holds": float(self.holds)}
        names = ("loss_6", "denoising", "kmeans_same", "kmeans_10")
        for name, each in zip(names, self.groupings, strict=True):
            scalars |= {f"{name}/information": each.information, f"{name}/purity": each.purity}
            scalars[f"{name}/groups"] = float(each.count)
        for name, found in (("loss_6", self.collapsed), ("denoising", self.denoising)):
            keys = ("n_stored", "rho_max", "n_attractors", "n_cycles", "settled")
            scalars |= {f"{name}/{key}": found.scalars()[key] for key in keys}
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row a grouping."""
        return [
            {"groups by": x.name, "groups": x.count, "NMI": x.information, "purity": x.purity} for x in self.groupings
        ]

    def plot(self) -> "Figure":
        """Draw the target, the attractors of loss (6), and those of the denoising autoencoder, largest basins first."""
        rows = {"target of loss (6)": self.target}
        titles = {}
        for name, found in (("attractors, loss (6)", self.collapsed), ("attractors, denoising", self.denoising)):
            points = found.fixed_points
            largest = points.attracting[torch.argsort(points.n_starts[points.attracting], descending=True, stable=True)]
            rows[name] = points.images()[largest]
            titles[name] = [f"{n} images" for n in points.n_starts[largest].tolist()]
        return show_images({name: images for name, images in rows.items() if len(images)}, titles)


def unsupervised(
    seed: int = 0, *, images: "MNISTData | None" = None, noise: float = 0.5, epochs: int = 20, max_groups: int = 100
) -> Unsupervised:
    """Train without labels, group test images by their attractors, and compare with k-means (paper 1 §II.3).

    Loss (6) sends all images to one, here their mean: nothing in it asks for a second fixed point. The alternative is
    an autoencoder 784-256-64-256-784 that gives back the images from Gaussian noise. Both with Adam at 0.001.

    Args:
        seed: Of networks and batches.
        images: Real images; `MNISTData()` by default.
        noise: Standard deviation of the noise of the denoising autoencoder.
        epochs: Of training, batches of 64.
        max_groups: Of the k-means that has as many groups as the denoising autoencoder.
    """
    from fpstab.models import Autoencoder, AutoencoderTask, ExemplarData, ExemplarTask, MNISTData

    images = images or MNISTData(batch_size=64)
    data = ExemplarData(images, shared=True, seed=seed)
    net = fit(lambda: ExemplarTask(Autoencoder(), 1), data, epochs=epochs, seed=seed)
    denoiser = fit(lambda: AutoencoderTask(Autoencoder(noise=noise)), images, epochs=epochs, seed=seed)
    psi, x, digits = data.exemplars, data.test_images, data.test_labels
    assert psi is not None
    collapsed, denoising = recall(net, psi, x), recall(denoiser, psi, x)
    train = images.train_set.tensors[0]
    count = max(1, min(max_groups, len(set(denoising.limit.tolist()) - {-1})))

    def grouping(name: str, groups: Tensor) -> Grouping:
        return Grouping(name, groups, mutual_information(digits, groups), purity(digits, groups))

    return Unsupervised(
        seed=seed,
        target=psi,
        collapsed=collapsed,
        spread=_spread(one_pass(net, x)) / _spread(x.flatten(1).double()),
        denoising=denoising,
        groupings=(
            grouping("basins, loss (6)", collapsed.limit),
            grouping("basins, denoising autoencoder", denoising.limit),
            grouping(f"k-means, {count}", kmeans(train, x, count, seed=seed)),
            grouping("k-means, 10", kmeans(train, x, 10, seed=seed)),
        ),
    )


def _spread(x: Tensor) -> float:
    return math.sqrt(float((x - x.mean(0)).square().sum(1).mean()))
