"""Where results go besides Lightning's own log: JSON lines, and what a logger can do by its capabilities."""

import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.board import write_layout, write_meanings
from fpstab.callbacks.notices import Notices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_NAME = "fpstab.jsonl"


class Sinks:
    """Writes on the first process only; what cannot be written is said once and never stops training.

    Args:
        analysis: What the quantities are of.
        notices: Where what cannot be written is said.
    """

    def __init__(self, analysis: str, notices: Notices) -> None:
        self.path: Path | None = None
        self._analysis, self._notices = analysis, notices
        self._known: set[str] = set()  # keys whose meaning the loggers have been told

    def open(self, trainer: Trainer) -> None:
        """Find the log folder, and arrange the charts of all monitors. To be called on every process."""
        folder = trainer.log_dir or trainer.default_root_dir
        self.path, self._known = None, set()
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.path = Path(os.fspath(folder)) / FILE_NAME
        monitors = [each for each in trainer.callbacks if isinstance(getattr(each, "_sinks", None), Sinks)]  # type: ignore[attr-defined]
        if monitors and monitors[0]._sinks is self:
            for logger in trainer.loggers:
                self._try(write_layout, logger, [(each.analysis, each.name) for each in monitors])

    def line(self, record: Mapping[str, Any]) -> None:
        """Append one record to `fpstab.jsonl` in a single write; a line that a crash cut short is closed first."""
        if self.path is None:
            return
        try:
            data = (json.dumps(jsonable(record), allow_nan=False, separators=(",", ":")) + "\n").encode()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+", buffering=0) as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    data = data if file.read(1) == b"\n" else b"\n" + data
                file.write(data)
        except OSError as error:
            self._notices.once(
                f"fpstab cannot write {self.path}: {error}. Training goes on; its results are not kept there."
            )

    def scalars(
        self, trainer: Trainer, module: LightningModule, phase: str, scalars: Mapping[str, float], bar: str
    ) -> None:
        """Log scalars: what callbacks may watch through Lightning, the rest straight to every logger.

        In the phases `"epoch"` and `"step"` finite values go through `LightningModule.log`, the key `bar` to the
        progress bar too. What is not finite would make EarlyStopping stop: it goes to the loggers alone, as do
        all values of other phases, and those of a step, which Lightning would thin out.
        """
        direct = dict(scalars)
        for key, value in scalars.items() if phase in ("epoch", "step") and not trainer.barebones else ():
            if math.isfinite(value):
                module.log(
                    key,
                    value,
                    prog_bar=key == bar,
                    logger=phase == "epoch" and bool(trainer.loggers),  # True warns where there is none
                    batch_size=1,
                    sync_dist=trainer.world_size > 1,
                    reduce_fx="max",  # equal on all processes already; "max" keeps it so to the last bit
                )
                if phase == "epoch":
                    del direct[key]
        first = {key: value for key, value in direct.items() if key not in self._known}
        for logger in trainer.loggers if trainer.is_global_zero and direct else ():
            told = first and self._try(write_meanings, logger, self._analysis, first, trainer.global_step)
            rest = {key: value for key, value in direct.items() if key not in first} if told else direct
            if rest:
                self._try(logger.log_metrics, metrics=rest, step=trainer.global_step)
        self._known |= scalars.keys()

    def histograms(self, trainer: Trainer, prefix: str, values: Mapping[str, Tensor], step: int) -> None:
        """Write histograms to every logger that takes them."""
        for experiment in _experiments(trainer, "add_histogram"):
            for tag, tensor in values.items():
                self._try(experiment.add_histogram, prefix + tag, tensor, step)

    def figure(self, trainer: Trainer, tag: str, figure: "Figure", step: int) -> None:
        """Write a figure to every logger that takes figures (TensorBoard) or images (`log_image`, as W&B)."""
        for experiment in _experiments(trainer, "add_figure"):
            self._try(experiment.add_figure, tag, figure, step, close=False)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if hasattr(logger, "log_image"):
                self._try(logger.log_image, key=tag, images=[_image(figure)], step=step)

    def _try(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return write(*args, **kwargs)
        except Exception as error:  # a full disk, a lost server: none of them may stop training
            owner = getattr(write, "__self__", args[0] if args else None)
            name = f"{type(owner).__name__}.{getattr(write, '__name__', 'write')}"
            self._notices.once(f"fpstab cannot write to {name}: {type(error).__name__}: {error}. Training goes on.")
            return None


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of an `fpstab.jsonl`; lines that a crash cut short are left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


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


def _experiments(trainer: Trainer, method: str) -> Iterator[Any]:
    for logger in trainer.loggers if trainer.is_global_zero else ():
        experiment = getattr(logger, "experiment", None)
        if hasattr(type(experiment), method):  # a dummy answers to any attribute of the instance
            yield experiment


def _image(figure: "Figure") -> Any:
    from PIL import Image

    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=100)
        return Image.open(buffer).copy()
