"""The rule by which a sample decides between what a paper prints and what stands in its place here."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fpstab.experiments.claims import Verdict

ERRORS = 4.0
"""Standard errors that a sample may be off."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A mean with its standard error.

    Attributes:
        mean: Of the draws.
        error: Its standard error; 0 for what is exact.
        count: How many draws.
    """

    mean: float
    error: float
    count: int

    def agrees(self, value: float, relative: float) -> bool:
        """Whether a value lies within four standard errors plus a share of its own size.

        >>> Sampled(1.0, 0.01, 5).agrees(1.05, 0.02)
        True
        """
        return abs(self.mean - value) <= ERRORS * self.error + relative * abs(value)

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.error:.1g}"


def sampled(values: Sequence[float]) -> Sampled:
    """The mean of draws, two or more.

    >>> sampled([1.0, 3.0])
    Sampled(mean=2.0, error=1.0, count=2)
    """
    return Sampled(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)), len(values))


def decide(measured: Sampled, ours: float, printed: float, relative: float) -> Verdict:
    """The verdict of a sample.

    `"reproduced"` if it agrees with the printed number, and with ours only if that is the same; `"corrected"` if it agrees
    with ours and not with the printed one; `"inconclusive"` if it agrees with two different numbers; `"not reproduced"`
    if with neither.

    Args:
        measured: What was measured.
        ours: What stands here in place of the printed number.
        printed: The printed number.
        relative: The tolerance beyond four standard errors, as a share of each number: what the finite size costs.

    >>> decide(Sampled(2.0, 0.01, 9), 2.01, 3.0, 0.01)
    'corrected'
    """
    as_printed, as_ours = measured.agrees(printed, relative), measured.agrees(ours, relative)
    if as_printed and as_ours:
        return "reproduced" if math.isclose(ours, printed, rel_tol=1e-9) else "inconclusive"
    if as_printed:
        return "reproduced"
    return "corrected" if as_ours else "not reproduced"


def rule(sample: str, relative: float) -> str:
    """The same rule in words, for a claim.

    Args:
        sample: What is drawn, and how often.
        relative: As for `decide`.
    """
    return f"{sample}; a number agrees within 4 standard errors + {relative:.0%} of itself."
