"""Pictures of Lipschitz bounds: brackets from above and below, of one network or over its training.

Axes are linear in log₁₀: matplotlib draws that several times faster than its log scales, and a monitor draws while a
network trains.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpstab.lipschitz.bounds import LipschitzBound

Series = tuple[Sequence[int], Sequence[float]]

_ABOVE = (
    ("spectral_product", "product of norms", "#bbbbbb"),
    ("eclipse_fast", "ECLipsE-Fast", "#8da0cb"),
    ("value", "certified bound", "#4c72b0"),
)
_BELOW = (
    ("slopes_lower", "some network of these slopes", "#dd8452"),
    ("sampled_lower", "Jacobian at the points", "#c44e52"),
)


def plot_brackets(series: Mapping[str, Series], ax: "Axes | None" = None) -> "Axes":
    """Draw upper and lower brackets of the Lipschitz constant over training.

    Args:
        series: By quantity (`"value"`, `"spectral_product"`, `"eclipse_fast"` from above; `"slopes_lower"`,
            `"sampled_lower"` from below), the steps and the values; what is not there, not finite or not positive
            leaves a gap. The constant lies between `value` and `sampled_lower`, which is shaded.
        ax: Where to draw; by default on a new figure.
    """
    ax = _axes(ax)
    for quantities, marker in ((_ABOVE, "v"), (_BELOW, "^")):
        for name, label, colour in quantities:
            if name in series and len(series[name][0]):
                ax.plot(
                    series[name][0], _logs(series[name][1]), "-", marker=marker, ms=4, lw=1.4, color=colour, label=label
                )
    if "value" in series and "sampled_lower" in series:
        lower = dict(zip(*series["sampled_lower"], strict=True))
        steps = [step for step in series["value"][0] if step in lower]
        upper = dict(zip(*series["value"], strict=True))
        low, high = (_logs([values[step] for step in steps]) for values in (lower, upper))
        ax.fill_between(steps, low, high, where=np.isfinite(low) & np.isfinite(high), alpha=0.15, lw=0, color="#4c72b0")
    ax.set_xlabel("step")
    return _finish(ax)


def plot_bound(bound: "LipschitzBound", ax: "Axes | None" = None) -> "Axes":
    """Draw the numbers of one bound, one below the other, from above (▼) and from below (▲).

    Args:
        bound: What `lipschitz_bound` gave.
        ax: Where to draw; by default on a new figure.
    """
    ax = _axes(ax)
    for position, (name, label, colour) in enumerate((*_ABOVE, *_BELOW)):
        value = _logs([getattr(bound, name)])
        ax.plot([position], value, "v" if position < len(_ABOVE) else "^", ms=8, color=colour, label=label)
        if math.isfinite(value[0]):
            ax.annotate(
                f"{getattr(bound, name):.4g}", (position, value[0]), (7, 0), "data", "offset points", va="center"
            )
    ax.axhline(_logs([bound.value])[0], lw=0.8, ls=":", color="#4c72b0")
    ax.set_xlim(-0.5, len(_ABOVE) + len(_BELOW))
    ax.set_xticks([])
    ax.set_title(f"{bound.method}, {'certified' if bound.certified else bound.status.code}", fontsize="medium")
    return _finish(ax)


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.1, right=0.7, bottom=0.13, top=0.92)
    return ax


def _finish(ax: "Axes") -> "Axes":
    low, high = ax.get_ylim()
    if high - low < 0.1:  # a third of a decade at least, so that there is a tick
        low, high = (low + high) / 2 - 0.17, (low + high) / 2 + 0.17
        ax.set_ylim(low, high)
    decades = range(math.floor(low), math.ceil(high) + 1)
    steps = (1,) if high - low > 4 else (1, 2, 5) if high - low > 0.7 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [m * 10.0**decade for decade in decades for m in steps if low <= decade + math.log10(m) <= high]
    ax.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    ax.set_ylabel("Lipschitz constant")
    if low < 0 < high:
        ax.axhline(0.0, lw=0.8, color="black", zorder=0)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def _logs(values: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    array = np.asarray(values, dtype=np.float64)
    return np.log10(np.where(np.isfinite(array) & (array > 0), array, np.nan))
