"""Autoencoders as memories (paper 2 §I): which training images are fixed points, and which of them attract."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fpstab.experiments.applications.baselines import nearest
from fpstab.experiments.applications.pictures import show_images
from fpstab.experiments.applications.recall import IMAGE_TOLERANCE, Recall, recall, share
from fpstab.experiments.applications.runs import fit
from fpstab.fixed_points import FixedPoints, find_fixed_points
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.models import MNISTData

_NOISE = 0.3  # standard deviation of the noise from which images are recalled
_TRIES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """An autoencoder, and what it does with images that it was trained on.

    Attributes:
        name: What it was trained on, and how.
        recall: What became of the images, and of noisy versions of them.
        fixed: How many of the images are within the tolerance of a fixed point, one that repels included.
        recalled: Share of the noisy versions whose orbit ends at their own image.
        looked_up: Share of the noisy versions whose own image is the nearest of these.
        unstable: All fixed points that Newton's method finds from the images.
    """

    name: str
    recall: Recall
    fixed: int
    recalled: float
    looked_up: float
    unstable: FixedPoints

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        images = len(self.recall.exemplars)
        return {
            "trained on": self.name,
            "residual": float(self.recall.residual.median()),
            "median ρ": float(self.recall.rho.median()),
            "fixed": f"{self.fixed}/{images}",
            "attracting": f"{self.recall.n_stored}/{images}",
            "attractors": self.recall.n_attractors,
            "recalled": self.recalled,
            "nearest": self.looked_up,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Memories:
    """Autoencoders on few images, with each loss, and on all.

    Attributes:
        seed: Of networks, images, batches.
        exemplars: The few images `[K, *shape]`.
        few: Trained on them, one a loss; the first with one pass, an autoencoder's own loss.
        everything: Trained on all images; looked at on the same few.
        status: Always ok.
    """

    seed: int
    exemplars: Tensor
    few: tuple[Memory, ...]
    everything: Memory
    status: Status = OK

    @property
    def holds(self) -> bool:
        """Whether the autoencoder on few images has each of them as an attracting fixed point."""
        return bool(self.few[0].recall.stored.all())

    @property
    def verdict(self) -> str:
        """Whether training makes attracting fixed points of the training images."""
        count = len(self.exemplars)
        parts = [
            f"trained on {each.name} {each.fixed} are fixed points and {each.recall.n_stored} attract"
            for each in (*self.few, self.everything)
        ]
        return (
            f"The paper's idea, that training makes stable fixed points of the images, "
            f"{'holds' if self.holds else 'does not hold'}: of {count} images, {'; '.join(parts)}."
        )

    def scalars(self) -> dict[str, float]:
        """Of each autoencoder under its own prefix: counts, spectral radii, shares."""
        scalars = {"holds": float(self.holds)}
        names = [f"few_{i}" for i in range(len(self.few))] + ["all"]
        for name, each in zip(names, (*self.few, self.everything), strict=True):
            values = {"fixed": float(each.fixed), "recalled": each.recalled, "nearest": each.looked_up}
            scalars |= {f"{name}/{key}": x for key, x in (each.recall.scalars() | values).items()}
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row an autoencoder."""
        return [each.row() for each in (*self.few, self.everything)]

    def plot(self) -> "Figure":
        """Draw the images, and for each autoencoder the ends of the orbits from them, with ρ at the image."""
        rows, titles = {"image": self.exemplars}, {}
        for each in (*self.few, self.everything):
            name = f"end of its orbit,\n{each.name}"
            rows[name] = each.recall.ends(each.recall.fixed_points.label[: len(self.exemplars)])
            titles[name] = [f"ρ = {rho:.2f}" for rho in each.recall.rho.tolist()]
        return show_images(rows, titles)


def memories(
    seed: int = 0,
    *,
    count: int = 20,
    images: "MNISTData | None" = None,
    unrolls: tuple[int, ...] = (1, 3),
    epochs: int = 60,
    epochs_all: int = 20,
) -> Memories:
    """Train autoencoders 784-256-64-256-784 on few images and on all, and see which of the few they hold (paper 2 §I).

    On few images tanh and Adam at 0.001; on all images ReLU, as the configuration `mnist_autoencoder`.

    Args:
        seed: Of networks, images, batches.
        count: How many are few.
        images: Real images; `MNISTData()` by default.
        unrolls: Iterations that the losses look at, on few images; 1 is an autoencoder's own loss.
        epochs: On few images, of 80 copies of each.
        epochs_all: On all images.
    """
    from fpstab.models import Autoencoder, AutoencoderTask, MemoriesData, MNISTData

    images = images or MNISTData(batch_size=128)
    data = MemoriesData(images, count=count, seed=seed)
    data.prepare_data()
    data.setup()
    psi = data.exemplars
    assert psi is not None
    noise = torch.randn(_TRIES * count, *psi.shape[1:], generator=torch.Generator().manual_seed(seed))
    noisy = psi.repeat(_TRIES, 1, 1, 1) + _NOISE * noise
    few = []
    for unroll in unrolls:
        net = fit(functools.partial(_task, unroll), data, epochs=epochs, seed=seed)
        name = f"{count} images" + ("" if unroll == 1 else f", loss over {unroll} iterations")
        few.append(_memory(name, net, psi, noisy))
    net = fit(lambda: AutoencoderTask(Autoencoder()), images, epochs=epochs_all, seed=seed)
    train = len(images.train_set)
    return Memories(seed, psi, tuple(few), _memory(f"all {train} images", net, psi, noisy))


def _task(unroll: int) -> Any:
    from fpstab.models import Autoencoder, ExemplarTask

    return ExemplarTask(Autoencoder(activation="tanh"), unroll)


def _memory(name: str, net: nn.Module, psi: Tensor, noisy: Tensor) -> Memory:
    found = recall(net, psi, noisy)
    unstable = find_fixed_points(net, psi, unstable="newton", max_seeds=len(psi), throw=False)
    own = torch.arange(len(psi)).repeat(_TRIES)
    apart = torch.cdist(found.exemplars, unstable.points) / found.exemplars.shape[1] ** 0.5
    return Memory(
        name=name,
        recall=found,
        fixed=int((apart <= IMAGE_TOLERANCE).any(1).sum()) if len(unstable) else 0,
        recalled=share(found.recalled == own),
        looked_up=share(nearest(noisy, psi) == own),
        unstable=unstable,
    )
