"""The register of all items that were run: JSON, CSV, a Markdown table, and an index of the pictures."""

import csv
import datetime
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fpstab.experiments.register.entries import ENTRIES, PAPERS, Entry
from fpstab.experiments.register.items import Record, writing
from fpstab.experiments.register.page import render

COLUMNS = (
    "paper",
    "item",
    "claim",
    "rule",
    "printed",
    "revised",
    "verdict",
    "found",
    "value",
    "error",
    "sample",
    "entry",
    "rerun",
)
"""Of the register."""


def write_summary(records: Sequence[Record], out: Path, entries: Mapping[str, Entry] = ENTRIES) -> list[Path]:
    """Write `register.json`, `register.csv`, `register.md` and `index.html` of records into a folder.

    Args:
        records: Of the items that were run.
        out: Where their pictures are.
        entries: All there are, so that those without a run are named too.

    Returns:
        The files.
    """
    rows = claim_rows(records)
    register = {
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(records),
        "items": [_brief(record) for record in records],
        "missing": _missing(records, entries),
        "claims": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("register.json", "register.csv", "register.md", "index.html")]
    with writing(files[0]) as path:
        path.write_text(json.dumps(register, indent=1, ensure_ascii=False) + "\n", "utf-8")
    with writing(files[1]) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with writing(files[2]) as path:
        path.write_text(markdown(register), "utf-8")
    with writing(files[3]) as path:
        path.write_text(render(register, records), "utf-8")
    return files


def read_records(out: Path, names: Iterable[str], suffix: str) -> list[Record]:
    """The records of items in a folder; those that are not there, or damaged, are left out.

    Args:
        out: The folder.
        names: Of the items.
        suffix: What follows the name in the files', e.g. `"-0-quick"`.
    """
    records = []
    for name in names:
        try:
            record = json.loads((out / f"{name}{suffix}.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def claim_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The claims of all records, by paper; with the entry, and how to run it again."""
    rows = [
        {name: finding.get(name) for name in COLUMNS} | {"entry": record["item"], "rerun": record["rerun"]}
        for record in records
        for finding in record["findings"]
    ]
    return sorted(rows, key=lambda row: int(row["paper"]))


def versions(records: Sequence[Record]) -> dict[str, str]:
    """Of what made the records."""
    return {
        name: ", ".join(sorted({str(record[name]) for record in records if record.get(name)}))
        for name in ("fpstab", "torch")
    }


def markdown(register: Mapping[str, Any]) -> str:
    """The register as a page of documentation.

    Args:
        register: What `register.json` holds.
    """
    claims, items = register["claims"], register["items"]
    counts = Counter(claim["verdict"] for claim in claims)
    made = " with ".join(filter(None, (f"fpstab {register['versions'].get('fpstab', '')}",
                                       f"torch {register['versions'].get('torch', '')}")))  # fmt: skip
    sizes = ", ".join(sorted({str(item["size"]) for item in items}))
    seeds = ", ".join(sorted({str(item["seed"]) for item in items if "seed" in item}))
    lines = [
        "# The papers, claim by claim",
        "",
        f"Made {register['made']} by {made}: {len(items)} items ({sizes} sizes, seed {seeds}), {len(claims)} claims, "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        + ".",
        "",
        f"The verdict follows from the run's numbers by the claim's rule: what decides, with which tolerance and sample. The rules "
        f"stood before this run. {sum(bool(claim.get('revised')) for claim in claims)} of them, marked †, were changed, or the "
        "sample was, after an earlier one, and say how: trust these the less, and on seeds that they have not seen. *Reproduced*: as printed. *Corrected*: not as printed, but what stands here in "
        "its place does hold. *Not reproduced*: neither. *Inconclusive*: the sample, or the training, is too small for the rule; "
        "`--full` takes the paper's sizes.",
        "",
        "```sh",
        "fpstab reproduce --list            # every figure, table and theorem",
        "fpstab reproduce deq-fig2          # one of them: picture, CSV, JSON, verdicts",
        "fpstab reproduce --all --quick     # all of them, and this table",
        "```",
    ]
    for paper, title in PAPERS.items():
        mine = [claim for claim in claims if int(claim["paper"]) == paper]
        if not mine:
            continue
        lines += ["", f"## Paper {paper}", "", f"{title}.", ""]
        lines += ["| item | claim | printed | verdict | found | rule | run |", "|---|---|---|---|---|---|---|"]
        for claim in mine:
            cells = [claim["item"], claim["claim"], claim["printed"] or "–", f"**{claim['verdict']}**", claim["found"],
                     claim["rule"] + (f" † {claim['revised']}." if claim.get("revised") else ""), f"`{claim['entry']}`"]  # fmt: skip
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    failed = [item for item in items if item.get("error")]
    if failed:
        lines += ["", "## Failed", "", *(f"* `{item['item']}`: {_cell(item['error'])}" for item in failed)]
    if register["missing"]:
        lines += ["", "## Without a run", ""]
        lines += [
            f"* `{each['item']}` (paper {each['paper']}, {_cell(each['items'])}): {_cell(each['why'])}."
            for each in register["missing"]
        ]
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return (
        " ".join(str(text).split()).replace("|", "\\|").replace("*", "\\*").replace("\\*\\*", "**").replace("<", "&lt;")
    )


def _brief(record: Record) -> dict[str, Any]:
    names = (
        "item",
        "paper",
        "items",
        "what",
        "size",
        "seed",
        "settings",
        "seconds",
        "fpstab",
        "torch",
        "picture",
        "rerun",
        "error",
    )
    return {name: record[name] for name in names if name in record}


def _missing(records: Sequence[Record], entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    made = {record["item"] for record in records}
    return [
        {
            "item": name,
            "paper": entry.paper,
            "items": ", ".join(entry.items),
            "why": entry.note if entry.schematic else "not run",
        }
        for name, entry in entries.items()
        if name not in made
    ]
