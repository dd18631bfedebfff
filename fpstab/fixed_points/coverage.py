"""How much of what there is has been found: Good–Turing coverage and Chao's estimate, per source of starts."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """What the starts of one source say about what they did not find. They must be independent draws from one law.

    Attributes:
        n_starts: Starts of this source.
        n_settled: Those that went to a fixed point.
        n_found: Different fixed points that they went to.
        singletons: Fixed points that one start went to.
        doubletons: Fixed points that two starts went to.
        coverage: Good–Turing estimate of the share of settling starts whose fixed point is known,
            1 − singletons/n_settled; `None` without settled starts.
        chao1: Chao's estimate (bias-corrected) of how many fixed points such starts go to; a lower bound in
            expectation. `None` without settled starts.
        chao1_interval: Its 95 % interval, log-normal (Chao 1987).
    """

    n_starts: int
    n_settled: int
    n_found: int
    singletons: int
    doubletons: int
    coverage: float | None
    chao1: float | None
    chao1_interval: tuple[float, float] | None


def coverage_of(labels: Sequence[int]) -> Coverage:
    """The coverage of the starts of one source.

    Args:
        labels: Of each start its fixed point, −1 for none.

    >>> seen = coverage_of([0, 0, 0, 1, 1, 2, -1])
    >>> seen.n_found, seen.singletons, round(seen.coverage, 3), seen.chao1
    (3, 1, 0.833, 3.0)
    """
    counts = Counter(label for label in labels if label >= 0)
    settled, found = counts.total(), len(counts)
    f1 = sum(count == 1 for count in counts.values())
    f2 = sum(count == 2 for count in counts.values())
    if not settled:
        return Coverage(len(labels), 0, 0, 0, 0, None, None, None)
    share = (settled - 1) / settled
    unseen = share * f1 * (f1 - 1) / (2 * (f2 + 1))
    variance = (
        share * f1 * (f1 - 1) / (2 * (f2 + 1))
        + share**2 * f1 * (2 * f1 - 1) ** 2 / (4 * (f2 + 1) ** 2)
        + share**2 * f1**2 * f2 * (f1 - 1) ** 2 / (4 * (f2 + 1) ** 4)
    )
    interval = (float(found), float(found))
    if unseen > 0:
        spread = math.exp(_Z * math.sqrt(math.log1p(variance / unseen**2)))
        interval = (found + unseen / spread, found + unseen * spread)
    return Coverage(len(labels), settled, found, f1, f2, 1 - f1 / settled, found + unseen, interval)


def coverage_by_source(labels: Sequence[int], sources: Iterable[Hashable] | None) -> dict[str, Coverage]:
    """The coverage of each source by its name, in alphabetical order; of one called `"starts"` without sources."""
    by_source: dict[str, list[int]] = {}
    names = ["starts"] * len(labels) if sources is None else [str(source) for source in sources]
    for name, label in zip(names, labels, strict=True):
        by_source.setdefault(name, []).append(label)
    return {name: coverage_of(by_source[name]) for name in sorted(by_source)}
