"""What loggers have kept beside the lines of the monitors: metrics of the training, and pictures."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

_SKIPPED = ("epoch", "hp_metric", "step")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a monitor drew.

    Attributes:
        tag: Under which it was logged.
        step: When.
        png: The file.
    """

    tag: str
    step: int
    png: bytes


def read_logs(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[Picture]]:
    """Metrics by key, and the last picture of each tag, from TensorBoard's events or a `metrics.csv` in a folder.

    What cannot be read is left out.
    """
    metrics, pictures = _events(folder)
    return metrics or _table(folder / "metrics.csv"), pictures


def _events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[Picture]]:
    if not any(folder.glob("events.out.tfevents.*")):
        return {}, []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1, "compressedHistograms": 1}
    try:
        events = EventAccumulator(str(folder), size_guidance=everything).Reload()
    except Exception:  # a damaged file: the lines of the monitors are what counts
        return {}, []
    tags = events.Tags()
    metrics = {
        tag: [(event.step, event.value) for event in events.Scalars(tag) if math.isfinite(event.value)]
        for tag in tags["scalars"]
        if not tag.startswith("fpstab/") and tag not in _SKIPPED
    }
    pictures = [
        Picture(tag, events.Images(tag)[-1].step, events.Images(tag)[-1].encoded_image_string)
        for tag in sorted(tags["images"])
        if tag.startswith("fpstab/") and events.Images(tag)
    ]
    return {tag: values for tag, values in metrics.items() if values}, pictures


def _table(path: Path) -> dict[str, list[tuple[int, float]]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return {}
    metrics: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        try:
            step = int(row["step"])
        except (KeyError, TypeError, ValueError):
            continue
        for key, text in row.items():
            if not key or key.startswith("fpstab/") or key in _SKIPPED or not text:
                continue
            try:
                value = float(text)
            except (TypeError, ValueError):
                continue
            if math.isfinite(value):
                metrics.setdefault(key, []).append((step, value))
    return metrics
