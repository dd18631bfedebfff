"""Many trainings of one configuration: every combination of some settings, on this machine or on a Dask cluster.

A sweep is a YAML file:

    config: mnist_autoencoder          # a file, or the name of a configuration that fpstab ships
    grid:                              # every combination is a run
      seed_everything: [0, 1, 2]
      model.net.widths: [[784, 64], [784, 256, 64]]
    fixed:                             # the same for all runs
      trainer.max_epochs: 20

Each run is a process of its own, `fpstab train fit`, with a log folder of its own; what came of it is one line of JSON. A run
whose line is there is not made again, so an interrupted sweep goes on where it stopped.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpstab.experiments.opening import RefusedError
from fpstab.experiments.training import packaged_config
from fpstab.records import FILE_NAME, append_line, read_lines

RESULTS = "sweep.jsonl"
_TAIL = 2000  # characters of what a failed training said last


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One training of a sweep.

    Attributes:
        key: Hash of the configuration's text and of all settings: the name of its folder.
        config: The configuration's file.
        settings: By option of `fpstab train fit`, those of the grid and the fixed ones.
        chosen: Those of the grid.
    """

    key: str
    config: str
    settings: dict[str, Any]
    chosen: dict[str, Any]


def sweep_runs(path: Path) -> list[SweepRun]:
    """The runs that a file describes, in the order of its grid.

    Raises:
        RefusedError: If it cannot be read, or is no sweep.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        raise RefusedError(f"{path}: expected a mapping with config: NAME and grid: {{option: [values]}}.")
    if unknown := set(content) - {"config", "grid", "fixed"}:
        raise RefusedError(f"{path}: unknown {', '.join(sorted(map(str, unknown)))}; known are config, grid and fixed.")
    grid, fixed = content.get("grid") or {}, content.get("fixed") or {}
    if not isinstance(grid, dict) or not isinstance(fixed, dict):
        raise RefusedError(f"{path}: grid and fixed are mappings of options, e.g. seed_everything: [0, 1].")
    for option, values in grid.items():
        if not isinstance(values, list) or not values:
            raise RefusedError(f"{path}: grid.{option} is {values!r}; expected a list of values.")
    if both := set(grid) & set(fixed):
        raise RefusedError(f"{path}: {', '.join(sorted(both))} stand in grid and in fixed.")
    config = Path(packaged_config(content["config"]))
    beside = path.parent / content["config"]
    if not config.is_file() and beside.is_file():
        config = beside
    if not config.is_file():
        raise RefusedError(f"{content['config']}: there is no such file, and no configuration of this name is shipped.")
    text = config.read_text("utf-8")
    return [
        _run(config, text, dict(zip(grid, values, strict=True)), fixed) for values in itertools.product(*grid.values())
    ]


def _run(config: Path, text: str, chosen: dict[str, Any], fixed: dict[str, Any]) -> SweepRun:
    settings = {**fixed, **chosen}
    told = json.dumps([text, settings], sort_keys=True, default=str)
    return SweepRun(hashlib.sha256(told.encode()).hexdigest()[:12], str(config.resolve()), settings, chosen)


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """The results that a folder holds, by the runs' keys; those of failed runs are not among them."""
    file = out / RESULTS
    lines = read_lines(file) if file.is_file() else []
    return {str(line["key"]): line for line in lines if line.get("ok")}


def run_sweep(
    runs: list[SweepRun],
    out: Path,
    *,
    jobs: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Make the runs that are not finished.

    Args:
        runs: Of `sweep_runs`.
        out: Folder of the results, and of each run's log; on a cluster one that all workers share.
        jobs: Runs at once; `None`: one, or with Dask as many as the cluster has workers.
        backend: `"loky"`: processes of this machine; `"dask"`: a Dask cluster.
        address: Of the cluster's scheduler; `None`: a cluster of this machine.
        progress: Called with each result when it is there.

    Returns:
        The results of all runs, those of before too, in the order of `runs`.

    Raises:
        RefusedError: If Dask is asked for and not installed, or there is no scheduler at the address.
    """
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    out.mkdir(parents=True, exist_ok=True)
    done = finished(out)
    waiting = [run for run in runs if run.key not in done]
    with _backend(backend, address, jobs) as at_once:
        results = Parallel(n_jobs=at_once, return_as="generator_unordered")(
            delayed(train_one)(run, str(out.resolve())) for run in waiting
        )
        for result in results:
            append_line(out / RESULTS, result)
            done[result["key"]] = result
            if progress is not None:
                progress(result)
    return [done[run.key] for run in runs]


@contextlib.contextmanager
def _backend(backend: str, address: str | None, jobs: int | None) -> Iterator[int]:
    from joblib import parallel_config

    if backend != "dask":
        with parallel_config(backend=backend):
            yield jobs or 1
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise RefusedError("--backend dask needs Dask: pip install 'fpstab[dask]'.") from error
    try:
        here = {} if address else {"n_workers": jobs or 1, "threads_per_worker": 1, "dashboard_address": None}
        client = Client(address, **here)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise RefusedError(f"There is no Dask scheduler at {address}: {error}") from error
    with client, parallel_config(backend="dask"):
        yield jobs or -1


def train_one(run: SweepRun, out: str) -> dict[str, Any]:
    """Train once, in a process of its own.

    Returns:
        `{"key", "settings", "ok", "seconds", "folder", "metrics", "error"}`, all JSON's types: the last value of whatever was
        logged, and what the training said last if it failed.
    """
    folder = Path(out) / run.key
    logger = {
        "class_path": "pytorch_lightning.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder.parent), "name": folder.name, "version": ""},
    }
    settings = {"trainer.logger": logger, "trainer.enable_progress_bar": False, **run.settings}
    options = [
        text
        for name, value in settings.items()
        for text in (f"--{name}", json.dumps(value) if not isinstance(value, str) else value)
    ]
    command = [sys.executable, "-m", "fpstab", "train", "fit", "--config", run.config, *options]
    start = time.monotonic()
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    return {
        "key": run.key,
        "settings": run.chosen,
        "ok": done.returncode == 0,
        "seconds": time.monotonic() - start,
        "folder": str(folder),
        "metrics": _last_metrics(folder),
        "error": "" if done.returncode == 0 else (done.stderr or done.stdout)[-_TAIL:],
    }


def _last_metrics(folder: Path) -> Mapping[str, float]:
    """The last finite value of everything that was logged, and of everything that monitors measured."""
    from fpstab.report.logs import read_logs

    metrics, _ = read_logs(folder)
    last = {key: values[-1][1] for key, values in metrics.items()}
    file = folder / FILE_NAME
    for line in read_lines(file) if file.is_file() else ():
        scalars = line.get("scalars")
        for key, value in scalars.items() if isinstance(scalars, dict) else ():
            if isinstance(value, int | float) and math.isfinite(value):
                last[key] = float(value)
    return last
