"""fpstab.equilibrium against torchdeq 0.1.0: python benchmarks/equilibrium.py --peer-python PYTHON.

Layers of both, with their defaults but for solver, tolerance and iterations: one thread, CPU seconds, interleaved. The
peer stops at a relative residual of 1e-5 of the slowest sample. Our tolerance, which has an absolute part, is lowered
until no sample may stop above that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timing import interleave, save

from fpstab.equilibrium import Anderson, Broyden, FixedPointLayer, Picard

HERE = Path(__file__).parent
BATCH, WIDTH, TOL = 256, 512, 1e-5
SOLVERS = {
    "anderson": Anderson(max_iter=100),
    "broyden": Broyden(max_iter=100),
    "fixed_point_iter": Picard(max_iter=100),
}


def weights(family, generator):
    """√V = .9, .9 and .45."""
    a = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    if family == "iid":
        return 0.9 * a / WIDTH**0.5
    if family == "orthogonal":
        q, r = torch.linalg.qr(a)
        return 0.9 * q * r.diagonal().sign()
    return 0.45 * (a + a.T) / (2 * WIDTH) ** 0.5


def unrolled(W, x, cotangent):
    """The equilibrium and its gradients in float64, by backpropagation through 300 steps."""
    W, x = W.double().requires_grad_(), x.double().requires_grad_()
    z = torch.zeros_like(x)
    for _ in range(300):
        z = torch.tanh(z @ W.T + x)
    z.backward(cotangent.double())
    return z.detach(), W.grad, x.grad


class Ours:
    """A layer of ours on the same weights and inputs."""

    def __init__(self, W, x, cotangent, tol):
        self.W, self.x, self.cotangent, self.tol = W, x, cotangent, tol

    def __call__(self, solver, backward):
        W, x = self.W.clone().requires_grad_(), self.x.clone().requires_grad_()
        layer = FixedPointLayer(lambda z, x: torch.tanh(z @ W.T + x), SOLVERS[solver], tol=self.tol)
        start = time.process_time()
        z = layer(torch.zeros_like(x), x)
        seconds = time.process_time() - start
        if backward:
            start = time.process_time()
            z.backward(self.cotangent)
            seconds = time.process_time() - start
        return {
            "seconds": seconds,
            "evaluations": layer.last.forward.n_evals,
            "z": z.detach(),
            "gW": W.grad,
            "gx": x.grad,
        }


def relative(a, b):
    return float((a.double() - b).norm() / b.norm())


def compare(peer, folder, family, repeats):
    generator = torch.Generator().manual_seed(0)
    W = weights(family, generator).float()
    x, cotangent = torch.randn(2, BATCH, WIDTH, generator=generator).unbind()
    for name, value in (("W", W), ("x", x), ("cotangent", cotangent)):
        np.save(f"{folder}/{name}.npy", value.numpy())
    z, gW, gx = unrolled(W, x, cotangent)
    ours = Ours(W, x, cotangent, TOL / (1 + WIDTH**0.5 / float(z.norm(dim=1).min())))
    for solver in SOLVERS:
        mine = ours(solver, True)
        theirs = peer(solver, True)
        their = {name: torch.from_numpy(np.load(f"{folder}/theirs_{name}.npy")) for name in ("z", "gW", "gx")}
        step = torch.tanh(mine["z"] @ W.T + x)
        worst = float(((step - mine["z"]).norm(dim=1) / step.norm(dim=1)).max())
        assert worst <= TOL, worst
        assert relative(mine["z"], their["z"].double()) < 10 * TOL
        assert relative(mine["gW"], their["gW"].double()) < 10 * TOL
        for what in ("forward", "backward"):
            back = what == "backward"
            times = interleave(
                {
                    "ours": lambda solver=solver, back=back: ours(solver, back)["seconds"],
                    "theirs": lambda solver=solver, back=back: peer(solver, back)["seconds"],
                },
                repeats,
            )
            yield {
                "family": family,
                "solver": solver,
                "what": what,
                "peer": "torchdeq 0.1.0",
                "peer_seconds": times["theirs"],
                "ours_seconds": times["ours"],
                "ratio": times["theirs"] / times["ours"],
                "peer_evaluations": theirs["evaluations"],
                "ours_evaluations": mine["evaluations"],
                "peer_error": relative(their["gW" if back else "z"], gW if back else z),
                "ours_error": relative(mine["gW" if back else "z"], gW if back else z),
                "peer_input_error": relative(their["gx"], gx) if back else "",
                "ours_input_error": relative(mine["gx"], gx) if back else "",
            }


class Peer:
    """torchdeq in its own process."""

    def __init__(self, python, folder):
        command = [python, str(HERE / "torchdeq_worker.py")]
        self.folder = str(folder)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, solver, backward):
        task = {"folder": self.folder, "solver": solver, "backward": backward}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def peak(solver, max_iter):
    """Peak memory in MB, above what is there before, of a forward and a backward pass that use all iterations (Linux)."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    W = (weights("orthogonal", generator) / 0.9).float().requires_grad_()  # every eigenvalue is of size 1
    x = torch.randn(BATCH, WIDTH, generator=generator)

    def run(max_iter):
        config = replace(SOLVERS[solver], max_iter=max_iter)
        # compact=False: when samples leave (here, those that overflow) there are two copies of the rest for a moment
        layer = FixedPointLayer(lambda z, x: 0.9999 * z @ W.T + x, config, compact=False)
        layer(torch.zeros_like(x), x).square().mean().backward()
        assert layer.last.forward.n_evals == max_iter

    run(2)  # libraries allocate at their first call
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    run(max_iter)
    return memory("VmHWM") - before


def memory(what):
    """MB, from the process's status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return float(line.split()[1]) / 1024


def measure_memory():
    for solver in SOLVERS:
        found = {}
        for max_iter in (20, 400):
            command = [sys.executable, __file__, "--peak", solver, str(max_iter)]
            # tensors go back to the system as soon as they are freed
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found[max_iter] = float(answer.stdout)
        yield {
            "solver": solver,
            "what": "peak memory in MB, forward and backward",
            "max_iter_20": found[20],
            "max_iter_400": found[400],
            "growth": found[400] / found[20] - 1,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with torchdeq==0.1.0")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", nargs=2, metavar=("SOLVER", "MAX_ITER"), help="one measurement of memory")
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.peak[0], int(arguments.peak[1])))
        return
    if not arguments.peer_python:
        parser.error("--peer-python is missing")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(arguments.peer_python, folder)
        for family in ("iid", "orthogonal", "goe"):
            rows += compare(peer, folder, family, arguments.repeats)
    save(HERE / "equilibrium.csv", rows)
    save(HERE / "equilibrium_memory.csv", list(measure_memory()))


if __name__ == "__main__":
    main()
