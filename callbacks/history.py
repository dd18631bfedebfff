"""What a monitor has measured so far."""

import math
import uuid
from typing import Any

_LARGEST = 3.4028234663852886e38  # of float32, in which Lightning keeps metrics


def watchable(value: float) -> bool:
    """Whether a callback that watches the value can be shown it: EarlyStopping stops at an infinity or nan."""
    return math.isfinite(value) and abs(value) <= _LARGEST


class History:
    """The scalars of every measurement of a run, kept through checkpoints and resumes.

    Attributes:
        run: A name of the run, the same after a resume.
        records: `{"step": int, "epoch": int, "phase": str, "failed": bool, "scalars": {key: float}}`, oldest first.
    """

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.records: list[dict[str, Any]] = []
        self._last_finite: dict[str, float] = {}

    def append(self, *, step: int, epoch: int, phase: str, failed: bool, scalars: dict[str, float]) -> None:
        """Add a measurement."""
        record = {"step": step, "epoch": epoch, "phase": phase, "failed": failed, "scalars": dict(scalars)}
        self.records.append(record)
        self._last_finite |= {key: value for key, value in scalars.items() if watchable(value)}

    def last(self, unit: str) -> int | None:
        """Epoch or step of the last scheduled measurement (a baseline is none), or `None`."""
        scheduled = (record for record in reversed(self.records) if record["phase"] == unit)
        return next((int(record[unit]) for record in scheduled), None)

    @property
    def measured(self) -> bool:
        """Whether any measurement succeeded."""
        return any(not record["failed"] for record in self.records)

    @property
    def keys(self) -> list[str]:
        """Every quantity that was measured, finite or not."""
        return list(dict.fromkeys(key for record in self.records for key in record["scalars"]))

    @property
    def last_finite(self) -> dict[str, float]:
        """The latest finite value of every quantity that ever had one."""
        return dict(self._last_finite)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one quantity."""
        found = [(r["step"], r["scalars"][key]) for r in self.records if key in r["scalars"]]
        return [step for step, _ in found], [value for _, value in found]

    def state_dict(self) -> dict[str, Any]:
        """Builtins only: Lightning loads checkpoints with `weights_only`."""
        return {"run": self.run, "records": self.records}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue an earlier run."""
        self.run, self.records, self._last_finite = state["run"], [], {}
        for record in state["records"]:
            self.append(**record)
