"""Where results go besides Lightning's own log: JSON lines, and what a logger can do by its capabilities."""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.board import write_layout, write_meanings
from fpstab.callbacks.history import watchable
from fpstab.callbacks.notices import Notices
from fpstab.callbacks.starts import start_of
from fpstab.records.lines import FILE_NAME, append_line, read_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def open(self, trainer: Trainer, module: LightningModule) -> str:
        """Find the log folder, arrange the charts of all monitors, and note what is started. To be called on every process.

        Returns:
            The name of the run: one for all monitors, and that of before if one of them has measured before.
        """
        monitors = [each for each in trainer.callbacks if isinstance(getattr(each, "_sinks", None), Sinks)]  # type: ignore[attr-defined]
        histories = [each.history for each in monitors]
        measured = [each for each in histories if each.records] if trainer.global_step else []
        run = str((measured or histories)[0].run)
        folder = trainer.log_dir or trainer.default_root_dir  # a broadcast: on every process
        self.path, self._known = None, set()
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.path = Path(os.fspath(folder)) / FILE_NAME
            if monitors[0]._sinks is self:
                self.line(
                    {"run": run, "start": start_of(trainer, module) | {"monitors": [m.state_key for m in monitors]}}
                )
                self._continue(run, {each.state_key: each.history.records for each in monitors})
                for logger in trainer.loggers:
                    self.attempt(write_layout, logger, [(each.analysis, each.name) for each in monitors])
        return run

    def _continue(self, run: str, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Write what a checkpoint remembers and the file does not hold: after a resume it often is a new one."""
        if self.path is None or not any(histories.values()):
            return
        try:
            lines = read_lines(self.path)
        except OSError:  # the start could not be written either, and that has been said
            return
        found = {(str(line.get("monitor")), line.get("step")) for line in lines if line.get("run") == run}
        for monitor, records in histories.items():
            for record in records:
                if (monitor, record["step"]) not in found:
                    origin = {"run": run, "monitor": monitor, "time": None}
                    self.line(origin | dict(record) | {"message": "remembered by the checkpoint", "result": None})

    def line(self, record: Mapping[str, Any]) -> None:
        """Append one record to `fpstab.jsonl`."""
        if self.path is None:
            return
        try:
            append_line(self.path, record)
        except Exception as error:  # a full disk, a folder that is gone or read-only: none of them may stop training
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
            if watchable(value):
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
            told = first and self.attempt(write_meanings, logger, self._analysis, first, trainer.global_step)
            rest = {key: value for key, value in direct.items() if key not in first} if told else direct
            if rest:
                self.attempt(logger.log_metrics, metrics=rest, step=trainer.global_step)
        self._known |= scalars.keys()

    def histograms(self, trainer: Trainer, prefix: str, values: Mapping[str, Tensor], step: int) -> None:
        """Write histograms to every logger that takes them."""
        for experiment in _experiments(trainer, "add_histogram"):
            for tag, tensor in values.items():
                self.attempt(experiment.add_histogram, prefix + tag, tensor, step)

    def figure(self, trainer: Trainer, tag: str, figure: "Figure", step: int) -> None:
        """Write a figure to every logger that takes figures (TensorBoard) or images (`log_image`, as W&B)."""
        for experiment in _experiments(trainer, "add_figure"):
            self.attempt(experiment.add_figure, tag, figure, step, close=False)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if hasattr(logger, "log_image"):
                self.attempt(logger.log_image, key=tag, images=[_image(figure)], step=step)

    def attempt(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what may fail; returns `None` if it does, which is said once."""
        try:
            return write(*args, **kwargs)
        except Exception as error:  # a full disk, a lost server: none of them may stop training
            owner = getattr(write, "__self__", args[0] if args else None)
            name = f"{type(owner).__name__}.{getattr(write, '__name__', 'write')}"
            self._notices.once(f"fpstab cannot write to {name}: {type(error).__name__}: {error}. Training goes on.")
            return None


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
