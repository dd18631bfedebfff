"""`fpstab.jsonl`: every result of every monitor as a line, and what a run was when it was started or resumed."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE_NAME = "fpstab.jsonl"


@dataclass(frozen=True, slots=True)
class Run:
    """One training in an `fpstab.jsonl`, with all its resumes.

    Attributes:
        name: The same after a resume.
        starts: What it was at each start: `{"time", "step", "fpstab", "torch", …}`, oldest first.
        measurements: Records by monitor, in the order of their steps. Of two with one step the later line is kept: a run that
            was killed and resumed measures some steps twice.
    """

    name: str
    starts: list[dict[str, Any]]
    measurements: dict[str, list[dict[str, Any]]]


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record in a single write; a line that a crash cut short is closed first.

    Raises:
        OSError: If it cannot be written.
    """
    data = (json.dumps(jsonable(record), allow_nan=False, separators=(",", ":")) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        if file.write(data) != len(data):
            raise OSError("the disk is full; the line is cut short")


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the measurements of an `fpstab.jsonl` as they were written; lines that a crash cut short are left out."""
    return [record for record in _records(path) if "start" not in record]


def read_runs(path: str | os.PathLike[str]) -> list[Run]:
    """Read an `fpstab.jsonl` run by run, the first that was started first.

    Raises:
        OSError: If it cannot be read.
    """
    starts: dict[str, list[dict[str, Any]]] = {}
    steps: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for record in _records(path):
        run = str(record.get("run", ""))
        starts.setdefault(run, [])
        monitors = steps.setdefault(run, {})
        if isinstance(record.get("start"), dict):
            starts[run].append(record["start"])
        elif isinstance(record.get("monitor"), str) and isinstance(record.get("step"), int):
            monitors.setdefault(record["monitor"], {})[record["step"]] = record
    return [
        Run(name, starts[name], {monitor: [found[step] for step in sorted(found)] for monitor, found in each.items()})
        for name, each in steps.items()
    ]


def jsonable(value: Any) -> Any:
    """Turn a result into JSON's types.

    Dataclasses become objects, tensors lists, complex numbers pairs [real, imaginary], nan and infinities null.

    >>> jsonable({"alpha": float("nan"), "eigenvalues": torch.tensor([1.0, 2.0]), "pair": 1 + 2j})
    {'alpha': None, 'eigenvalues': [1.0, 2.0], 'pair': [1.0, 2.0]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Tensor) and value.is_complex():
        return jsonable(torch.view_as_real(value))
    if isinstance(value, complex):
        return jsonable([value.real, value.imag])
    if isinstance(value, Tensor):
        finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        return value.tolist() if finite else jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # also a number of too many digits
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
