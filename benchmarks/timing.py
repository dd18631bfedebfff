"""Interleaved timing of alternatives, and the CSV that keeps it."""

import csv
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def clock(run: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleave(timers: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of each timer, taken in turn after one warm-up each."""
    for timer in timers.values():
        timer()
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            samples[name].append(timer())
    return {name: statistics.median(values) for name, values in samples.items()}


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write and print the rows."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            "  ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )
