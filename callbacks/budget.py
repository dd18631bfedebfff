"""What a monitor may cost."""

import time


class Budget:
    """Keeps what a monitor spends below a share of the training time.

    Args:
        share: Largest share of the wall-clock time of training, e.g. 0.02; `None` allows everything.

    Raises:
        ValueError: If `share` is not in (0, 1].
    """

    def __init__(self, share: float | None) -> None:
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"budget={share!r}: expected a share of the training time in (0, 1], or None.")
        self.share = share
        self.spent = 0.0  # seconds
        self._earlier = 0.0  # seconds of training before a resume
        self._started: float | None = None

    def __str__(self) -> str:
        return "without limit" if self.share is None else f"{self.share:.3g} of the training time"

    def start(self) -> None:
        """Start the clock of training."""
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._earlier + (time.monotonic() - self._started if self._started is not None else 0.0)

    def allows(self, cost: float) -> bool:
        """Whether `cost` more seconds keep within the share."""
        return self.share is None or self.spent + cost <= self.share * self.elapsed

    def state_dict(self) -> dict[str, float]:
        """Seconds spent and elapsed."""
        return {"spent": self.spent, "elapsed": self.elapsed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue the account of an earlier run."""
        self.spent, self._earlier, self._started = state["spent"], state["elapsed"], None
