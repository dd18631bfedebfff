"""Long work in blocks: on several cores or a cluster, and resumed where it was interrupted."""

import hashlib
import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

Settings = Mapping[str, Any]
"""Keyword arguments of a block: what JSON can hold."""

Work = Callable[..., dict[str, Any]]
"""A pure function at the top of a module, from keyword settings to a dict that JSON can hold."""

Backend = Literal["loky", "threading", "sequential", "dask"]
"""What runs the blocks, by joblib's names."""

Progress = Callable[[int, int], None]
"""Is told how many blocks are done, and of how many."""


def run_blocks(
    work: Work,
    settings: Sequence[Settings],
    *,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Call `work(**settings)` for each block, at most once, and return the results in their order.

    A finished block is written at once to `out/blocks/<name of work>-<hash of settings>.json`, in one step, so that an
    interrupted run leaves whole blocks only; the next run with the same `out` reads them. The hash covers the settings
    and the version of fpstab. Fresh results take the way through JSON, too: a resumed run gives the same as one that
    was not interrupted.

    Args:
        work: What to run. Workers must be able to import it.
        settings: One block each.
        out: Folder in which blocks are kept; by default they are not.
        jobs: Blocks at once; `None`: one, or as `joblib.parallel_config` says.
        backend: `"dask"`: the current Dask client, or the cluster of the Dask configuration (`DASK_SCHEDULER_ADDRESS`),
            or else a local one with `jobs` workers. By default joblib's own, or as `joblib.parallel_config` says.
        progress: Is told the number of finished blocks and of all, at first and after each.

    Raises:
        ValueError: If the jobs or the backend make no sense, or a result has numbers that are not finite.
        TypeError: If settings or a result are nothing that JSON can hold.
        ModuleNotFoundError: If the backend is Dask, and that is not installed.

    >>> run_blocks(dict, [{"a": 1}, {"a": 2, "b": None}])
    [{'a': 1}, {'a': 2, 'b': None}]
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs == 0):
        raise ValueError(f"run_blocks: jobs={jobs!r}; expected a positive integer, −1 for all cores, or None.")
    if backend not in (None, "loky", "threading", "sequential", "dask"):
        raise ValueError(
            f"run_blocks: backend={backend!r}; expected 'loky', 'threading', 'sequential', 'dask' or None."
        )
    if backend == "dask" and importlib.util.find_spec("distributed") is None:
        raise ModuleNotFoundError("The backend 'dask' needs Dask: pip install 'dask[distributed]'.", name="distributed")
    keys = [_key(work, each) for each in settings]
    paths = [None if out is None else Path(out) / "blocks" / f"{work.__name__}-{_digest(key)}.json" for key in keys]
    results = [_read(path, key) for path, key in zip(paths, keys, strict=True)]
    missing = [i for i, result in enumerate(results) if result is None]
    done = len(settings) - len(missing)
    if progress is not None:
        progress(done, len(settings))
    for i, result in _run(work, [(i, settings[i]) for i in missing], jobs, backend):
        text = _json(work, keys[i] | {"result": result})
        _write(paths[i], text)
        results[i] = json.loads(text)["result"]
        done += 1
        if progress is not None:
            progress(done, len(settings))
    return [result for result in results if result is not None]


def split(count: int, size: int) -> list[tuple[int, int]]:
    """Cut `count` things into blocks of at most `size`: the first of each, and how many.

    Raises:
        ValueError: If one of them is below 1.

    >>> split(5, 2)
    [(0, 2), (2, 2), (4, 1)]
    """
    if count < 1 or size < 1:
        raise ValueError(f"split: count={count}, size={size}; expected 1 or more of each.")
    return [(first, min(size, count - first)) for first in range(0, count, size)]


def _run(
    work: Work, blocks: list[tuple[int, Settings]], jobs: int | None, backend: Backend | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and results of blocks, each as soon as it is finished."""
    if not blocks:
        return
    from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]

    with _dask_client(jobs) if backend == "dask" else nullcontext():
        chosen = {} if backend is None else {"backend": backend}
        with parallel_config(**chosen) if chosen else nullcontext():
            run = Parallel(n_jobs=jobs, return_as="generator_unordered")
            yield from run(delayed(_one)(work, i, dict(settings)) for i, settings in blocks)


def _one(work: Work, i: int, settings: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # cores are better used by more blocks
    try:
        return i, work(**settings)
    finally:
        torch.set_num_threads(before)


@contextmanager
def _dask_client(jobs: int | None) -> Iterator[None]:
    config, distributed = (importlib.import_module(name) for name in ("dask.config", "distributed"))
    try:
        distributed.get_client()
    except ValueError:  # there is none
        address = config.get("scheduler-address", None)
        local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(address) if address else distributed.Client(**local):
            yield
    else:
        yield


def _key(work: Work, settings: Settings) -> dict[str, Any]:
    from fpstab import __version__

    key = {"work": f"{work.__module__}.{work.__qualname__}", "fpstab": __version__, "settings": dict(settings)}
    found: dict[str, Any] = json.loads(_json(work, key))
    return found


def _json(work: Work, value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"A block of {work.__name__} is nothing that JSON can hold: {error}") from error


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path | None, key: dict[str, Any]) -> dict[str, Any] | None:
    """The result that is kept for a key; none if there is none, or the file is not what it should be."""
    if path is None or not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(kept, dict):
        return None
    result = kept.pop("result", None)
    return result if kept == key and isinstance(result, dict) else None


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
