"""Censuses of random networks in blocks, and what they add up to."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpstab.experiments.blocks import Backend, Progress, run_blocks, split

SHARES = ("fixed", "cycle", "slow", "bounded", "diverged", "nonfinite")
_BLOCK = 25  # networks


@dataclass(frozen=True, slots=True)
class Tally:
    """Networks of one law, counted.

    Attributes:
        law: The arguments of `RandomNetworks`.
        seeds: Of each network, for `RandomNetworks.from_seeds`.
        q: Fixed points found in each.
        stable: Those with ρ(J) < 1.
        shares: The share of each network's starts by outcome, see `fpstab.fixed_points.OUTCOMES`.
    """

    law: dict[str, Any]
    seeds: tuple[int, ...]
    q: tuple[int, ...]
    stable: tuple[int, ...]
    shares: dict[str, tuple[float, ...]]

    def __len__(self) -> int:
        return len(self.q)

    @property
    def mode(self) -> int:
        """The commonest Q; the smallest of several."""
        counts = Counter(self.q)
        return min(counts, key=lambda q: (-counts[q], q))

    @property
    def partitioned(self) -> float:
        """The share of networks all of whose starts converge: only there do basins partition the square."""
        return self.having(share == 1 for share in self.shares["fixed"])

    def p(self, q: int) -> float:
        """The share of networks with Q fixed points."""
        return self.having(each == q for each in self.q)

    def p_error(self, q: int) -> float:
        """The standard error of that share."""
        return math.sqrt(self.p(q) * (1 - self.p(q)) / len(self))

    def lead(self, q: int, other: int) -> float:
        """How much commoner one Q is than another, in standard errors of the difference (of the same sample)."""
        difference = self.p(q) - self.p(other)
        spread = self.p(q) + self.p(other) - difference**2
        return difference / math.sqrt(max(spread, 1 / len(self)) / len(self))

    def having(self, what: Iterable[bool]) -> float:
        """The share of networks for which something is so."""
        return sum(what) / len(self)

    def row(self) -> dict[str, Any]:
        """A row of a table: Q, and the outcomes, with standard errors."""
        fixed, any_cycle = self.shares["fixed"], [share > 0 for share in self.shares["cycle"]]
        none_left = [share > 0 for share in self.shares["bounded"]]
        mean, error = mean_and_error(self.q)
        converged, converged_error = mean_and_error(fixed)
        at_least = {"p4": self.p(4), "p5_or_more": self.having(q >= 5 for q in self.q)}
        return {
            **self.law,
            "networks": len(self),
            "q_mean": mean,
            "q_error": error,
            "mode": self.mode,
            **{f"p{q}": self.p(q) for q in range(4)},
            **at_least,
            "stable_mean": mean_and_error(self.stable)[0],
            "converged": converged,
            "converged_error": converged_error,
            "all_converged": self.partitioned,
            "any_cycle": self.having(any_cycle),
            "any_chaos_or_long_period": self.having(none_left),
            **{f"share_{name}": statistics.fmean(self.shares[name]) for name in SHARES[1:]},
        }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; nan of a single value.

    >>> mean_and_error([1, 3])
    (2.0, 1.0)
    """
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def first_seed(seed: int, depth: int) -> int:
    """The seed of the first network of a depth, so that no two depths share one."""
    return 10**8 * seed + 10**6 * depth


def tallies(
    laws: Sequence[dict[str, Any]],
    networks: int,
    *,
    seed: int,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> list[Tally]:
    """Count the fixed points of networks of some laws.

    Args:
        laws: Arguments of `RandomNetworks`, with `depth`.
        networks: Of each law.
        seed: Of the study; that of a network follows by `first_seed`.
        out: See `run_blocks`.
        jobs: See `run_blocks`.
        backend: See `run_blocks`.
        progress: See `run_blocks`.

    Raises:
        ValueError: If there is no network to count, or a law is none.
    """
    from fpstab.ensembles import RandomNetworks

    for law in laws:
        RandomNetworks(**law)  # refuses before any work is done
    pieces = split(networks, _BLOCK)
    settings = [
        law | {"first": first_seed(seed, law["depth"]) + first, "count": count}
        for law in laws
        for first, count in pieces
    ]
    found = run_blocks(census_block, settings, out=out, jobs=jobs, backend=backend, progress=progress)
    groups = [found[i * len(pieces) : (i + 1) * len(pieces)] for i in range(len(laws))]
    return [_tally(law, group) for law, group in zip(laws, groups, strict=True)]


def census_block(*, first: int, count: int, **law: Any) -> dict[str, Any]:
    """The census of networks with consecutive seeds: of each, Q, the stable ones, and shares of starts by outcome.

    Args:
        first: The first seed.
        count: Networks.
        law: Arguments of `RandomNetworks`.
    """
    from fpstab.ensembles import RandomNetworks
    from fpstab.ensembles.census import fixed_point_census

    census = fixed_point_census(RandomNetworks(**law).from_seeds(range(first, first + count)))
    return {
        "seeds": list(range(first, first + count)),
        "q": census.q.tolist(),
        "stable": census.q_stable.tolist(),
        "shares": {name: census.share(name).tolist() for name in SHARES},
    }


def _tally(law: dict[str, Any], blocks: Sequence[dict[str, Any]]) -> Tally:
    def joined(key: str) -> tuple[int, ...]:
        return tuple(value for block in blocks for value in block[key])

    shares = {name: tuple(value for block in blocks for value in block["shares"][name]) for name in SHARES}
    return Tally(law, joined("seeds"), joined("q"), joined("stable"), shares)
