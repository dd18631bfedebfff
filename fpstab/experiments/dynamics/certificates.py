"""Certificates of the networks of paper 3 against what long simulation sees of them."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.stability import StabilityCertificate, stability_criteria
from fpstab.stability.attractors import default_starts
from fpstab.stability.stacked_attractors import StackAttractors
from fpstab.stability.stacks import ChainStack

LONGEST = 60_000
"""Iterations of a simulation at most: enough for a proved rate of 0.9994."""

_FAR = 1000.0  # further starts, this far from the origin
_TOGETHER = 1e-6  # relative distance at which orbits have come together
_PAIRS = 500
_SLACK = 1e-9
_BESIDE = 1e-9


@dataclass(frozen=True, slots=True)
class Judged:
    """The certificates of one network.

    Attributes:
        holding: Names of those that hold.
        value: The least value of a global one; inf if none has a value.
        false: Names of those that simulation contradicts, with what it saw.
        simulated: Iterations of the simulation of a global certificate; 0 if none holds.
    """

    holding: tuple[str, ...]
    value: float
    false: tuple[str, ...]
    simulated: int

    @property
    def certified(self) -> bool:
        """Whether a global certificate holds."""
        return any(name.startswith(("R1", "R2", "R3", "R4")) for name in self.holding)


def judge_stack(
    stack: ChainStack,
    found: StackAttractors,
    *,
    quadratic: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[Judged]:
    """Certify each chain, and try to refute what is certified.

    A global certificate is refuted by an orbit, from 24 starts in [−6, 6]² or eight at a distance of 1,000, that has not
    come to the others when the certified rate allows no difference any more (60,000 iterations at most), by a label other
    than one fixed point for all starts, and R1 and R2 by a pair of points that comes closer by less than they prove. A local
    certificate is refuted by a start beside its fixed point that does not come to it; R6 by a fixed point that is not 0.

    Args:
        stack: The chains.
        found: Their attractors.
        quadratic: Whether to solve the programs of R3 and R4.
        progress: Called with the number of chains that are certified.
    """
    starts = default_starts(stack.n)
    reports: list[tuple[StabilityCertificate, ...]] = []
    for i in range(len(stack)):
        points = torch.cat((found.points[i][:8], starts[:4]))
        report = stability_criteria(stack.network(i), points=points, quadratic=quadratic, throw=False)
        reports.append(report.certificates)
        if progress is not None:
            progress(i + 1)
    values = [_least(each) for each in reports]
    certified = [i for i, value in enumerate(values) if value < 1]
    steps, spread = _simulate(stack, certified, [values[i] for i in certified])
    local = _local(stack, reports, found.points)
    judged = []
    for i, each in enumerate(reports):
        holding = tuple(one.name for one in each if one.holds)
        false = list(_one_step(stack.select([i]), each))
        if i in spread:
            if not spread[i] <= _TOGETHER:
                false += [f"{name}: orbits stay {spread[i]:.3g} apart" for name in holding if _is_global(name)]
            if set(found.counts[i]) - {"fixed", "slow", "undetermined"} or found.labels[i] in ("multiple", "line"):
                false += [f"{name}: the label is {found.labels[i]}" for name in holding if _is_global(name)]
        false += local.get(i, [])
        judged.append(Judged(holding, values[i], tuple(false), steps.get(i, 0)))
    return judged


def count(judged: Sequence[Judged]) -> dict[str, int]:
    """How many networks have which certificate; local ones are counted once a network, as `R5`."""
    found = Counter(name for each in judged for name in {_family(name) for name in each.holding})
    return {name: found[name] for name in sorted(found)}


def _family(name: str) -> str:
    return "R5" if name.startswith("R5") else name


def _is_global(name: str) -> bool:
    return name.startswith(("R1", "R2", "R3", "R4"))


def _least(certificates: Sequence[StabilityCertificate]) -> float:
    return min((each.value for each in certificates if each.holds and each.scope == "global"), default=math.inf)


def _simulate(
    stack: ChainStack, chains: Sequence[int], values: Sequence[float]
) -> tuple[dict[int, int], dict[int, float]]:
    """Iterations of each certified chain, and how far apart its orbits are then, relative to their size."""
    angle = torch.arange(8, dtype=torch.float64) * (torch.pi / 4)
    far = _FAR * torch.stack((angle.cos(), angle.sin()), 1)
    starts = torch.cat((default_starts(stack.n), far)) if stack.n == 2 else default_starts(stack.n)
    # a factor of 1e-20 from a size of 1e3: also where a quadratic norm is far from the Euclidean one
    needed = [_steps(value, 1e-20) for value in values]
    x = _iterate(stack, chains, starts.expand(len(chains), *starts.shape), needed)
    spread = {}
    for i, points in zip(chains, x, strict=True):
        spread[i] = float(torch.pdist(points).max()) / (1.0 + float(points.norm(dim=1).max()))
    return dict(zip(chains, needed, strict=True)), spread


def _steps(value: float, factor: float) -> int:
    """Iterations after which a proved rate allows `factor` at most, and some more; at most `LONGEST`."""
    return 64 if value <= 0 else min(LONGEST, 64 + math.ceil(math.log(factor) / math.log(value)))


def _iterate(stack: ChainStack, chains: Sequence[int], starts: Tensor, needed: Sequence[int]) -> Tensor:
    """Points `[C, P, n]` of chains (which may repeat), each after as many iterations as it needs."""
    x, done = starts.clone(), 0
    for stop in sorted(set(needed)):
        running = [row for row, need in enumerate(needed) if need >= stop]
        x[running] = stack.select([chains[row] for row in running]).iterate(x[running], stop - done)
        done = stop
    return x


def _one_step(chain: ChainStack, certificates: Sequence[StabilityCertificate]) -> list[str]:
    """R1: ‖f(x) − f(y)‖ ≤ value·‖x − y‖; R2: ‖f(x)‖ ≤ value·‖x‖; at random points, near and far."""
    generator = torch.Generator().manual_seed(1)
    size = 10 ** torch.linspace(-3, 3, _PAIRS, dtype=torch.float64)[:, None]
    x, y = (size * torch.randn(_PAIRS, chain.n, generator=generator, dtype=torch.float64) for _ in range(2))
    fx, fy = chain(x)[0], chain(y)[0]
    false = []
    for each in certificates:
        if not each.holds or each.name[:2] not in ("R1", "R2"):
            continue
        p = float(each.name[3:])
        before, after = (x - y, fx - fy) if each.name.startswith("R1") else (x, fx)
        over = after.norm(p=p, dim=1) - each.value * before.norm(p=p, dim=1)
        if bool((over > _SLACK * (1 + before.norm(dim=1))).any()):
            false.append(f"{each.name}: two points come closer by less")
    return false


def _local(
    stack: ChainStack, reports: Sequence[Sequence[StabilityCertificate]], points: Sequence[Tensor]
) -> dict[int, list[str]]:
    """What is false of the certificates that are local, or count fixed points, by chain."""
    false: dict[int, list[str]] = {}
    cases: list[tuple[int, StabilityCertificate, Tensor]] = []
    for i, (each, known) in enumerate(zip(reports, points, strict=True)):
        for one in each:
            if one.holds and one.name.startswith("R6") and bool((known.norm(dim=1) > 1e-6).any()):
                false.setdefault(i, []).append(f"{one.name}: a fixed point that is not 0")
            if one.holds and one.scope == "local" and len(known):
                distance = (known - _written(one.statement)).norm(dim=1)
                cases.append((i, one, known[distance.argmin()]))
    if not cases:
        return false
    at = torch.stack([point for _, _, point in cases])
    reach = _BESIDE * (1.0 + at.norm(dim=1))
    starts = at[:, None] + reach[:, None, None] * torch.eye(stack.n, dtype=at.dtype)
    end = _iterate(stack, [i for i, _, _ in cases], starts, [_steps(one.value, 1e-6) for _, one, _ in cases])
    missed = ((end - at[:, None]).norm(dim=2) > 0.1 * reach[:, None]).any(1)
    for (i, one, _), wrong in zip(cases, missed.tolist(), strict=True):
        if wrong:
            false.setdefault(i, []).append(f"{one.name}: a start beside the fixed point does not come to it")
    return false


def _written(statement: str) -> Tensor:
    """The fixed point that a local certificate names, to its six digits."""
    numbers = statement[statement.rfind("x̂ = (") + 5 :].strip("().").split(",")
    return torch.tensor([float(each) for each in numbers], dtype=torch.float64)
