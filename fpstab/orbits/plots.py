"""Pictures of orbits: paper 5's Figures 2 and 3, and its Tables 3 to 5, which are made of images."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpstab.orbits.expansive import Constant, Pair
    from fpstab.orbits.shadows import Shadowing

_SIDE = 0.85  # inches of an image


def plot_matrix(constant: "Constant", ax: "Axes | None" = None, names: Sequence[str] | None = None) -> "Axes":
    """Draw the least distances of all pairs of classes as a heat map with logarithmic colours.

    Args:
        constant: A constant of `expansivity`.
        ax: Where to draw; by default on a new figure.
        names: Of the classes; by default their labels.
    """
    from matplotlib.colors import LogNorm

    matrix = constant.matrix.numpy()
    labels = _names(constant.classes, names)
    size = max(3.2, 0.42 * len(labels) + 1.4)
    ax = _axes(ax, (size + 0.8, size))
    positive = matrix[matrix > 0]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1e-16, 1.0)
    norm = LogNorm(low, max(high, 1.01 * low))
    shown = np.where(matrix > 0, matrix, np.where(np.isnan(matrix), np.nan, low))
    image = ax.imshow(shown, norm=norm, cmap="viridis")
    if len(labels) <= 12:
        for (a, b), value in np.ndenumerate(matrix):
            if not math.isnan(value):
                dark = norm(max(value, low)) < 0.6
                ax.text(b, a, _short(value), ha="center", va="center", fontsize=6, color="w" if dark else "k")
    ticks = range(len(labels))
    ax.set_xticks(ticks, labels, rotation=90 if names else 0, fontsize="small")
    ax.set_yticks(ticks, labels, fontsize="small")
    ax.set_title(_title(constant), fontsize="medium")
    ax.figure.colorbar(image, ax=ax, label="least distance")
    return ax


def plot_dots(constant: "Constant", ax: "Axes | None" = None, names: Sequence[str] | None = None) -> "Axes":
    """Draw for each class how near each class comes to it (paper 5, Figure 2 for the mean, Figure 3 for the block).

    One column a class, one dot for each class in it, at the least distance of two images of the two; a bar marks two
    images of the class itself. Full dots lie below the bar: images of another class nearer than any two of its own.

    Args:
        constant: A constant of `expansivity`.
        ax: Where to draw; by default on a new figure.
        names: Of the classes; by default their labels.
    """
    from matplotlib import colormaps

    matrix, labels = constant.matrix.numpy(), _names(constant.classes, names)
    ax = _axes(ax, (max(4.2, 0.55 * len(labels) + 1.6), 3.6))
    positive = matrix[matrix > 0]
    floor = float(positive.min()) / 3 if positive.size else 1e-16
    colours = colormaps["tab10" if len(labels) <= 10 else "hsv"](np.arange(len(labels)) / max(10, len(labels)))
    for b, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        values = np.maximum(matrix[:, b], floor)
        nearer = ~(matrix[:, b] >= np.diag(matrix))  # also where the class has no two images
        others = np.arange(len(labels)) != b
        for inside, face in ((nearer & others, colour), (~nearer & others, "none")):
            ax.scatter(np.flatnonzero(inside), values[inside], s=26, facecolors=[face], edgecolors=[colour])
        ax.scatter([], [], s=26, color=[colour], label=label)
        ax.plot([b - 0.35, b + 0.35], [values[b]] * 2, lw=1.5, color=colour)
    ax.set_yscale("log")
    ax.set_xticks(range(len(labels)), labels, rotation=90 if names else 0, fontsize="small")
    ax.set_ylabel("least distance")
    ax.set_title(_title(constant), fontsize="medium")
    ax.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0), title="class", title_fontsize="x-small")
    return ax


def plot_pairs(pairs: "Sequence[Pair]", images: Any, count: int = 8, names: Sequence[str] | None = None) -> "Figure":
    """Show pairs of images side by side, with their classes, the block and the distance (paper 5, Table 3).

    Args:
        pairs: E.g. `expansivity(orbits).block.pairs`; those of one class are left out.
        images: `[N, C, H, W]` or `[N, H, W]`, or a dataset whose items begin with an image.
        count: How many pairs.
        names: Of the classes; by default their labels.
    """
    shown = [pair for pair in pairs if pair.classes[0] != pair.classes[1]][:count]
    figure, axes = _grid(2, max(1, len(shown)))
    for k, pair in enumerate(shown):
        for row, (image, label) in enumerate(zip((pair.i, pair.j), pair.classes, strict=True)):
            _show(axes[row][k], images, image, f"{_name(label, names)} · {image}")
        block = "" if pair.block is None else f"block {pair.block}\n"
        axes[1][k].set_xlabel(f"{block}{pair.value:.2e}", fontsize=7)
    return figure


def plot_chains(
    shadowing: "Shadowing",
    images: Any,
    classes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> "Figure":
    """Show the images of best-traced chains in strips, each after the image that traces it (paper 5, Tables 4 and 5).

    Args:
        shadowing: A result of `shadowing`.
        images: As for `plot_pairs`.
        classes: One strip for the chain chosen among those that start in each of these classes; by default one strip,
            of the chain chosen among all.
        names: Of the classes; by default their labels.
    """
    chosen = [shadowing] if classes is None else [shadowing.of_class(label) for label in classes]
    chosen = [each for each in chosen if each.chain]
    length = max((len(each.chain) for each in chosen), default=1)
    figure, axes = _grid(max(1, len(chosen)), length + 1)
    for row, each in zip(axes, chosen, strict=False):
        tracer = each.tracer
        assert tracer is not None
        _show(row[0], images, tracer, f"tracer\n{_name(int(each.labels[tracer]), names)} · {tracer}")
        row[0].set_xlabel(f"δ {each.delta:.2g}\nε {each.epsilon:.2g}", fontsize=7)
        for t, image in enumerate(each.chain):
            _show(row[t + 1], images, image, f"{t}\n{_name(int(each.labels[image]), names)} · {image}")
    return figure


def plot_shadowing(shadowing: "Shadowing", ax: "Axes | None" = None) -> "Axes":
    """Draw δ against ε of all chains, the chosen one marked, and δ*(ε) if it was computed."""
    from matplotlib.ticker import NullFormatter

    ax = _axes(ax, (4.6, 3.8))
    epsilons, deltas = shadowing.epsilons.numpy(), shadowing.deltas.numpy()
    positive = np.r_[epsilons[epsilons > 0], deltas[deltas > 0]]
    floor = float(positive.min()) / 3 if positive.size else 1e-16
    ax.plot(np.maximum(epsilons, floor), np.maximum(deltas, floor), ".", ms=3, alpha=0.5, color="#4c72b0")
    low, high = floor, float(positive.max()) if positive.size else 1.0
    ax.plot([low, high], [low, high], ":", lw=1, color="0.5", label="δ = ε")
    if shadowing.curve is not None and len(shadowing.curve):
        ax.plot(*shadowing.curve[:, :2].clamp(min=floor).T.numpy(), "-", color="#55a868", label="δ*(ε)")
    if not math.isnan(shadowing.epsilon):
        label = f"Sh = {shadowing.value:.3g}"
        ax.plot(max(shadowing.epsilon, floor), max(shadowing.delta, floor), "o", color="#c44e52", label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    if high > 10 * low:
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("ε, how near the tracer stays")
    ax.set_ylabel("δ, largest step")
    ax.set_title(f"{shadowing.chain_mode}, {shadowing.rule}, N = {shadowing.n}", fontsize="medium")
    ax.legend(fontsize="small", loc="lower right")
    return ax


def _axes(ax: "Axes | None", size: tuple[float, float]) -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()


def _grid(rows: int, columns: int) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    width, height = _SIDE * columns + 0.1, (_SIDE + 0.5) * rows + 0.1
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.02, 0.38 / height, 0.98, 1 - 0.3 / height, wspace=0.12, hspace=0.6)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    return figure, axes


def _show(ax: "Axes", images: Any, index: int, title: str) -> None:
    image = images[index]
    pixels = torch.as_tensor(image[0] if isinstance(image, tuple | list) else image).detach().cpu().double()
    if pixels.ndim == 3:
        pixels = pixels.permute(1, 2, 0)
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    if pixels.ndim == 1:
        pixels = _square(pixels)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:  # not in the range of colours: normalised images
        pixels = (pixels - low) / ((high - low) or 1.0)
    ax.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=6, pad=2)


def _square(values: Tensor) -> Tensor:
    side = math.isqrt(len(values))
    return values.reshape(side, side) if side * side == len(values) else values[None]


def _names(classes: Sequence[int], names: Sequence[str] | None) -> list[str]:
    return [_name(label, names) for label in classes]


def _name(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{value:.2f}".lstrip("0") if value >= 0.1 else f"{mantissa}e{int(exponent)}" if value else "0"


def _title(constant: "Constant") -> str:
    return f"g-expansive, {constant.kind}: {constant.value:.2e} (N = {constant.n})"
