"""The census of random networks against one network at a time, in processor time.

Three peers: the papers' search as one would write it (all starts to the end, then the orbits that are left, for cycles),
the same with finished starts leaving and without cycles, and this package's own search in one network.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from timing import interleave, save
from torch import Tensor, nn

from fpstab.ensembles import RandomNetworks
from fpstab.ensembles.census import fixed_point_census, grid
from fpstab.fixed_points import OUTCOMES, find_fixed_points
from fpstab.fixed_points.grouping import group

STEP, ITERATIONS, GROUP = 1e-5, 50, 1e-3
SETTLE, PERIOD = 240, 24  # as many further iterations as the census takes at most


def plain(net: nn.Module) -> tuple[int, Tensor]:
    """Number of limits, and which starts converge: no start leaves, and all are followed for cycles."""
    x = grid()
    with torch.no_grad():
        converged = torch.zeros(len(x), dtype=torch.bool)
        limit = x
        for _ in range(ITERATIONS):
            y = net(x)
            now = (torch.linalg.vector_norm(y - x, dim=1) < STEP) & ~converged
            limit = torch.where(now[:, None], y, limit)
            converged |= now
            x = y
        for _ in range(SETTLE - PERIOD):
            x = net(x)
        anchor, period = x, torch.zeros(len(x))
        for p in range(1, PERIOD + 1):
            x = net(x)
            back = torch.linalg.vector_norm(x - anchor, dim=1) < STEP
            period = torch.where((period == 0) & back, p, period)
    return count(limit[converged]), converged


def leaving(net: nn.Module) -> tuple[int, Tensor]:
    """The same without cycles; finished starts leave."""
    x, rows = grid(), torch.arange(len(grid()))
    converged, limit = torch.zeros(len(x), dtype=torch.bool), grid()
    with torch.no_grad():
        for _ in range(ITERATIONS):
            y = net(x)
            done = torch.linalg.vector_norm(y - x, dim=1) < STEP
            converged[rows[done]], limit[rows[done]] = True, y[done]
            x, rows = y[~done], rows[~done]
            if not len(rows):
                break
    return count(limit[converged]), converged


def own(net: nn.Module) -> tuple[int, Tensor]:
    """`find_fixed_points` with the papers' rule: it polishes and classifies, too, and looks for no cycles."""
    found = find_fixed_points(net, grid(), rule="paper", throw=False)
    return found.rule_count or 0, found.outcome == OUTCOMES.index("fixed")


def count(limits: Tensor) -> int:
    return len(group(limits, torch.zeros(len(limits), dtype=torch.float64), threshold=GROUP)[0])


def processor(run: Callable[[], Any]) -> float:
    """Seconds of processor time: other processes on the machine do not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--networks", type=int, default=1000, help="of the census; of these the loops take some")
    parser.add_argument("--looped", type=int, default=40, help="networks that the loops are timed on")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for depth in arguments.depths:
        batch = RandomNetworks(depth).from_seeds(range(arguments.looped))
        nets = [batch.network(i) for i in range(len(batch))]
        census = fixed_point_census(batch)
        loops = {"plain": plain, "leaving": leaving, "find_fixed_points": own}
        for name, loop in loops.items():  # outputs first
            for i, net in enumerate(nets):
                q, converged = loop(net)
                assert q == int(census.q[i]), (name, i)
                assert torch.equal(converged, census.outcome[i] == OUTCOMES.index("fixed")), (name, i)

        def all_of(loop: Callable[[nn.Module], Any], nets: list[nn.Sequential] = nets) -> Callable[[], float]:
            return lambda: processor(lambda: [loop(net) for net in nets])

        timers = {name: all_of(loop) for name, loop in loops.items()}
        timers["census"] = lambda batch=batch: processor(lambda: fixed_point_census(batch))  # type: ignore[misc]
        seconds = {name: value / len(nets) for name, value in interleave(timers, arguments.repeats).items()}
        many = RandomNetworks(depth).from_seeds(range(arguments.networks))
        whole = processor(lambda many=many: fixed_point_census(many)) / arguments.networks  # type: ignore[misc]
        rows.append(
            {"depth": depth, "networks": len(nets), "census_ms": 1e3 * seconds["census"]}
            | {f"{name}_ms": 1e3 * seconds[name] for name in loops}
            | {f"{name}_ratio": seconds[name] / seconds["census"] for name in loops}
            | {"many": arguments.networks, "census_of_many_ms": 1e3 * whole}
        )
    save(Path(__file__).with_suffix(".csv"), rows)


if __name__ == "__main__":
    main()
