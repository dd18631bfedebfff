"""fpstab.orbits against plain numpy, its growth and memory, and what a look at a ResNet costs: python benchmarks/orbits.py.

CPU seconds of one thread. The naive versions use direct float64 differences throughout, so results must be equal.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from timing import interleave, save

from fpstab.lipschitz import head_lipschitz
from fpstab.models import EqualWidthResNet
from fpstab.orbits import Orbits, expansivity, observe, orbit_report, shadowing

HERE = Path(__file__).parent
STATES, OUTPUTS, CLASSES = 17, 10, 10


def cpu(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def sample(n, seed=0):
    """Probabilities that grow surer of their class from state to state."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    z = 3 * rng.normal(size=(n, STATES, OUTPUTS))
    z[np.arange(n), :, labels] += np.linspace(0, 8, STATES)
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True), labels


def ours(outputs, labels):
    orbits = Orbits(outputs, labels)
    return expansivity(orbits), shadowing(orbits)


def loop_expansive(outputs, labels):
    """One image against all later ones at a time."""
    matrices = np.full((3, CLASSES, CLASSES), np.inf)
    members = [labels == c for c in range(CLASSES)]
    for i in range(len(outputs) - 1):
        d = np.sqrt(((outputs[i + 1 :] - outputs[i]) ** 2).sum(-1))
        for k, measure in enumerate((d.max(1), d.min(1), d.mean(1))):
            for c in range(CLASSES):
                chosen = measure[members[c][i + 1 :]]
                if len(chosen):
                    a, b = sorted((labels[i], c))
                    matrices[k, a, b] = matrices[k, b, a] = min(matrices[k, a, b], chosen.min())
    return matrices


def loop_shadowing(outputs):
    """One start at a time."""
    n = len(outputs)
    chains, deltas, tracers, epsilons = np.empty((n, STATES), int), np.zeros(n), np.empty(n, int), np.empty(n)
    for start in range(n):
        visited = np.zeros(n, bool)
        chains[start, 0] = here = start
        for t in range(STATES - 1):
            visited[here] = True
            step = np.sqrt(((outputs[:, 0] - outputs[here, 1]) ** 2).sum(-1))
            step[visited] = np.inf
            chains[start, t + 1] = here = step.argmin()
            deltas[start] = max(deltas[start], step[here])
        worst = np.sqrt(((outputs - outputs[chains[start], 0]) ** 2).sum(-1)).max(1)
        tracers[start] = worst.argmin()
        epsilons[start] = worst[tracers[start]]
    return chains, deltas, tracers, epsilons


def growing(outputs, labels):
    """All distances of all pairs, in an array that grows by one image at a time; then the chains."""
    distances, pairs = np.empty((0, STATES)), np.empty((0, 2), int)
    for i in range(len(outputs) - 1):
        d = np.sqrt(((outputs[i + 1 :] - outputs[i]) ** 2).sum(-1))
        distances = np.append(distances, d, 0)
        pairs = np.append(pairs, np.stack((np.full(len(d), labels[i]), labels[i + 1 :]), 1), 0)
    matrices = np.full((3, CLASSES, CLASSES), np.inf)
    for k, measure in enumerate((distances.max(1), distances.min(1), distances.mean(1))):
        for a in range(CLASSES):
            for b in range(CLASSES):
                chosen = measure[(pairs == (a, b)).all(1) | (pairs == (b, a)).all(1)]
                matrices[k, a, b] = chosen.min()
    return matrices, loop_shadowing(outputs)


def agree(found, matrices, chains):
    expansive, shadow = found
    for constant, matrix in zip((expansive.definition, expansive.block, expansive.mean), matrices, strict=True):
        np.testing.assert_allclose(constant.matrix, matrix, rtol=1e-12)
    np.testing.assert_array_equal(shadow.chains, chains[0])
    np.testing.assert_array_equal(shadow.tracers, chains[2])
    np.testing.assert_allclose(shadow.deltas, chains[1], rtol=1e-12)
    np.testing.assert_allclose(shadow.epsilons, chains[3], rtol=1e-12)


def against_numpy(repeats):
    for name, n in (("per-sample numpy loop", 4000), ("growing arrays", 1000)):
        outputs, labels = sample(n)
        if name == "growing arrays":
            naive = lambda o=outputs, c=labels: growing(o, c)  # noqa: E731
            agree(ours(outputs, labels), *naive())
        else:
            naive = lambda o=outputs, c=labels: (loop_expansive(o, c), loop_shadowing(o))  # noqa: E731
            agree(ours(outputs, labels), *naive())
        times = interleave(
            {"ours": lambda o=outputs, c=labels: cpu(lambda: ours(o, c)), "naive": lambda f=naive: cpu(f)}, repeats
        )
        yield row(f"three constants, chains and tracing, N={n}", name, times["naive"], times["ours"])


def growth(repeats):
    sizes = (2500, 5000, 10000)
    data = {n: sample(n) for n in sizes}
    for what, run in (
        ("constants with matrices", lambda o, c: expansivity(Orbits(o, c))),
        ("chains and tracing", lambda o, c: shadowing(Orbits(o, c))),
        ("all", ours),
    ):
        times = interleave({n: lambda n=n, run=run: cpu(lambda: run(*data[n])) for n in sizes}, repeats)
        for n in sizes:
            yield row(f"{what}, N={n}", "itself at N=2500", times[2500], times[n])


def memory():
    """In a process of its own: how far the analysis raises the peak beyond the observations."""
    code = "import sys; sys.path.insert(0, {!r}); import orbits; orbits.raise_peak()".format(str(HERE))  # noqa: UP032
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    yield {
        "what": "extra memory, all, N=10000 (MB)",
        "peer": "",
        "peer_seconds": "",
        "ours_seconds": float(out),
        "ratio": "",
    }


def raise_peak():
    ours(*sample(200))
    orbits = Orbits(*sample(10000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expansivity(orbits)
    shadowing(orbits)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def monitor(repeats):
    x, y = torch.rand(512, 3, 32, 32), torch.arange(512) % 10
    for depth in (18, 50):
        net = EqualWidthResNet(depth).eval()

        def forward(net=net):
            with torch.no_grad():
                for part in x.split(128):
                    net(part)

        def measure(net=net):
            weight = net.head.weight.detach()
            bounds = {"logits": head_lipschitz(weight), "probabilities": head_lipschitz(weight, softmax=True)}
            orbit_report(observe(net, (x, y)), lipschitz=bounds)

        times = interleave(
            {
                "forward": lambda: cpu(forward),
                "observe": lambda net=net: cpu(lambda: observe(net, (x, y))),
                "measure": lambda: cpu(measure),
            },
            repeats,
        )
        name = f"ResNet-{depth}, 512 images"
        yield row(f"observations, {name}", "their forwards", times["forward"], times["observe"])
        yield row(f"one measurement, {name}", "their forwards", times["forward"], times["measure"])


def row(what, peer, theirs, mine):
    return {"what": what, "peer": peer, "peer_seconds": theirs, "ours_seconds": mine, "ratio": theirs / mine}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = [*memory(), *monitor(repeats), *growth(repeats), *against_numpy(repeats)]
    save(HERE / "orbits.csv", rows)


if __name__ == "__main__":
    main()
