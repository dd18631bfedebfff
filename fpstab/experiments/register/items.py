"""Runs the items of the register, one or all: picture, CSV and JSON of each; what is there is not made again."""

import contextlib
import csv
import hashlib
import inspect
import io
import json
import math
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fpstab.experiments.claims import Finding
from fpstab.experiments.register.entries import ENTRIES, Entry

Record = dict[str, Any]


class RefusedItemError(Exception):
    """There is nothing to run; the message says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """One item with everything that its result depends on.

    Attributes:
        name: Of the entry.
        entry: What is run.
        settings: Keyword arguments of the function.
        size: `"quick"`, `"small"` (the function's own sizes) or `"full"`.
        out: Folder of the files.
    """

    name: str
    entry: Entry
    settings: dict[str, Any]
    size: str
    out: Path

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.settings["seed"])

    @property
    def stem(self) -> Path:
        """Of the names of the files, without an end."""
        return self.out / f"{self.name}-{self.seed}{'' if self.size == 'small' else f'-{self.size}'}"

    def file(self, end: str) -> Path:
        """The file with this end, e.g. `".json"`."""
        return self.stem.with_name(self.stem.name + end)

    def key(self) -> str:
        """Hash of what the result depends on: function, settings and version of fpstab."""
        kept = {name: value for name, value in _all_settings(self).items() if name not in ("jobs", "out", "backend")}
        known = [f"{self.entry.module}.{self.entry.function}", _version(), _plain(kept)]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def stored(self) -> Record | None:
        """The record of an earlier run of the same, if its file is whole."""
        try:
            record = json.loads(self.file(".json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(record, dict) and record.get("key") == self.key() and self.file(".png").is_file()
        return record if whole and not record.get("error") else None


def make_task(
    name: str,
    *,
    out: Path,
    size: str = "small",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    entries: Mapping[str, Entry] = ENTRIES,
) -> Task:
    """What it takes to run an entry.

    Args:
        name: Of the entry.
        out: Folder of the files.
        size: `"quick"`, `"small"` or `"full"`.
        seed: Of the run.
        options: Of the command, e.g. `data`; those that the entry's function takes are given to it.
        entries: Where the name stands.

    Raises:
        RefusedItemError: If the entry is schematic.
    """
    entry = entries[name]
    if entry.schematic:
        raise RefusedItemError(f"{name} is {entry.note}. There is nothing to run.")
    settings: dict[str, Any] = dict(entry.settings)
    if size == "full":
        settings |= import_module(entry.module).FULL[entry.function]
    elif size == "quick":
        settings |= entry.quick
    settings["seed"] = seed
    given = {"out": out} | dict(options or {})
    settings |= {option: given[option] for option in entry.options if given.get(option) is not None}
    return Task(name, entry, settings, size, out)


def run_item(task: Task, *, progress: Callable[[int, int], None] | None = None) -> Record:
    """Run an item and write its picture, its points and its record.

    Args:
        task: What to run.
        progress: Given on to the function, if it takes one.

    Returns:
        The record: settings, seed, seconds, findings, and the names of the files.
    """
    import torch

    task.out.mkdir(parents=True, exist_ok=True)
    module = import_module(task.entry.module)
    function = getattr(module, task.entry.function)
    settings = dict(task.settings)
    if progress is not None and "progress" in _parameters(function):
        settings["progress"] = progress
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Lightning 2.6 on torch 2.14, at every fit: nothing that a reader of verdicts could mend
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        result = function(**settings)
    seconds = time.perf_counter() - start
    findings = findings_of(task.entry, result)
    _write_picture(task.file(".png"), result)
    _write_table(task.file(".csv"), result.table())
    record = _head(task) | {
        "torch": torch.__version__.split("+")[0],
        "seconds": seconds,
        "verdict": verdict_of(result, findings),
        "findings": [finding.row() for finding in findings],
        "scalars": result.scalars(),
        "table": result.table(),
    }
    if hasattr(result, "records"):
        record["records"] = result.records()
    return _write_record(task, record)


def run_items(
    tasks: Sequence[Task],
    *,
    fresh: bool = False,
    jobs: int = 1,
    begins: Callable[[Task], None] | None = None,
    ends: Callable[[Task, Record], None] | None = None,
) -> list[Record]:
    """Run items, several at once if `jobs` says so; what an earlier run has left is not made again.

    An item that raises does not stop the others: its record has `error`, and no findings. With more than one job the items
    go through joblib, also on the cluster of a `joblib.parallel_config`.

    Args:
        tasks: What to run.
        fresh: Make all of it anew.
        jobs: How many at once.
        begins: Called with each task that is about to run (with `jobs` = 1).
        ends: Called with each task and its record, as they come.

    Returns:
        The records, in the order of the tasks.
    """
    found: dict[str, Record] = {}

    def kept(task: Task) -> bool:
        stored = None if fresh else task.stored()
        if stored is not None:
            keep(task, stored | {"kept": True})
        return stored is not None

    def keep(task: Task, record: Record) -> None:
        found[task.name] = record
        if ends is not None:
            ends(task, record)

    if jobs == 1:
        for task in tasks:
            if not kept(task):
                if begins is not None:
                    begins(task)
                keep(task, run_guarded(task))
    elif waiting := [task for task in tasks if not kept(task)]:
        from joblib import Parallel, delayed  # type: ignore[import-untyped]

        made = Parallel(n_jobs=jobs, return_as="generator")(delayed(run_guarded)(task) for task in waiting)
        for task, record in zip(waiting, made, strict=True):
            keep(task, record)
    return [found[task.name] for task in tasks]


def run_guarded(task: Task) -> Record:
    """`run_item`, with one thread, its output kept from the terminal; an exception becomes the record's `error`."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # enough for matrices this small; more items at once are better
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return run_item(task)
    except Exception as error:
        record = _head(task) | {
            "seconds": 0.0,
            "verdict": "",
            "findings": [],
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        return _write_record(task, record)
    finally:
        torch.set_num_threads(threads)


def findings_of(entry: Entry, result: Any) -> tuple[Finding, ...]:
    """The rows of the register that a result gives."""
    if not entry.findings:
        return tuple(getattr(result, "findings", ()))
    module, function = entry.findings.split(":")
    return tuple(getattr(import_module(module), function)(result))


def verdict_of(result: Any, findings: Sequence[Finding]) -> str:
    """The findings, one a line; after them the result's own words, if it has others."""
    own = [str(result.verdict)] if hasattr(result, "verdict") and not hasattr(result, "findings") else []
    return "\n".join([*map(str, findings), *own])


def _head(task: Task) -> Record:
    return {
        "item": task.name,
        "paper": task.entry.paper,
        "items": list(task.entry.items),
        "what": task.entry.text,
        "function": f"{task.entry.module}.{task.entry.function}",
        "fpstab": _version(),
        "key": task.key(),
        "size": task.size,
        "settings": _all_settings(task),
        "seed": task.seed,
        "rerun": f"fpstab reproduce {task.name}"
        + (f" --seed {task.seed}" if task.seed else "")
        + ("" if task.size == "small" else f" --{task.size}"),
        "picture": task.file(".png").name,
        "points": task.file(".csv").name,
    }


def _write_record(task: Task, record: Record) -> Record:
    plain = _plain(record)
    assert isinstance(plain, dict)
    with writing(task.file(".json")) as path:
        path.write_text(json.dumps(plain, allow_nan=False, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return plain


def _write_picture(path: Path, result: Any) -> None:
    drawn = result.plot()
    figure = drawn if hasattr(drawn, "savefig") else drawn.figure
    with writing(path) as unfinished:
        figure.savefig(unfinished, dpi=110, format="png")


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with writing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there afterwards takes the place of `path`, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _all_settings(task: Task) -> dict[str, Any]:
    """All that the function is called with, its defaults too; without them if it cannot be had."""
    try:
        parameters = _parameters(getattr(import_module(task.entry.module), task.entry.function))
    except Exception:
        return dict(task.settings)
    return {
        name: task.settings.get(name, parameter.default)
        for name, parameter in parameters.items()
        if name != "progress" and parameter.kind is not parameter.VAR_KEYWORD
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _version() -> str:
    from fpstab import __version__

    return __version__
