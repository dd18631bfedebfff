"""The applications of papers 1 and 2: trained on the spot, judged by their fixed points, compared with plain baselines.

Each is a function of a seed that trains networks through Lightning's Trainer and returns a small result: `scalars()`,
`table()`, `plot()`, `holds` (whether the paper's idea does) and `verdict` (the same in words, with the figures).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fpstab.experiments.applications.circles import Toy, toy
from fpstab.experiments.applications.classes import Classification, identification, semi_supervised
from fpstab.experiments.applications.collapse import Unsupervised, unsupervised
from fpstab.experiments.applications.damages import Restoration, restoration
from fpstab.experiments.applications.recall import Recall, recall
from fpstab.experiments.applications.storage import Memories, memories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "APPLICATIONS",
    "BATCH_SIZES",
    "Application",
    "Classification",
    "Memories",
    "Recall",
    "Restoration",
    "Toy",
    "Unsupervised",
    "identification",
    "memories",
    "recall",
    "restoration",
    "semi_supervised",
    "toy",
    "unsupervised",
]


class Application(Protocol):
    """What every application returns."""

    @property
    def seed(self) -> int:
        """Of networks, data, batches."""

    @property
    def holds(self) -> bool:
        """Whether the paper's idea holds."""

    @property
    def verdict(self) -> str:
        """The same in words, with the figures that decide it."""

    def scalars(self) -> dict[str, float]:
        """All figures, by name."""

    def table(self) -> list[dict[str, Any]]:
        """The figures that a person looks at, in rows."""

    def plot(self) -> "Figure":
        """The picture."""


APPLICATIONS: Mapping[str, Callable[..., Application]] = {
    "toy": toy,
    "memories": memories,
    "identification": identification,
    "restoration": restoration,
    "semi-supervised": semi_supervised,
    "unsupervised": unsupervised,
}
"""The applications by the names that `fpstab apply` takes; all but the toy take `images`."""

BATCH_SIZES: Mapping[str, int] = {
    "memories": 128,
    "identification": 64,
    "restoration": 80,
    "semi-supervised": 64,
    "unsupervised": 64,
}
"""Of the images of each application that takes some."""
