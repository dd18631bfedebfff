"""A run on a terminal: each monitor's quantities with their course."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fpstab.report.runs import Recorded, Series
from fpstab.report.words import number

if TYPE_CHECKING:
    from rich.console import Group

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # of a course


def view_of(run: Recorded, *, everything: bool = False) -> "Group":
    """What is known of a run by now.

    Args:
        run: As it stands in the file.
        everything: Also the quantities of each layer, and each certificate's value.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = [Text(_heading(run), style="bold")]
    for series in run.series:
        failed = len(series.records) - len(series.measured)
        counted = f"{len(series.records)} measurements" + (f", {failed} failed" if failed else "")
        parts.append(Text.assemble("\n", (series.question, "bold"), f"  {series.key}, {counted}"))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for heading in ("quantity", "first", "now", "course"):
            table.add_column(heading, justify="left" if heading in ("quantity", "course") else "right", no_wrap=True)
        for name, values in _courses(series).items():
            if everything or "/" not in name or (name.count("/") == 1 and name.split("/")[0] in ("data", "uniform")):
                known = [value for value in values if value is not None]
                table.add_row(Text(name), number(known[0]), number(known[-1]), course(values))
        parts.append(table)
    return Group(*parts)


def course(values: Sequence[float | None]) -> str:
    """Values as a line of blocks, the least one lowest; a gap where there is none.

    >>> course([0.0, None, 7.0, 3.5])
    '▁ █▅'
    """
    shown = list(values[-_WIDTH:])
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[round(steps * (value - low) / (high - low)) if high > low else 0]
        for value in shown
    )


def _courses(series: Series) -> dict[str, list[float | None]]:
    """Each quantity over all measurements, without those that never had a value."""
    records = [series.quantities(record) for record in series.measured]
    names = dict.fromkeys(name for record in records for name in record if name not in ("failed", "seconds"))
    found = {name: [record.get(name) for record in records] for name in names}
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def _heading(run: Recorded) -> str:
    records = [series.records[-1] for series in run.series if series.records]
    if not records:
        return f"{run.title}: nothing measured yet"
    latest = max(records, key=lambda record: int(record["step"]))
    when = latest.get("time")
    ago = f", {time.time() - when:.0f} s ago" if isinstance(when, int | float) else ""
    return f"{run.title}: step {latest['step']}, epoch {latest.get('epoch', '–')}{ago}"
