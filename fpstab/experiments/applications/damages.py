"""Restoration of damaged images by iterating to the fixed point (paper 1 §II.1)."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from fpstab.experiments.applications.baselines import nearest
from fpstab.experiments.applications.pictures import show_images
from fpstab.experiments.applications.recall import IMAGE_TOLERANCE, Recall, one_pass, recall, share
from fpstab.experiments.applications.runs import fit
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.models import MNISTData

_TRIES = 20  # independent damages of each image

Damage = Callable[[Tensor, Generator], Tensor]


def _uniform(x: Tensor, generator: Generator, largest: float) -> Tensor:
    return x + largest * torch.rand(x.shape, generator=generator)


def _missing(x: Tensor, generator: Generator, fraction: float) -> Tensor:
    return x * (torch.rand(x.shape, generator=generator) >= fraction)


def _erased(x: Tensor, generator: Generator, side: str) -> Tensor:
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    erased = x.clone()
    part = {
        "upper": erased[..., :height, :],
        "lower": erased[..., height:, :],
        "left": erased[..., :width],
        "right": erased[..., width:],
    }[side]
    part.zero_()
    return erased


def _replaced(x: Tensor, generator: Generator, fraction: float) -> Tensor:
    noise = torch.rand(x.shape, generator=generator)
    return torch.where(torch.rand(x.shape, generator=generator) < fraction, noise.round(), x)


DAMAGES: dict[str, Damage] = {
    "noise U(0, 0.5)": functools.partial(_uniform, largest=0.5),
    "noise U(0, 1)": functools.partial(_uniform, largest=1.0),
    "noise U(0, 2)": functools.partial(_uniform, largest=2.0),
    "70 % missing": functools.partial(_missing, fraction=0.7),
    "90 % missing": functools.partial(_missing, fraction=0.9),
    "upper half erased": functools.partial(_erased, side="upper"),
    "lower half erased": functools.partial(_erased, side="lower"),
    "left half erased": functools.partial(_erased, side="left"),
    "right half erased": functools.partial(_erased, side="right"),
    "30 % black or white": functools.partial(_replaced, fraction=0.3),
}
"""Kinds of damage to images `[B, channels, height, width]`, by name."""

_REQUIRED = ("noise U(0, 1)", "upper half erased", "lower half erased", "left half erased", "right half erased")
_ENOUGH = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Restoration:
    """How many damaged images are restored, by kind of damage.

    Attributes:
        seed: Of network, images, noise.
        exemplars: The stored images `[K, *shape]`.
        recall: What became of them.
        damaged: One damaged version of each, by kind `[K, *shape]`.
        restored: The end of its orbit `[K, *shape]`, nan where there is none.
        recovered: Share of damaged images whose orbit ends at their own image, by kind.
        passed: Share that one pass brings within the tolerance of their own image, by kind.
        looked_up: Share whose own image is the nearest of the stored ones, by kind. Who keeps the stored images at
            hand needs no network.
        status: Always ok.
    """

    seed: int
    exemplars: Tensor
    recall: Recall
    damaged: dict[str, Tensor]
    restored: dict[str, Tensor]
    recovered: dict[str, float]
    passed: dict[str, float]
    looked_up: dict[str, float]
    status: Status = OK

    @property
    def holds(self) -> bool:
        """Whether all images are stored, and 95 % recovered from noise U(0, 1) and from every erased half."""
        return bool(self.recall.stored.all()) and all(self.recovered[kind] >= _ENOUGH for kind in _REQUIRED)

    @property
    def verdict(self) -> str:
        """Whether the paper's idea holds here, and where looking up is better."""
        worst = min(_REQUIRED, key=lambda kind: self.recovered[kind])
        better = [kind for kind in self.recovered if self.looked_up[kind] > self.recovered[kind]]
        helps = [kind for kind in self.recovered if self.recovered[kind] > self.looked_up[kind]]
        return (
            f"The paper's idea {'holds' if self.holds else 'does not hold'}: {self.recall.n_stored} of "
            f"{len(self.exemplars)} images attract, and of images with noise U(0, 1) or an erased half {_ENOUGH:.0%} or more "
            f"are {'' if self.holds else 'not '}recovered (least: {self.recovered[worst]:.3f}, {worst}). "
            f"Looking up the nearest stored image recovers more from: {', '.join(better) or 'nothing'}; "
            f"less from: {', '.join(helps) or 'nothing'}."
        )

    def scalars(self) -> dict[str, float]:
        """What `Recall.scalars` gives, and the shares by kind of damage."""
        shares = {"recovered": self.recovered, "one_pass": self.passed, "nearest": self.looked_up}
        flat = {f"{kind}/{name}": x for name, by_kind in shares.items() for kind, x in by_kind.items()}
        return self.recall.scalars() | flat | {"holds": float(self.holds)}

    def table(self) -> list[dict[str, Any]]:
        """One row a kind of damage."""
        return [
            {"damage": kind, "recovered": x, "one pass": self.passed[kind], "nearest stored": self.looked_up[kind]}
            for kind, x in self.recovered.items()
        ]

    def plot(self) -> "Figure":
        """Draw the stored images with ρ, and a damaged version of each with the end of its orbit below."""
        rows = {"stored image": self.exemplars}
        for kind, x in self.damaged.items():
            rows |= {kind: x, f"{kind}, end": self.restored[kind]}
        return show_images(rows, {"stored image": [f"ρ = {rho:.2f}" for rho in self.recall.rho.tolist()]})


def restoration(
    seed: int = 0, *, count: int = 10, images: "MNISTData | None" = None, epochs: int = 60, unroll: int = 1
) -> Restoration:
    """Store some images in 784-64-784, tanh and sigmoid, and restore them from damage by iteration (paper 1 §II.1).

    Trained with Adam at 0.003 on the clean images and on images with noise U(0, 0.5), 600 steps of 80; of the kinds of
    damage it is tested with, it has seen that one only.

    Args:
        seed: Of network, images, noise.
        count: How many images are stored.
        images: Real images; `MNISTData()` by default.
        epochs: Of training, 80 copies of each image every epoch.
        unroll: Iterations that the loss looks at; 1 is the paper's.
    """
    from fpstab.models import Autoencoder, ExemplarTask, MemoriesData, MNISTData

    data = MemoriesData(images or MNISTData(batch_size=80), count=count, noise=0.5, seed=seed)
    net = fit(
        lambda: ExemplarTask(
            Autoencoder((784, 64), activation="tanh"), unroll, functools.partial(torch.optim.Adam, lr=3e-3)
        ),
        data,
        epochs=epochs,
        seed=seed,
    )
    psi = data.exemplars
    assert psi is not None
    generator = torch.Generator().manual_seed(seed)
    originals = psi.repeat(_TRIES, 1, 1, 1)
    own = torch.arange(count).repeat(_TRIES)
    damaged = {kind: damage(originals, generator) for kind, damage in DAMAGES.items()}
    found = recall(net, psi, torch.cat(list(damaged.values())))
    recalled, limits = (x.reshape(len(DAMAGES), -1) for x in (found.recalled, found.limit))
    parts = {kind: (recalled[i], limits[i]) for i, kind in enumerate(DAMAGES)}
    target, reach = psi.flatten(1).double().repeat(_TRIES, 1), IMAGE_TOLERANCE * math.sqrt(psi[0].numel())
    restored = {}
    for kind, (_, limit) in parts.items():
        restored[kind] = found.ends(limit[:count])
    return Restoration(
        seed=seed,
        exemplars=psi,
        recall=found,
        damaged={kind: x[:count] for kind, x in damaged.items()},
        restored=restored,
        recovered={kind: share(ends == own) for kind, (ends, _) in parts.items()},
        passed={kind: share((one_pass(net, x) - target).norm(dim=1) <= reach) for kind, x in damaged.items()},
        looked_up={kind: share(nearest(x, psi) == own) for kind, x in damaged.items()},
    )
