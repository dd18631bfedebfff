"""Pictures of the tables and figures of paper 5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fpstab.experiments.resnet_tables import title
from fpstab.experiments.resnet_training import ResNetRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.orbits import Constant


def dots(found: "Sequence[tuple[ResNetRun, Constant]]") -> "Figure":
    """The distances between classes, a panel a network."""
    from matplotlib.figure import Figure

    from fpstab.orbits import plot_dots

    figure = Figure(figsize=(6.8, 3.9 * len(found)), layout="constrained")
    for ax, (run, constant) in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True):
        plot_dots(constant, ax, run.class_names)
        ax.set_title(f"{title(run)}: {ax.get_title()}", fontsize="medium")
    return figure


def image_pairs(run: ResNetRun, constant: "Constant") -> "Figure":
    """The closest images of two classes, side by side."""
    from fpstab.orbits import plot_pairs

    return plot_pairs(constant.pairs, run.test_set, names=run.class_names)


def stack(figures: "Sequence[tuple[str, Figure]]") -> "Figure":
    """One figure under the other, each with its title."""
    from matplotlib.figure import Figure

    width = max((figure.get_figwidth() for _, figure in figures), default=4.0)
    heights = [figure.get_figheight() + 0.3 for _, figure in figures] or [1.0]
    whole = Figure(figsize=(width, sum(heights)))
    top = 1.0
    for (text, figure), height in zip(figures, heights, strict=True):
        share = height / sum(heights)
        inner = share * figure.get_figheight() / height
        ax = whole.add_axes((0.0, top - share, figure.get_figwidth() / width, inner))
        ax.imshow(_pixels(figure), aspect="auto")
        ax.set_axis_off()
        whole.text(0.01, top - (share - inner) / 2, text, va="center", fontsize="small")
        top -= share
    return whole


def text_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "Figure":
    """Some columns of a table as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.15 * len(columns), 0.3 * (len(rows) + 2)), layout="constrained")
    ax = figure.subplots()
    ax.set_axis_off()
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    table = ax.table(
        cells, colLabels=[name.replace("_", "\n", 1) for name in columns], loc="center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for (line, _), cell in table.get_celld().items():
        cell.set_height(0.9 / (len(rows) + 2) * (1.6 if line == 0 else 1.0))
    return figure


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _pixels(figure: "Figure") -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(200)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return canvas.buffer_rgba()  # type: ignore[no-untyped-call]
