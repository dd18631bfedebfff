"""The contents of a report, whatever it is written as: facts, sentences, charts, tables, costs."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fpstab.records import quantities_of
from fpstab.report.charts import metric_charts, monitor_charts
from fpstab.report.logs import Picture
from fpstab.report.runs import Recorded, Series
from fpstab.report.words import Sentence, sentences

_ORDER = ("esd", "fixed_points", "jacobian", "lipschitz", "stability", "equilibrium", "orbits")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Section:
    """What one monitor found, in one run or in several.

    Attributes:
        key: Of the monitor, e.g. `"ESDMonitor[esd]"`.
        question: What it answers.
        said: Sentences by run.
        charts: Vega-Lite specifications.
        pictures: By run.
        rows: `{"quantity", "meaning", "values": [(first, last) of each run, or None]}`.
    """

    key: str
    question: str
    said: list[tuple[str, list[Sentence]]]
    charts: list[dict[str, Any]]
    pictures: list[tuple[str, Picture]]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Contents:
    """A report of one run, or of several side by side.

    Attributes:
        title: Of the page.
        labels: What the runs are called: nothing for a single one, else A, B, …
        runs: The runs.
        facts: Rows `(what, value of each run)`.
        sections: One a monitor.
        training: Charts of what else was logged.
        costs: Rows `{"run", "monitor", "measurements", "failed", "seconds"}`.
    """

    title: str
    labels: list[str]
    runs: list[Recorded]
    facts: list[tuple[str, list[str]]]
    sections: list[Section]
    training: list[dict[str, Any]]
    costs: list[dict[str, Any]]


def contents_of(runs: Sequence[Recorded]) -> Contents:
    """Gather what there is to say of one run or several."""
    labels = [""] if len(runs) == 1 else list(_LETTERS[: len(runs)])
    pairs = list(zip(labels, runs, strict=True))
    keys = list(dict.fromkeys(series.key for run in runs for series in run.series))
    by_key = {
        key: [(label, series) for label, run in pairs for series in run.series if series.key == key] for key in keys
    }
    order = {analysis: place for place, analysis in enumerate(_ORDER)}
    keys.sort(key=lambda key: order.get(by_key[key][0][1].analysis, len(order)))
    return Contents(
        title=" and ".join(run.title for run in runs),
        labels=labels,
        runs=list(runs),
        facts=_facts(runs),
        sections=[_section(key, by_key[key], pairs) for key in keys],
        training=metric_charts(pairs),
        costs=[_cost(label, series) for label, run in pairs for series in run.series],
    )


def _section(key: str, found: list[tuple[str, Series]], pairs: list[tuple[str, Recorded]]) -> Section:
    series = dict(found)
    first = found[0][1]
    known = quantities_of(first.analysis)
    ends = {
        label: (each.quantities(each.measured[0]), each.quantities(each.measured[-1])) if each.measured else ({}, {})
        for label, each in found
    }
    names = list(dict.fromkeys(name for early, late in ends.values() for name in (*late, *early)))
    rows: list[dict[str, Any]] = [
        {
            "quantity": name,
            "meaning": known.meaning_of(name),
            "values": [
                (ends[label][0].get(name), ends[label][1].get(name)) if label in ends else None for label, _ in pairs
            ],
        }
        for name in names
        if name not in ("failed", "seconds")
    ]
    prefix = f"fpstab/{first.name}/"
    pictures = [(label, each) for label, run in pairs for each in run.pictures if each.tag.startswith(prefix)]
    said = [(label, sentences(each)) for label, each in series.items()]
    return Section(key, first.question, said, monitor_charts(found), pictures, rows)


def _facts(runs: Sequence[Recorded]) -> list[tuple[str, list[str]]]:
    facts: list[tuple[str, list[str]]] = [("folder", [str(run.folder) for run in runs])]
    facts += [
        ("started", [_when(run.starts[0].get("time")) if run.starts else "unknown" for run in runs]),
        ("resumed", [_times(len(run.starts) - 1) for run in runs]),
        ("last measurement", [_last(run) for run in runs]),
    ]
    for title, names in (
        ("network", ("module", "parameters")),
        ("seed", ("seed",)),
        ("device", ("device", "precision", "processes")),
        ("length", ("max_epochs", "max_steps")),
        ("versions", ("fpstab", "torch", "lightning", "python")),
    ):
        facts.append((title, [_named(run.starts[-1] if run.starts else {}, names) for run in runs]))
    return facts


def _named(start: dict[str, Any], names: Sequence[str]) -> str:
    found = [(name, start[name]) for name in names if start.get(name) is not None]
    if len(names) == 1:
        return str(found[0][1]) if found else "not set"
    return ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in found)


def _when(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "unknown"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _times(count: int) -> str:
    return "never" if count < 1 else "once" if count == 1 else f"{count} times"


def _last(run: Recorded) -> str:
    records = [series.records[-1] for series in run.series if series.records]
    if not records:
        return "none"
    latest = max(records, key=lambda record: int(record["step"]))
    return f"step {latest['step']}, epoch {latest.get('epoch', '–')}"


def _cost(label: str, series: Series) -> dict[str, Any]:
    seconds = [series.quantities(record).get("seconds") for record in series.records]
    return {
        "run": label,
        "monitor": series.key,
        "measurements": len(series.records),
        "failed": len(series.records) - len(series.measured),
        "seconds": sum(each for each in seconds if each is not None),
    }
