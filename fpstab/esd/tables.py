"""A report as a table for the terminal."""

import re
from collections import Counter

from rich import box
from rich.markup import escape
from rich.table import Table

from fpstab.esd.layers import LayerESD
from fpstab.esd.reports import ESDReport
from fpstab.esd.verdicts import LABELS

_HEADINGS = ("shape", "n", "alpha ± sigma", "D", "spikes", "verdict")


def report_table(report: ESDReport, initial: ESDReport | None = None, *, width: int = 80) -> Table:
    """Make a table of rich with one row a layer, that is no wider than `width` if names can be wrapped so far.

    Args:
        report: What is shown.
        initial: An earlier report: its exponents and verdicts are shown before those of now.
        width: Columns of the terminal.
    """
    before = {layer.name: layer for layer in initial.layers} if initial else {}
    rows = [_cells(layer, before.get(layer.name) if initial else layer) for layer in report.layers]
    names = [printable(layer.name) for layer in report.layers]
    used = sum(max(_width(row[i]) for row in [_HEADINGS, *rows]) + 1 for i in range(len(_HEADINGS)))
    roomy = used + len(_HEADINGS) + max(map(len, names), default=0) <= width
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(roomy), 0, 0), show_edge=False, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("shape", "verdict") else "right")
    for layer, name, row in zip(report.layers, names, rows, strict=True):
        style = "red" if layer.failed else "bold" if layer.verdict and layer.verdict.label == "heavy" else ""
        table.add_row(*map(escape, (fold(name, max(width - used, 12)), *row)), style=style)
    return table


def summary_lines(report: ESDReport) -> list[str]:
    """How many layers have which verdict, and the means of WeightWatcher's summary metrics."""
    counts = Counter(str(layer.verdict) for layer in report.layers if layer.verdict)
    order: dict[str, int] = {label: i for i, label in enumerate(LABELS)}
    parts = [f"{counts[name]} {name}" for name in sorted(counts, key=lambda name: (order[name.split()[0]], name))]
    if failed := sum(layer.failed for layer in report.layers):
        parts.append(f"{failed} failed")
    if other := sum(not layer.verdict and not layer.failed for layer in report.layers):
        parts.append(f"{other} without a spectrum")
    n = len(report.layers)
    means = [f"{name} {value:.4g}" for name, value in report.summary().items() if value == value]
    distances = [d for layer in report.layers if (d := layer.metrics.get("rand_distance")) is not None]
    if distances:
        means.append(f"rand_distance {sum(distances) / len(distances):.4g}")
    lines = [f"{n} layer{'s' if n > 1 else ''}: {', '.join(parts)}."]
    return lines + ([f"Means: {', '.join(means)}."] if means else [])


def fold(name: str, width: int) -> str:
    """Break a name into lines, at its dots where that is possible.

    >>> fold("layers.11.attention.q_proj", 12).split()
    ['layers.11.', 'attention.', 'q_proj']
    """
    lines = [""]
    for part in re.findall(rf"[^.]{{1,{width - 1}}}\.?|\.", name):
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text from a file, without what would steer a terminal.

    >>> printable("a" + chr(27) + "[2Jb")
    'a�[2Jb'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _cells(layer: LayerESD, then: LayerESD | None) -> tuple[str, ...]:
    alpha = "–" if layer.alpha is None else f"{layer.alpha:.2f} ± {layer.sigma:.2f}"
    verdict = str(layer.verdict or layer.status.code).replace(" ", "\n")
    if then is not layer:
        alpha = f"{'–' if then is None or then.alpha is None else f'{then.alpha:.2f}'} →\n{alpha}"
        was = "–" if then is None else str(then.verdict or then.status.code).replace(" ", "\n")
        verdict = f"{was} →\n{verdict}"
    distance = "–" if layer.ks_distance is None else f"{layer.ks_distance:.3f}"
    spikes = str(layer.spikes) if layer.bulk and layer.bulk.law else "–"
    return "×".join(map(str, layer.shape)) or "–", str(layer.n), alpha, distance, spikes, verdict


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n")))
