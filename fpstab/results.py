"""The protocol of results: every analysis says how it went in a `Status`, or raises an `AnalysisError`.

The codes belong to each analysis; `"ok"` is common to all.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Status:
    """How an analysis went.

    Attributes:
        code: `"ok"`, or a short name of what stood in the way (each analysis lists its own).
        message: A sentence that names the layer, the value and the remedy; may be empty when all is well.

    >>> Status("too_few", "12 eigenvalues; an exponent needs at least 20.").ok
    False
    """

    code: str = "ok"
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the analysis gave what it was asked for."""
        return self.code == "ok"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


OK = Status()


class AnalysisError(RuntimeError):
    """An analysis could not give a result. Carries the `Status` that `throw=False` would have returned."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


class Result(Protocol):
    """What every result can say of itself: how it went, and the numbers that are logged."""

    @property
    def status(self) -> Status: ...  # noqa: D102
    def scalars(self) -> dict[str, float]: ...  # noqa: D102
