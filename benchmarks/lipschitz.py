"""fpstab.lipschitz against cvxpy and eclipse-nn: python benchmarks/lipschitz.py --peer-python PYTHON."""

import argparse
import resource
import subprocess
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path

import cvxpy as cp
import numpy as np
import torch
from timing import clock, interleave, save

from fpstab.lipschitz import certify, conic, head_lipschitz, lipschitz_bound
from fpstab.lipschitz.inequality import Inequality
from fpstab.lipschitz.problem import feedforward
from fpstab.lipschitz.reduction import reduce

HERE = Path(__file__).parent
RELU = (0.0, 1.0)
ECLIPSE = """
import sys, time, numpy as np, torch
from eclipse_nn.LipConstEstimator import LipConstEstimator
torch.set_num_threads(1)
weights = [torch.as_tensor(w) for w in np.load(sys.argv[1]).values()]
start = time.perf_counter()
print(float(LipConstEstimator(weights=weights).estimate(sys.argv[2])), time.perf_counter() - start)
"""


def he(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, m)) * (2 / m) ** 0.5 for m, n in pairwise(sizes)]


def textbook(weights, solver, **options):
    """LipSDP-Neuron for ReLU as it is printed (Fazlyab et al. 2019, Theorem 2): (value, multipliers)."""
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    n_in, hidden = sizes[0], sum(sizes[1:-1])
    A, row, column = np.zeros((hidden, n_in + hidden)), 0, 0
    for w in weights[:-1]:
        A[row : row + len(w), column : column + w.shape[1]] = w
        row, column = row + len(w), column + w.shape[1]
    B = np.hstack([np.zeros((hidden, n_in)), np.eye(hidden)])
    E = np.diag(np.repeat([1.0, 0.0], [n_in, hidden]))
    C = np.hstack([np.zeros((sizes[-1], n_in + hidden - sizes[-2])), weights[-1]])
    rho, multipliers = cp.Variable(nonneg=True), cp.Variable(hidden, nonneg=True)
    T = cp.diag(multipliers)
    AB = np.vstack([A, B])
    M = AB.T @ cp.bmat([[np.zeros((hidden, hidden)), T], [T, -2 * T]]) @ AB - rho * E + C.T @ C
    problem = cp.Problem(cp.Minimize(rho), [(M + M.T) / 2 << 0])
    problem.solve(solver=solver, **options)
    return float(rho.value) ** 0.5, multipliers.value


def reduced(weights):
    """Our reduced inequality through cvxpy and SCS at its defaults: the value, not certified."""
    problem = reduce(feedforward(weights, RELU))
    return conic.solve(Inequality.of(problem), "SCS").rho ** 0.5 * 2.0**problem.exponent


def ours(weights):
    return lipschitz_bound(weights, slopes=RELU)


def row(what, peer, theirs, mine, peer_value="", our_value="", gap=""):
    ratio = theirs / mine if theirs != "" else ""
    return {
        "what": what,
        "peer": peer,
        "peer_seconds": theirs,
        "ours_seconds": mine,
        "ratio": ratio,
        "peer_value": peer_value,
        "our_value": our_value,
        "our_gap": gap,
    }


def compare_cvxpy(repeats):
    cases = [
        ("784-100-10", (784, 100, 10), "reduced cvxpy + SCS", reduced),
        ("10-100-100-10", (10, 100, 100, 10), "textbook cvxpy + SCS", lambda w: textbook(w, cp.SCS)[0]),
        ("784-256-10", (784, 256, 10), "reduced cvxpy + SCS", reduced),
    ]
    for what, sizes, peer, run in cases:
        weights = he(*sizes)
        value, bound = run(weights), ours(weights)
        assert abs(value / bound.value - 1) < 0.01, (value, bound.value)
        times = interleave(
            {
                "theirs": lambda w=weights, run=run: clock(lambda: run(w)),
                "ours": lambda w=weights: clock(lambda: ours(w)),
            },
            repeats,
        )
        yield row(what, peer, times["theirs"], times["ours"], value, bound.value, bound.rel_gap)


def large():
    for sizes in ((784, 512, 512, 10), (784, 128, 32, 128, 784)):
        weights = he(*sizes)
        start = time.process_time()
        bound = ours(weights)
        seconds = time.process_time() - start
        yield row("-".join(map(str, sizes)), "(CPU seconds)", "", seconds, "", bound.value, bound.rel_gap)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    yield row("peak memory so far, GB", "", "", peak)


def compare_eclipse(python):
    cases = {
        "2-50-50-2": (2, 50, 50, 2),
        "10-100-100-10": (10, 100, 100, 10),
        "20-40-40-40-40-40-5": (20, 40, 40, 40, 40, 40, 5),
    }
    for what, sizes in cases.items():
        weights = he(*sizes)
        ours(weights)  # warm
        bound = ours(weights)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "weights.npz")
            np.savez(path, *weights)
            for method in ("ECLipsE", "ECLipsE_Fast"):
                command = [python, "-c", ECLIPSE, path, method]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                value, seconds = map(float, output[-2:])
                yield row(
                    f"{what}: value / {method} = {bound.value / value:.3f}",
                    f"eclipse-nn 0.1.7 {method}",
                    seconds,
                    bound.seconds,
                    value,
                    bound.value,
                    bound.rel_gap,
                )


def heads(repeats):
    W = np.random.default_rng(0).normal(size=(10, 4096))
    value, bound = float(np.linalg.svd(W, compute_uv=False)[0]), head_lipschitz(W)
    times = interleave(
        {
            "theirs": lambda: clock(lambda: np.linalg.svd(W, compute_uv=False)),
            "ours": lambda: clock(lambda: head_lipschitz(W)),
        },
        repeats,
    )
    assert value <= bound.value <= value * (1 + 1e-10)
    yield row("head 10x4096", "numpy svd (no bound)", times["theirs"], times["ours"], value, bound.value)


def scs_multipliers():
    weights = he(4, 30, 20, 3)
    bound = ours(weights)
    raw, multipliers = textbook(weights, cp.SCS)
    certified = certify(weights, RELU, np.split(multipliers, [30]))
    yield row(
        f"4-30-20-3: certificate of SCS's multipliers / optimum = {certified / bound.optimum_lower:.6f}",
        "textbook cvxpy + SCS, raw value",
        "",
        bound.seconds,
        raw,
        certified,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="Python of an environment with eclipse-nn==0.1.7")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for stage in (
        heads(arguments.repeats),
        scs_multipliers(),
        compare_eclipse(arguments.peer_python),
        large(),
        compare_cvxpy(arguments.repeats),  # minutes a run
    ):
        for one in stage:
            rows.append(one)
            save(HERE / "lipschitz.csv", rows)


if __name__ == "__main__":
    main()
