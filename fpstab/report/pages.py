"""Writes a report: as one HTML file that needs no network, as Markdown, or as JSON."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

from fpstab.records import jsonable
from fpstab.report.contents import Contents, contents_of
from fpstab.report.runs import Recorded
from fpstab.report.words import KINDS, number

Format = Literal["html", "md", "json"]


def write_report(runs: Sequence[Recorded], form: Format = "html") -> str:
    """The report of a run, or of several side by side.

    Args:
        runs: One or more.
        form: `"html"`: everything in one file, with charts that can be zoomed; `"md"`, `"json"`: what can be read as text.
    """
    contents = contents_of(runs)
    return {"html": _html, "md": _markdown, "json": _json}[form](contents)


def _html(contents: Contents) -> str:
    import vl_convert
    from jinja2 import Environment, select_autoescape

    charts: list[dict[str, Any]] = []

    def place(spec: dict[str, Any]) -> int:
        charts.append(spec)
        return len(charts) - 1

    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: number(value, 4)
    environment.filters["data_uri"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    page = environment.from_string(files("fpstab.report").joinpath("page.html.jinja").read_text("utf-8"))
    return page.render(
        contents=contents,
        kinds=KINDS,
        place=place,
        charts=lambda: _in_a_script(charts),
        library=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
    )


def _in_a_script(value: Any) -> Any:
    """JSON that may stand within a script element: no tag, no comment can begin in it."""
    from markupsafe import Markup

    return Markup(json.dumps(value, allow_nan=False, ensure_ascii=True).replace("<", "\\u003c"))


def _json(contents: Contents) -> str:
    record = {
        "title": contents.title,
        "runs": [
            {
                "label": label,
                "folder": str(run.folder),
                "name": run.name,
                "starts": run.starts,
                "config": run.config,
                "history": {
                    series.key: [
                        {
                            "step": r["step"],
                            "epoch": r.get("epoch"),
                            "failed": bool(r.get("failed")),
                            **series.quantities(r),
                        }
                        for r in series.records
                    ]
                    for series in run.series
                },
            }
            for label, run in zip(contents.labels, contents.runs, strict=True)
        ],
        "findings": [
            {"monitor": section.key, "question": section.question, "run": label, "kind": each.kind, "text": each.text}
            for section in contents.sections
            for label, said in section.said
            for each in said
        ],
        "costs": contents.costs,
    }
    return json.dumps(jsonable(record), allow_nan=False, indent=1, ensure_ascii=False) + "\n"


def _markdown(contents: Contents) -> str:
    labels = contents.labels
    lines = [f"# {_text(contents.title)}", ""]
    lines += _table(["", *(label or "run" for label in labels)], [[what, *values] for what, values in contents.facts])
    for section in contents.sections:
        lines += ["", f"## {_text(section.question)}", "", f"`{section.key}`", ""]
        for label, said in section.said:
            lines += [f"* {f'{label}: ' if label else ''}**{each.kind}**: {_text(each.text)}" for each in said]
        lines.append("")
        head = [
            "quantity",
            "meaning",
            *(f"{end}{f' ({label})' if label else ''}" for label in labels for end in ("first", "last")),
        ]
        rows = [
            [
                f"`{row['quantity']}`",
                row["meaning"],
                *(number(each, 4) for pair in row["values"] for each in pair or (None, None)),
            ]
            for row in section.rows
        ]
        lines += _table(head, rows)
    lines += ["", "## What it cost", ""]
    lines += _table(
        ["run", "monitor", "measurements", "failed", "seconds"],
        [
            [c["run"], f"`{c['monitor']}`", str(c["measurements"]), str(c["failed"]), f"{c['seconds']:.2f}"]
            for c in contents.costs
        ],
    )
    lines += ["", "Kinds of statements: " + "; ".join(f"*{kind}*: {meaning}" for kind, meaning in KINDS.items()) + "."]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]


def _text(text: str) -> str:
    """Text that came from outside, without what Markdown would take for HTML or a line's end."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\r", " ").replace("\n", " ")
