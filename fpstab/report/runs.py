"""Reads a run from its folder: the lines of its monitors, its checkpoints, its configuration, its loggers' files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpstab.experiments.opening import RefusedError
from fpstab.records import FILE_NAME, Run, parts_of, quantities_of, read_runs
from fpstab.report.logs import Picture, read_logs

_CONFIGURATIONS = ("config.yaml", "hparams.yaml")
_NAMED = 8  # of the runs that a message lists


@dataclass(frozen=True, slots=True)
class Series:
    """What one monitor measured.

    Attributes:
        key: Of the monitor, e.g. `"ESDMonitor[esd]"`.
        analysis: `"esd"`, …
        name: Stands in the keys `fpstab/<name>/…`.
        records: In the order of their steps, failed ones too.
    """

    key: str
    analysis: str
    name: str
    records: list[dict[str, Any]]

    @property
    def measured(self) -> list[dict[str, Any]]:
        """The measurements that did not fail."""
        return [record for record in self.records if not record.get("failed")]

    @property
    def question(self) -> str:
        """What the monitor answers, with its name if that is one of its own."""
        question = quantities_of(self.analysis).question
        return question if self.name == self.analysis else f"{question} ({self.name})"

    def quantities(self, record: Mapping[str, Any]) -> dict[str, float | None]:
        """The scalars of a record by their names below `fpstab/<name>/`; `None` for nan."""
        prefix = f"fpstab/{self.name}/"
        scalars = record.get("scalars")
        found = scalars.items() if isinstance(scalars, dict) else ()
        return {str(key).removeprefix(prefix): _finite(value) for key, value in found if _is_number(value)}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as it was recorded in a folder.

    Attributes:
        folder: Where.
        name: The same after a resume; empty if the lines do not say.
        starts: What it was at each start, oldest first; see `fpstab.records.Run`.
        series: Of each monitor.
        others: Names of further runs in the same file.
        config: The text of its configuration; empty if there is none.
        metrics: What else was logged, by key: steps and values.
        pictures: The last one of each that the monitors drew.
    """

    folder: Path
    name: str
    starts: list[dict[str, Any]]
    series: list[Series]
    others: list[str]
    config: str
    metrics: dict[str, list[tuple[int, float]]]
    pictures: list[Picture]

    @property
    def title(self) -> str:
        """The last two parts of the folder's name."""
        return "/".join(self.folder.resolve().parts[-2:])


def find_log(path: Path) -> Path:
    """The folder of the newest log at a path or below it.

    Raises:
        RefusedError: If there is none.
    """
    if path.is_file() and path.name == FILE_NAME:
        return path.parent
    if not path.is_dir():
        raise RefusedError(f"{path}: there is no such folder. Give the folder of a run, which holds {FILE_NAME}.")
    if (path / FILE_NAME).is_file() or _checkpoints(path):
        return path
    found = sorted(path.rglob(FILE_NAME), key=lambda each: each.stat().st_mtime)
    if not found:
        raise RefusedError(
            f"{path}: no {FILE_NAME} here or below. A run with a monitor of fpstab.callbacks writes one into its log folder."
        )
    return found[-1].parent


def open_run(path: Path, run: str | None = None, *, logs: bool = True) -> Recorded:
    """Read a run.

    Args:
        path: Its folder, its `fpstab.jsonl`, or a folder above: then the newest one.
        run: Its name, if the file holds several; by default the last one.
        logs: Whether to read the loggers' files as well.

    Raises:
        RefusedError: If there is nothing to read, or no such run.
    """
    folder = find_log(path)
    file = folder / FILE_NAME
    try:
        runs = read_runs(file) if file.is_file() else []
    except OSError as error:
        raise RefusedError(f"{file} cannot be read: {error}") from error
    runs = _with_remembered(runs, _remembered(folder))
    runs = [each for each in runs if each.measurements or each.starts]
    if not runs:
        raise RefusedError(f"{folder}: nothing was measured yet.")
    names = [each.name for each in runs]
    if run is not None and run not in names:
        raise RefusedError(f"{folder}: no run {run!r}. There are: {', '.join(names[-_NAMED:])}.")
    chosen = runs[names.index(run) if run is not None else -1]
    series = [Series(key, *parts_of(key), records) for key, records in chosen.measurements.items()]
    metrics, pictures = read_logs(folder) if logs else ({}, [])
    return Recorded(
        folder=folder,
        name=chosen.name,
        starts=chosen.starts,
        series=series,
        others=[name for name in names if name != chosen.name],
        config=_config(folder),
        metrics=metrics,
        pictures=pictures,
    )


def _with_remembered(runs: list[Run], remembered: dict[str, dict[str, list[dict[str, Any]]]]) -> list[Run]:
    """The runs, with the measurements that only a checkpoint still has."""
    by_name = {run.name: run for run in runs}
    for name, monitors in remembered.items():
        run = by_name.setdefault(name, Run(name, [], {}))
        for monitor, records in monitors.items():
            known = {record["step"]: record for record in records} | {
                record["step"]: record for record in run.measurements.get(monitor, [])
            }
            run.measurements[monitor] = [known[step] for step in sorted(known)]
    return list(by_name.values())


def _remembered(folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The histories in the newest checkpoint, by run and monitor; none where it cannot be read."""
    import pickle

    import torch

    for path in reversed(_checkpoints(folder)):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            states = checkpoint["callbacks"].items()
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            pickle.UnpicklingError,
        ):
            continue
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for key, state in states:
            history = state.get("history") if isinstance(state, dict) else None
            if isinstance(history, dict) and isinstance(history.get("records"), list):
                found.setdefault(str(history.get("run", "")), {})[str(key)] = history["records"]
        return found
    return {}


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest last."""
    found = [*folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")]
    return sorted((each for each in found if each.is_file()), key=lambda each: each.stat().st_mtime)


def _config(folder: Path) -> str:
    for name in _CONFIGURATIONS:
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if text not in ("", "{}"):
            return text
    return ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
