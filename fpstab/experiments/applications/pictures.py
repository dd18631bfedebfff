"""Rows of images under one another."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 20


def show_images(rows: Mapping[str, Tensor], titles: Mapping[str, Sequence[str]] | None = None) -> "Figure":
    """Draw images `[N, channels, height, width]` (first channel, grey from 0 to 1) in rows, with the row's name.

    Args:
        rows: By name; of each the first 20 images. An image that is nan stays empty.
        titles: For some rows, a title for each image.
    """
    from matplotlib.figure import Figure

    columns = min(_MOST, max(len(images) for images in rows.values()))
    figure = Figure(figsize=(1.5 + 0.9 * columns, 1.15 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (name, images), row in zip(rows.items(), axes, strict=True):
        above = (titles or {}).get(name, ())
        for i, ax in enumerate(row):
            ax.set_xticks([])
            ax.set_yticks([])
            if i >= len(images):
                ax.set_axis_off()
                continue
            ax.imshow(images[i, 0].numpy(), cmap="gray", vmin=0.0, vmax=1.0)
            if i < len(above):
                ax.set_title(above[i], fontsize=7, pad=2)
        row[0].set_axis_on()
        row[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    return figure
