"""What a table or figure of paper 5 is: measured rows beside printed ones, made of trained networks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.resnet_training import QUICK, ImagesName, ResNetRun, Sizes, resnet_runs
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "photographs": "two photographs"}


@dataclass(frozen=True, slots=True, eq=False)
class ResNetTable:
    """A table or figure of paper 5.

    Attributes:
        name: What it is called here.
        runs: The networks behind it.
        rows: What is measured, and what the paper prints beside it.
        notes: A sentence on each difference from the paper.
        draw: Makes the picture.
        values: The numbers to log.
        status: `"ok"`, with what is worth knowing of the constants.
    """

    name: str
    runs: tuple[ResNetRun, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    draw: "Callable[[], Figure]"
    values: dict[str, float]
    status: Status = OK

    def table(self) -> list[dict[str, Any]]:
        """The rows, all with the same columns."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        return [{name: row.get(name) for name in columns} for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """The networks: images, training, scores, settings."""
        return [run.record() for run in self.runs]

    def scalars(self) -> dict[str, float]:
        """The numbers by network."""
        return dict(self.values)

    @property
    def verdict(self) -> str:
        """The differences from the paper."""
        return " ".join(self.notes)

    def plot(self) -> "Figure":
        """The picture."""
        return self.draw()


def of_networks(
    only: int | None = None,
) -> Callable[[Callable[[tuple[ResNetRun, ...]], ResNetTable]], Callable[..., ResNetTable]]:
    """Make of a function of trained networks one that trains them, or finds them trained.

    What is made takes, by keyword, the arguments of `resnet_runs`, and raises its errors.

    Args:
        only: The depth, if there is no other choice made; `None`: those of the sizes.
    """

    def decorate(table: Callable[[tuple[ResNetRun, ...]], ResNetTable]) -> Callable[..., ResNetTable]:
        def made(
            *,
            seed: int = 0,
            sizes: Sizes = QUICK,
            depth: int | None = only,
            images: ImagesName | None = None,
            checkpoint: str | Path | None = None,
            data: str | Path = "data",
            out: str | Path = "runs/reproduce",
        ) -> ResNetTable:
            return table(
                resnet_runs(
                    sizes, seed=seed, depth=depth or only, images=images, checkpoint=checkpoint, data=data, out=out
                )
            )

        made.__doc__ = f"{getdoc(table)}\n\nArguments and errors are those of `resnet_runs`."
        update_wrapper(made, table, assigned=("__module__", "__name__", "__qualname__"))
        del made.__wrapped__  # type: ignore[attr-defined]  # the signature is its own
        return made

    return decorate


def title(run: ResNetRun) -> str:
    """What a network is called."""
    return f"{_TITLES[run.images]}, ResNet-{run.depth}"


def labelled(run: ResNetRun, source: str) -> dict[str, Any]:
    """The first columns of a row: `source` is `"ours"` or `"paper"`."""
    return {"source": source, "images": run.images, "depth": run.depth}
