"""Charts of a report, as Vega-Lite specifications: data and all."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fpstab.records import pattern_of, quantities_of
from fpstab.report.runs import Recorded, Series

_DECADES = 100.0  # a positive quantity that spans more is drawn on a logarithmic axis
_LINES = 40  # of a chart; more are not told apart


def monitor_charts(runs: Sequence[tuple[str, Series]]) -> list[dict[str, Any]]:
    """The charts of one monitor over the steps; of several runs each quantity once for each.

    Args:
        runs: What the run is called, and its series.

    Returns:
        Specifications; a chart nothing of which was measured is left out. A monitor that is not fpstab's has one of all its
        quantities.
    """
    analysis = runs[0][1].analysis
    charts = quantities_of(analysis).charts or {"what was measured": ("*",)}
    found = []
    for title, quantities in charts.items():
        rows: list[dict[str, Any]] = []
        for label, series in runs:
            patterns = [re.compile(pattern_of(series.name, quantity)) for quantity in quantities]
            for record in series.measured:
                for name, value in series.quantities(record).items():
                    wanted = any(pattern.match(f"fpstab/{series.name}/{name}") for pattern in patterns)
                    if value is not None and wanted and name not in ("seconds", "failed"):
                        rows.append({"step": record["step"], "value": value, "quantity": name, "run": label})
        if rows:
            found.append(line_chart(title, rows, several=len(runs) > 1))
    return found


def metric_charts(runs: Sequence[tuple[str, Recorded]]) -> list[dict[str, Any]]:
    """The charts of what else was logged, those of one kind (`train/loss`, `val/loss`) together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for label, run in runs:
        for key, values in run.metrics.items():
            rows = groups.setdefault(key.rpartition("/")[2].removesuffix("_step").removesuffix("_epoch"), [])
            rows += [{"step": step, "value": value, "quantity": key, "run": label} for step, value in _thin(values)]
    return [line_chart(title, rows, several=len(runs) > 1) for title, rows in groups.items()]


def line_chart(title: str, rows: Sequence[Mapping[str, Any]], *, several: bool = False) -> dict[str, Any]:
    """A chart of quantities over steps, with values under the pointer, zoom, and a legend that picks lines.

    Args:
        title: What it shows.
        rows: `{"step", "value", "quantity", "run"}`.
        several: Whether the rows are of more than one run: dashes then tell them apart.
    """
    names = list(dict.fromkeys(row["quantity"] for row in rows))
    shown = [row for row in rows if row["quantity"] in set(names[:_LINES])]
    values = [row["value"] for row in shown]
    logarithmic = min(values) > 0 and max(values) / min(values) > _DECADES
    encoding: dict[str, Any] = {
        "x": {"field": "step", "type": "quantitative", "title": "step"},
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": None,
            "scale": {"type": "log"} if logarithmic else {"zero": False, "nice": True},
        },
        "color": {
            "field": "quantity",
            "type": "nominal",
            "title": None,
            "sort": names,
            "legend": {"orient": "bottom", "columns": 2, "labelLimit": 260} if len(names) > 1 else None,
        },
        "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
        "tooltip": [
            {"field": "quantity", "type": "nominal"},
            {"field": "step", "type": "quantitative"},
            {"field": "value", "type": "quantitative", "format": ".5g"},
            *([{"field": "run", "type": "nominal"}] if several else []),
        ],
    }
    if several:
        encoding["strokeDash"] = {"field": "run", "type": "nominal", "title": None, "legend": {"orient": "bottom"}}
        encoding["detail"] = {"field": "run", "type": "nominal"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": title, "anchor": "start", "fontSize": 13, "fontWeight": "normal"},
        "width": "container",
        "height": 190,
        "data": {"values": list(shown)},
        "mark": {"type": "line", "point": {"size": 24}, "strokeWidth": 1.6},
        "params": [
            {"name": "picked", "select": {"type": "point", "fields": ["quantity"]}, "bind": "legend"},
            {"name": "zoomed", "select": "interval", "bind": "scales"},
        ],
        "encoding": encoding,
    }


def _thin(values: Sequence[tuple[int, float]], most: int = 1000) -> Sequence[tuple[int, float]]:
    """At most so many of the values, evenly spread, the last one always."""
    if len(values) <= most:
        return values
    stride = -(-len(values) // most)
    return [*values[:-1:stride], values[-1]]
