"""EarlyStopping and ModelCheckpoint stop training with an error when the key that they watch has no value."""

from typing import Any

import torch

from fpstab.callbacks._lightning import Trainer
from fpstab.callbacks.history import History

# The public switch by which each kind of callback can be told to wait.
_SWITCHES = {"strict": False, "save_top_k": 0}


class Watchers:
    """Keeps a value below every key of a monitor that another callback watches, or has that callback wait.

    Between measurements, after one that failed and after a resume, the last finite value stays in force. A key
    that never had one (the first measurement failed; a layer has no exponent yet) is the harder case: nan would
    make EarlyStopping stop, and a missing key makes both kinds raise. So their callbacks are held back,
    EarlyStopping by `strict=False`, ModelCheckpoint by `save_top_k=0`, until there is a value.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Any, str, Any]] = []

    def update(self, trainer: Trainer, prefix: str, history: History) -> list[str]:
        """Bring `callback_metrics` and the callbacks that watch them up to date; returns what to say of it."""
        for key, value in history.last_finite.items():
            trainer.callback_metrics.setdefault(key, torch.tensor(value))
        self.release()
        notices = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            key = str(getattr(callback, "monitor", None))
            if not key.startswith(prefix) or key in trainer.callback_metrics:
                continue
            if history.measured and key not in history.keys:
                continue  # misspelt: Lightning's own error lists the keys
            for switch in _SWITCHES.keys() & vars(callback).keys():
                self._held.append((callback, switch, getattr(callback, switch)))
                setattr(callback, switch, _SWITCHES[switch])
            notices.append(f"{type(callback).__name__}(monitor={key!r}) waits: that key has had no value yet.")
        return notices

    def release(self) -> None:
        """Set every callback back."""
        for callback, switch, value in self._held:
            setattr(callback, switch, value)
        self._held.clear()
