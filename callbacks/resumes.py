"""What a resumed training leaves out."""

from fpstab.callbacks._lightning import Trainer
from fpstab.callbacks.every import Every
from fpstab.callbacks.history import History


def left_out(trainer: Trainer, every: Every, history: History) -> int | None:
    """The epoch of a measurement that is due where a checkpoint was written, and that nobody makes after a resume.

    A checkpoint of the last step of an epoch is written before the validation, which Lightning does not repeat when it
    resumes; one of any step may be written by a callback that stands before the monitor.

    Args:
        trainer: At the start of training, or of its first batch.
        every: The schedule.
        history: What the checkpoint remembers.

    Returns:
        The epoch, `None` if nothing is left out.
    """
    loop = trainer.fit_loop
    ended = trainer.global_step > 0 and loop.epoch_loop.batch_progress.is_last_batch
    epoch = trainer.current_epoch - 1 if ended else trainer.current_epoch
    if every.unit == "step":
        due = trainer.global_step > 0 and every.due(trainer.global_step, history.last("step"))
    else:
        validated = trainer.check_val_every_n_epoch if trainer.enable_validation else 1
        looked_at = ended and validated is not None and trainer.current_epoch % validated == 0
        due = looked_at and every.due(epoch, history.last("epoch"))
    return epoch if due else None
